//! Death at every point.

use protocol::workspace::{Phase, WhileRunning};

use super::world::{World, until};
use crate::workspace::machine::Operation;

/// Every point of an operation by its name.
fn points(operation: &Operation) -> Vec<String> {
    let name = |step: &crate::workspace::machine::Step, side| format!("{}/{}/{side}", operation.word(), step.word());
    let around = |what: &str| ["before", "after"].map(|side| format!("{}/{what}/{side}", operation.word()));
    let steps = operation.steps().iter().flat_map(|step| [name(step, "before"), name(step, "after")]);
    let gone = operation.rest_after(crate::workspace::record::Rest::Ready).is_none();
    // Before its intent is written nothing has happened; what is no more has no outcome.
    let intent = around("intent").into_iter().skip(1);
    let outcome = around("outcome").into_iter().take(if gone { 1 } else { 2 });
    intent.chain(steps).chain(outcome).collect()
}

/// Prepares with one daemon, lets a second die at `point` of `act`, and hands a third over.
macro_rules! after_death {
    ($point:expr, |$first:ident, $before:ident| $prepare:block, |$dying:ident| $act:expr, |$daemon:ident, $world:ident| $check:block) => {{
        let $world = World::new();
        {
            let $first = $world.open().await;
            let $before = &$world;
            $prepare;
            $first.end().await;
        }
        let (dying, mut death) = $world.open_to_die_at(&$point).await;
        let $dying = &dying;
        tokio::select! {
            _ = async { $act } => panic!("{}: it was to die", $point),
            _ = death.recv() => {}
        }
        dying.kill();
        let $daemon = $world.open().await;
        $check;
        $daemon.end().await;
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_up_is_finished_wherever_it_was_cut_off() {
    for point in points(&Operation::Up { rebuild: false, no_cache: false }) {
        after_death!(point, |_first, _before| {}, |dying| dying.up(&project_of(dying)).await, |daemon, world| {
            let view = daemon.settled().await.expect("it is listed");
            assert_eq!(view.phase, Phase::Ready, "{point}: {:?}", view.problem);
            assert_eq!(daemon.exec(&["read", "a.txt"]).await.1, "first\n", "{point}");
            assert_eq!(world.containers().await, 1, "{point}");
            let checkpoints = daemon.handle().checkpoints(10).await.unwrap();
            assert_eq!(checkpoints.len(), 1, "{point}: {checkpoints:?}");
        });
    }
}

fn project_of(daemon: &super::world::Daemon) -> std::path::PathBuf {
    daemon.registry.shared().state_dir.parent().unwrap().join("shop")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_a_rebuild_replaced_goes_wherever_that_was_cut_off() {
    for point in points(&Operation::Up { rebuild: true, no_cache: false }) {
        let replaced = std::sync::Mutex::new(String::new());
        after_death!(
            point,
            |first, before| {
                let made = first.up(&before.project).await.unwrap();
                *replaced.lock().unwrap() = made.workspace.image.unwrap();
                std::fs::write(before.project.join("Dockerfile"), "FROM debian:bookworm-slim\nENV A=2\n").unwrap();
            },
            |dying| {
                dying.handle().pool().await.unwrap();
                dying.rebuild(&project_of(dying)).await
            },
            |daemon, world| {
                let before = replaced.lock().unwrap().clone();
                let found = daemon.settled().await.unwrap().image.unwrap();
                if found != before {
                    until("its end", async || !daemon.has_image(&before).await).await;
                }
                // One that was cut off before it was recorded is begun again by whoever wants it.
                daemon.rebuild(&world.project).await.unwrap();
                let now = daemon.view().unwrap().image.unwrap();
                assert_ne!(now, before, "{point}");
                assert!(daemon.has_image(&now).await, "{point}");
                assert!(!daemon.has_image(&before).await, "{point}: {before} is left");
            }
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_finished_wherever_it_was_cut_off_and_loses_no_file() {
    for point in points(&Operation::Stop) {
        after_death!(
            point,
            |first, before| {
                first.up(&before.project).await.unwrap();
                assert_eq!(first.exec(&["write", "b.txt", "new"]).await.0, 0);
            },
            |dying| {
                dying.handle().pool().await.unwrap();
                dying.handle().stop(WhileRunning::Refuse).await
            },
            |daemon, world| {
                let view = daemon.settled().await.unwrap();
                assert_eq!(view.phase, Phase::Stopped, "{point}: {:?}", view.problem);
                assert_eq!(world.containers().await, 1);
                let diff = daemon.handle().diff(None, None, Vec::new()).await.unwrap();
                assert_eq!(diff.files.len(), 1, "{point}");
                daemon.handle().start().await.unwrap();
                assert_eq!(daemon.exec(&["read", "b.txt"]).await.1, "new", "{point}");
            }
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_is_finished_wherever_it_was_cut_off() {
    for point in points(&Operation::Start) {
        after_death!(
            point,
            |first, before| {
                first.up(&before.project).await.unwrap();
                first.handle().stop(WhileRunning::Refuse).await.unwrap();
            },
            |dying| dying.handle().start().await,
            |daemon, world| {
                let view = daemon.settled().await.unwrap();
                assert_eq!(view.phase, Phase::Ready, "{point}: {:?}", view.problem);
                assert_eq!(daemon.exec(&["read", "a.txt"]).await.1, "first\n", "{point}");
                assert_eq!(world.containers().await, 1);
            }
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroy_is_finished_wherever_it_was_cut_off_and_leaves_no_key() {
    for point in points(&Operation::Destroy { purge: false, force: false }) {
        after_death!(
            point,
            |first, before| {
                first.up(&before.project).await.unwrap();
                first.exec(&["write", "b.txt", "in no checkpoint yet"]).await;
            },
            |dying| dying.handle().destroy(true, false).await,
            |daemon, world| {
                let began = std::time::Instant::now();
                while daemon.view().is_some() {
                    assert!(began.elapsed() < super::world::PATIENCE, "{point}: {:?}", daemon.view());
                    tokio::task::yield_now().await;
                }
                assert_eq!(world.containers().await, 0, "{point}");
                let left = std::fs::read_dir(world.state().join("workspaces")).unwrap().count();
                assert_eq!(left, 0, "{point}");
                let kept = std::fs::read_dir(world.state().join("trash")).unwrap().next().unwrap().unwrap().path();
                assert!(kept.join("host/history.git").is_dir() && !kept.join("host/keys").exists(), "{point}");
                let history = git2::Repository::open_bare(kept.join("host/history.git")).unwrap();
                let newest = history.find_reference("refs/heads/main").unwrap().peel_to_tree().unwrap();
                assert!(newest.get_name("b.txt").is_some(), "{point}: what nobody asked to be recorded is kept");
                // The name is free again.
                assert!(daemon.up(&world.project).await.unwrap().created, "{point}");
            }
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_is_finished_once_wherever_it_was_cut_off() {
    let operation = Operation::Rollback { to: String::new(), before: None, paths: Vec::new(), clean: false };
    for point in points(&operation) {
        after_death!(
            point,
            |first, before| {
                first.up(&before.project).await.unwrap();
                first.exec(&["write", "a.txt", "second"]).await;
                first.handle().checkpoint(None).await.unwrap();
                first.exec(&["write", "b.txt", "in no checkpoint yet"]).await;
            },
            |dying| {
                dying.handle().pool().await.unwrap();
                dying.handle().rollback("base".into(), Vec::new(), false, WhileRunning::Refuse).await
            },
            |daemon, _world| {
                let view = daemon.settled().await.unwrap();
                assert_eq!(view.phase, Phase::Ready, "{point}: {:?}", view.problem);
                assert_eq!(daemon.exec(&["read", "a.txt"]).await.1, "first\n", "{point}");
                let causes: Vec<_> =
                    daemon.handle().checkpoints(10).await.unwrap().into_iter().map(|c| c.cause).collect();
                assert_eq!(causes.iter().filter(|c| *c == "rollback").count(), 1, "{point}: {causes:?}");
                daemon.handle().rollback("@~1".into(), Vec::new(), false, WhileRunning::Refuse).await.unwrap();
                assert_eq!(daemon.exec(&["read", "b.txt"]).await.1, "in no checkpoint yet", "{point}");
            }
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apply_is_finished_once_wherever_it_was_cut_off() {
    for point in points(&Operation::Apply { branch: "b".into() }) {
        after_death!(
            point,
            |first, before| {
                first.up(&before.project).await.unwrap();
                first.exec(&["write", "b.txt", "new"]).await;
            },
            |dying| {
                dying.handle().pool().await.unwrap();
                dying.handle().apply(None, WhileRunning::Refuse).await
            },
            |daemon, world| {
                daemon.settled().await.unwrap();
                let done = daemon.handle().apply(None, WhileRunning::Refuse).await.unwrap();
                let repository = git2::Repository::open(&world.project).unwrap();
                let tip = repository.find_branch("vcoding/shop", git2::BranchType::Local).unwrap();
                let tip = tip.get().peel_to_commit().unwrap();
                assert_eq!(Some(tip.id().to_string()), done.commit, "{point}");
                assert!(tip.tree().unwrap().get_name("b.txt").is_some(), "{point}");
            }
        );
    }
}
