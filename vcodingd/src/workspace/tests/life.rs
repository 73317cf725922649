//! A workspace's life without death: what is shared, refused, repaired.

use protocol::run::{RunItem, RunStartParams, RunState, RunSubscribeParams};
use protocol::workspace::{Phase, UpParams, WhileRunning};
use protocol::{Kind, WorkspaceRef};

use super::world::{Daemon, PATIENCE, World};
use crate::provider::Error as ProviderError;
use crate::provider::fake::Op;
use crate::workspace::Say;
use crate::workspace::handle::Rebuild;

fn command(argv: &[&str]) -> RunStartParams {
    RunStartParams {
        workspace: WorkspaceRef::Name("shop".into()),
        agent: None,
        prompt: None,
        argv: argv.iter().map(|a| (*a).into()).collect(),
        model: None,
        resume: None,
        timeout_ms: None,
        max_requests: None,
        progress: false,
    }
}

fn of(run: &protocol::RunId, once: bool) -> RunSubscribeParams {
    RunSubscribeParams { run: run.clone(), from: None, once, raw: false, bytes: false }
}

/// All of a run to its end: its text and its record's state.
async fn followed(daemon: &Daemon, run: &protocol::RunId) -> (String, protocol::run::RunView) {
    use futures_util::StreamExt;
    let mut items = daemon.registry.follow(&of(run, false)).await.unwrap();
    let mut text = String::new();
    let all = async {
        while let Some(item) = items.next().await {
            match item {
                RunItem::Event(event) => {
                    if let protocol::event::EventBody::Output { text: line, .. } = event.body {
                        text.push_str(&line.to_text());
                        text.push('\n');
                    }
                }
                RunItem::Output(_) => panic!("events were asked for"),
                RunItem::End(view) => return *view,
            }
        }
        panic!("a run without its end");
    };
    let view = tokio::time::timeout(PATIENCE, all).await.expect("the run ends");
    (text, view)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ups_at_once_make_one_workspace() {
    let world = World::new();
    let daemon = world.open().await;
    let (a, b) = tokio::join!(daemon.up(&world.project), daemon.up(&world.project));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.workspace.id, b.workspace.id);
    assert_eq!(u8::from(a.created) + u8::from(b.created), 1);
    assert_eq!(world.containers().await, 1);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_belongs_to_its_project_and_the_next_gets_a_number() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    let other = world.dir.path().join("x/shop");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("Dockerfile"), "FROM x\n").unwrap();
    let params = |name: Option<&str>| UpParams {
        project: other.clone(),
        name: name.map(|n| n.parse().unwrap()),
        ..UpParams::default()
    };
    let taken = daemon.registry.up(params(Some("shop")), Say::default()).await.unwrap_err();
    assert_eq!(taken.kind(), Kind::WorkspaceTaken);
    let second = daemon.registry.up(params(None), Say::default()).await.unwrap();
    assert_eq!(second.workspace.name.as_str(), "shop-2");
    // A project that moved is not taken for a new one.
    let moved = world.dir.path().join("moved/shop");
    std::fs::create_dir_all(moved.parent().unwrap()).unwrap();
    std::fs::rename(&world.project, &moved).unwrap();
    let gone = daemon.up(&moved).await.unwrap_err();
    assert_eq!(gone.kind(), Kind::WorkspaceTaken);
    assert!(gone.message.contains("which is gone"), "{gone}");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_engine_refuses_the_next_up_repairs() {
    for op in [Op::Image, Op::Build, Op::Peek, Op::Create, Op::Start, Op::Inspect] {
        let world = World::new();
        let daemon = world.open().await;
        let refusal = || ProviderError::Engine { doing: "a test", message: "it will not".into() };
        world.guests.fail_next(op, refusal());
        let failed = daemon.up(&world.project).await.unwrap_err();
        assert_eq!(failed.kind(), Kind::EngineFailed, "{op:?}");
        assert_eq!(daemon.view().unwrap().phase, Phase::Broken, "{op:?}");
        assert!(daemon.view().unwrap().problem.unwrap().contains("it will not"), "{op:?}");
        let up = daemon.up(&world.project).await.unwrap();
        assert_eq!((up.workspace.phase, up.workspace.problem), (Phase::Ready, None), "{op:?}");
        daemon.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_was_never_applied_is_not_destroyed_by_mistake() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    daemon.exec(&["write", "b.txt", "new"]).await;
    let refused = daemon.handle().destroy(false, false).await.unwrap_err();
    assert_eq!((refused.kind(), refused.kind().exit()), (Kind::UnappliedWork, 4));
    assert_eq!(refused.data.details["total"], 1, "{refused:?}");
    assert_eq!(refused.data.details["files"][0]["path"], "b.txt");
    daemon.handle().apply(None, WhileRunning::Refuse).await.unwrap();
    daemon.handle().destroy(false, false).await.unwrap();
    assert_eq!(world.containers().await, 0);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_work_tree_whose_history_is_gone_is_neither_emptied_nor_destroyed_by_mistake() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    daemon.exec(&["write", "b.txt", "hours of work"]).await;
    let id = daemon.view().unwrap().id;
    daemon.end().await;
    let own = world.state().join("workspaces").join(id.as_str());
    std::fs::remove_dir_all(own.join("host/history.git")).unwrap();
    let daemon = world.open().await;
    daemon.settled().await;
    let refused = daemon.handle().destroy(false, false).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::UnappliedWork, "{refused:?}");
    let refused = daemon.handle().up(Rebuild::Anew, Say::default()).await.unwrap_err();
    assert!(refused.message.contains("history of workspace shop is gone"), "{refused:?}");
    assert_eq!(std::fs::read(own.join("tree/b.txt")).unwrap(), b"hours of work");
    daemon.handle().destroy(true, true).await.unwrap();
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_work_on_a_project_that_was_moved_comes_home_by_a_link() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    daemon.exec(&["write", "b.txt", "new"]).await;
    let moved = world.dir.path().join("moved");
    std::fs::rename(&world.project, &moved).unwrap();
    let refused = daemon.handle().apply(None, WhileRunning::Refuse).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::NoProject, "{refused:?}");
    assert!(refused.data.hint.unwrap().contains("ln -s"));
    std::os::unix::fs::symlink(&moved, &world.project).unwrap();
    let done = daemon.handle().apply(None, WhileRunning::Refuse).await.unwrap();
    let repository = git2::Repository::open(&moved).unwrap();
    let tip = repository.find_branch("vcoding/shop", git2::BranchType::Local).unwrap();
    assert_eq!(tip.get().target().map(|id| id.to_string()), done.commit);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_of_what_never_came_up_leaves_it_to_be_made() {
    let world = World::new();
    let daemon = world.open().await;
    world.guests.fail_next(Op::Create, ProviderError::Engine { doing: "a test", message: "it will not".into() });
    daemon.up(&world.project).await.unwrap_err();
    daemon.handle().stop(WhileRunning::Refuse).await.unwrap();
    let up = daemon.up(&world.project).await.unwrap();
    assert!(up.created && up.workspace.base.is_some());
    assert_eq!(daemon.exec(&["read", "a.txt"]).await.1, "first\n");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_of_some_paths_leaves_the_others() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    daemon.exec(&["write", "a.txt", "second"]).await;
    daemon.exec(&["write", "b.txt", "new"]).await;
    let done =
        daemon.handle().rollback("base".into(), vec!["a.txt".into()], false, WhileRunning::Refuse).await.unwrap();
    assert_eq!(daemon.exec(&["read", "a.txt"]).await.1, "first\n");
    assert_eq!(daemon.exec(&["read", "b.txt"]).await.1, "new");
    let log = daemon.handle().checkpoints(10).await.unwrap();
    assert_eq!((log[0].id.clone(), log[1].id.clone()), (done.checkpoint.id, done.before));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_in_the_background_is_recorded_with_its_checkpoints_and_its_output() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    let run = daemon.registry.run_start(command(&["echo", "hello", "there"]), Say::default()).await.unwrap();
    let (text, end) = followed(&daemon, &run.id).await;
    assert_eq!(text, "hello there\n");
    assert_eq!((end.state, end.status, end.exit), (RunState::Succeeded, Some(0), Some(0)));
    assert!(end.before.is_some() && end.after.is_some());
    // It can be read again, and by another daemon too.
    daemon.end().await;
    let daemon = world.open().await;
    assert_eq!(followed(&daemon, &run.id).await.0, "hello there\n");
    let failed = daemon.registry.run_start(command(&["exit", "3"]), Say::default()).await.unwrap();
    assert_eq!(followed(&daemon, &failed.id).await.1.exit, Some(3));
    let listed: Vec<_> = daemon.registry.runs(None).unwrap().into_iter().map(|r| r.id).collect();
    assert_eq!(listed, [failed.id, run.id], "newest first");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_run_is_cancelled_whatever_its_status() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    let run = daemon.registry.run_start(command(&["hang"]), Say::default()).await.unwrap();
    assert_eq!(daemon.view().unwrap().runs, 1);
    let end = daemon.registry.run_cancel(&run.id).await.unwrap();
    assert_eq!((end.state, end.exit), (RunState::Cancelled, Some(130)));
    assert_eq!(daemon.view().unwrap().runs, 0);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_outlives_the_daemon() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    let run = daemon.registry.run_start(command(&["hang"]), Say::default()).await.unwrap();
    daemon.kill();
    let daemon = world.open().await;
    daemon.settled().await;
    assert_eq!(daemon.registry.run(&run.id).unwrap().state, RunState::Running);
    let end = daemon.registry.run_cancel(&run.id).await.unwrap();
    assert_eq!(end.state, RunState::Cancelled);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_guest_dies_is_lost_and_the_workspace_comes_again() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    let run = daemon.registry.run_start(command(&["hang"]), Say::default()).await.unwrap();
    world.guests.crash(&daemon.view().unwrap().id, true);
    daemon.handle().start().await.unwrap();
    let (_, end) = followed(&daemon, &run.id).await;
    assert_eq!(end.state, RunState::Lost, "{:?}", end.problem);
    assert_eq!(daemon.exec(&["read", "a.txt"]).await.1, "first\n");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_ends_the_runs_first() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    let run = daemon.registry.run_start(command(&["hang"]), Say::default()).await.unwrap();
    daemon.handle().stop(WhileRunning::Force).await.unwrap();
    assert_eq!(daemon.registry.run(&run.id).unwrap().state, RunState::Cancelled);
    assert_eq!(daemon.view().unwrap().phase, Phase::Stopped);
    let refused = daemon.handle().pool().await.unwrap_err();
    assert_eq!(refused.kind(), Kind::WorkspaceNotRunning);
    assert_eq!(refused.data.hint.as_deref(), Some("vcodingctl start"));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_run_would_suffer_from_is_refused_waited_for_or_forced() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    let run = daemon.registry.run_start(command(&["hang"]), Say::default()).await.unwrap();
    let handle = daemon.handle();
    let refusals = [
        handle.stop(WhileRunning::Refuse).await.unwrap_err(),
        handle.apply(None, WhileRunning::Refuse).await.unwrap_err(),
        handle.rollback("base".into(), Vec::new(), false, WhileRunning::Refuse).await.unwrap_err(),
    ];
    for refused in refusals {
        assert_eq!(refused.kind(), Kind::RunsUnderWay, "{refused}");
        assert!(refused.message.contains("(hang)"), "it names the run: {refused}");
    }
    handle.rollback("base".into(), Vec::new(), false, WhileRunning::Force).await.unwrap();
    assert!(!daemon.registry.run(&run.id).unwrap().state.is_over(), "it goes on");
    // Whoever waits is let through by the run's end, and not before.
    let mut stopping = std::pin::pin!(handle.stop(WhileRunning::Wait));
    assert!(futures_util::poll!(&mut stopping).is_pending());
    daemon.registry.run_cancel(&run.id).await.unwrap();
    stopping.await.unwrap();
    assert_eq!(daemon.view().unwrap().phase, Phase::Stopped);
    assert_eq!(daemon.registry.run(&run.id).unwrap().state, RunState::Cancelled);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_with_a_run_under_way_is_destroyed_only_by_force() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    let run = daemon.registry.run_start(command(&["hang"]), Say::default()).await.unwrap();
    let refused = daemon.handle().destroy(false, true).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::RunsUnderWay, "{refused}");
    assert!(!daemon.registry.run(&run.id).unwrap().state.is_over());
    daemon.handle().destroy(true, true).await.unwrap();
    assert_eq!(daemon.registry.run(&run.id).unwrap_err().kind(), Kind::RunNotFound, "nothing of it is kept");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_a_run_go_with_its_workspace_and_nothing_is_made_by_looking_for_them() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    let run = daemon.registry.run_start(command(&["write", "b.txt", "x"]), Say::default()).await.unwrap().id;
    followed(&daemon, &run).await;
    let id = daemon.view().unwrap().id;
    daemon.handle().destroy(true, false).await.unwrap();
    let gone = daemon.registry.follow(&of(&run, true)).await.map(drop).unwrap_err();
    assert!(gone.message.contains("gone with workspace shop"), "{gone}");
    assert!(!world.state().join("workspaces").join(id.as_str()).exists());
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_label_stays_where_it_was_given() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    let good = daemon.handle().checkpoint(Some("good".into())).await.unwrap().0;
    daemon.exec(&["write", "b.txt", "x"]).await;
    let taken = daemon.handle().checkpoint(Some("good".into())).await.unwrap_err();
    assert!(taken.kind() == Kind::LabelTaken && taken.message.contains(&good.id[..10]), "{taken}");
    let better = daemon.handle().checkpoint(Some("better".into())).await.unwrap().0;
    assert_ne!(good.id, better.id);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_recorded_yet_is_not_said_to_be_home() {
    let world = World::new();
    let daemon = world.open().await;
    let unrecorded = |daemon: &Daemon| daemon.view().unwrap().unrecorded;
    assert!(!daemon.up(&world.project).await.unwrap().workspace.unrecorded);
    let doing = daemon.handle().doing();
    assert!(unrecorded(&daemon));
    drop(doing);
    assert!(unrecorded(&daemon));
    daemon.handle().checkpoint(None).await.unwrap();
    assert!(!unrecorded(&daemon));
    daemon.end().await;
    let daemon = world.open().await;
    daemon.settled().await;
    assert!(unrecorded(&daemon), "what happened while no daemon was there nobody knows");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_up_says_that_the_project_has_gone_on() {
    let world = World::new();
    let git = |args: &[&str]| {
        let who = ["-c", "user.name=u", "-c", "user.email=u@example.org"];
        let done = std::process::Command::new("git").current_dir(&world.project).args(who).args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    git(&["init", "-q", "."]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "first"]);
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    let moved = |notes: &[String]| notes.iter().any(|note| note.contains("other commits"));
    assert!(!moved(&daemon.up(&world.project).await.unwrap().notes));
    // What came home and was merged is no news.
    daemon.exec(&["write", "b.txt", "x"]).await;
    daemon.handle().apply(None, WhileRunning::Refuse).await.unwrap();
    git(&["merge", "-q", "vcoding/shop"]);
    assert!(!moved(&daemon.up(&world.project).await.unwrap().notes));
    git(&["commit", "-q", "--allow-empty", "-m", "the same tree"]);
    assert!(!moved(&daemon.up(&world.project).await.unwrap().notes));
    std::fs::write(world.project.join("c.txt"), "mine").unwrap();
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "mine"]);
    assert!(moved(&daemon.up(&world.project).await.unwrap().notes));
    daemon.end().await;
}

/// A daemon of another state directory removes what it does not need any more; the two share an engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_was_removed_just_before_the_guest_is_made_is_made_again() {
    let world = World::new();
    let daemon = world.open().await;
    let gone = || ProviderError::NoSuchImage { reference: "sha256:0".into() };
    for _ in 0..2 {
        world.guests.fail_next(Op::Create, gone());
    }
    assert_eq!(daemon.up(&world.project).await.unwrap().workspace.phase, Phase::Ready);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_memory_limit_ended_says_so() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    let handle = daemon.registry.find(&protocol::WorkspaceRef::Name("shop".into())).unwrap();
    let ended = async |argv: &[&str]| {
        let run = daemon.registry.run_start(command(argv), Say::default()).await.unwrap();
        followed(&daemon, &run.id).await.1
    };
    let killed = ended(&["exit", "137"]).await;
    assert_eq!((killed.status, killed.memory_limit), (Some(137), None), "by somebody");
    assert_eq!(handle.memory_limit_hit(), None);
    let over = ended(&["oom"]).await;
    assert_eq!((over.status, over.memory_limit), (Some(137), Some(4 << 30)));
    let why = over.problem.unwrap();
    assert!(why.contains("its limit, 4g, allows") && why.contains("memory = \"8g\""), "{why}");
    // A command that was attached and ended with it.
    assert_eq!(handle.memory_limit_hit(), Some(4 << 30));
    let hanging = daemon.registry.run_start(command(&["hang"]), Say::default()).await.unwrap();
    let id = handle.snapshot().view.id.clone();
    world.guests.crash(&id, true);
    assert_eq!(handle.memory_limit_ended_guest().await, Some(4 << 30));
    handle.start().await.unwrap();
    let lost = daemon.registry.run(&hanging.id).unwrap();
    assert_eq!((lost.state, lost.memory_limit), (protocol::run::RunState::Lost, Some(4 << 30)));
    daemon.end().await;
}
