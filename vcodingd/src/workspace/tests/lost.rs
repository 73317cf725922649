//! The store lost, damaged, older than its workspaces, or of an earlier version: what is beside the
//! workspaces brings it back.

use std::path::Path;

use protocol::WorkspaceRef;
use protocol::run::{RunStartParams, RunState};
use protocol::workspace::{Phase, WhileRunning};

use super::world::{Daemon, PATIENCE, World, until};
use crate::runs::RunRecord;
use crate::store::Store;
use crate::workspace::{Say, WorkspaceRecord};

async fn run_to_its_end(daemon: &Daemon, text: &str) -> protocol::RunId {
    let params = RunStartParams {
        workspace: WorkspaceRef::Name("shop".into()),
        agent: None,
        prompt: None,
        argv: vec!["write".into(), text.into(), "x".into()],
        model: None,
        resume: None,
        timeout_ms: None,
        max_requests: None,
        progress: false,
    };
    let run = daemon.registry.run_start(params, Say::default()).await.unwrap().id;
    let began = std::time::Instant::now();
    while !daemon.registry.run(&run).unwrap().state.is_over() {
        assert!(began.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
    run
}

/// With one workspace that has a run behind it, no daemon, and no store that can be relied on.
async fn world_with_a_past() -> (World, protocol::RunId) {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    let run = run_to_its_end(&daemon, "b.txt").await;
    daemon.end().await;
    (world, run)
}

async fn everything_is_there(world: &World, run: &protocol::RunId, how: &str) -> Daemon {
    let daemon = world.open().await;
    let view = daemon.settled().await.unwrap_or_else(|| panic!("{how}: it is listed"));
    assert_eq!((view.phase, view.problem), (Phase::Ready, None), "{how}");
    assert_eq!(daemon.exec(&["read", "b.txt"]).await.1, "x", "{how}");
    assert_eq!(world.containers().await, 1, "{how}: the guest that was there");
    assert_eq!(daemon.registry.run(run).unwrap().state, RunState::Succeeded, "{how}");
    assert_eq!(daemon.handle().checkpoints(10).await.unwrap().len(), 2, "{how}");
    daemon
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_deleted_comes_back_with_workspaces_and_runs() {
    let (world, run) = world_with_a_past().await;
    std::fs::remove_dir_all(world.state().join("db")).unwrap();
    let daemon = everything_is_there(&world, &run, "deleted").await;
    assert_eq!((daemon.recovered.workspaces.len(), daemon.recovered.runs), (1, 1));
    daemon.end().await;
    // And is a whole store again.
    let daemon = everything_is_there(&world, &run, "the next").await;
    assert!(daemon.recovered.is_nothing(), "{:?}", daemon.recovered);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_read_is_set_aside_and_comes_back() {
    let (world, run) = world_with_a_past().await;
    let db = world.state().join("db");
    let file = db.join("conf");
    std::fs::write(&file, "no configuration of a store").unwrap();
    let daemon = everything_is_there(&world, &run, "garbage").await;
    assert_eq!((daemon.recovered.workspaces.len(), daemon.recovered.runs), (1, 1));
    let aside = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("db.unreadable-");
    let aside: Vec<_> = std::fs::read_dir(world.state()).unwrap().flatten().filter(aside).collect();
    assert_eq!(aside.len(), 1);
    assert!(aside[0].path().join("conf").exists(), "nothing of it is thrown away");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_older_than_its_workspaces_is_brought_up_to_date() {
    let world = World::new();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    daemon.handle().stop(WhileRunning::Refuse).await.unwrap();
    daemon.end().await;
    let (db, kept) = (world.state().join("db"), world.dir.path().join("kept"));
    copy(&db, &kept);
    let daemon = world.open().await;
    daemon.handle().start().await.unwrap();
    let run = run_to_its_end(&daemon, "b.txt").await;
    daemon.end().await;
    std::fs::remove_dir_all(&db).unwrap();
    copy(&kept, &db);
    let daemon = everything_is_there(&world, &run, "older").await;
    assert_eq!((daemon.recovered.workspaces.len(), daemon.recovered.runs), (1, 1));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_without_any_record_is_named_and_left_alone() {
    let (world, _) = world_with_a_past().await;
    std::fs::remove_dir_all(world.state().join("db")).unwrap();
    let workspaces = std::fs::read_dir(world.state().join("workspaces")).unwrap();
    let directory = workspaces.flatten().next().unwrap().path();
    std::fs::write(directory.join("host/record.json"), "{").unwrap();
    let daemon = world.open().await;
    assert_eq!(daemon.recovered.unknown, std::slice::from_ref(&directory));
    assert!(daemon.recovered.notices()[0].contains("host/history.git"));
    assert!(directory.join("host/history.git").is_dir() && directory.join("tree/b.txt").is_file());
    daemon.end().await;
}

/// One as version 0.1.0 left it: a workspace that was stopped after a run of its own.
#[tokio::test]
async fn a_store_of_the_first_version_is_read_and_written_as_one_of_this() {
    let dir = tempfile::tempdir().unwrap();
    let packed = flate2::read::GzDecoder::new(&include_bytes!("../testdata/store-1.tar.gz")[..]);
    tar::Archive::new(packed).unpack(dir.path()).unwrap();
    let (store, aside) = Store::open_or_set_aside(&dir.path().join("db"), |_| Ok(())).unwrap();
    assert_eq!(aside, None);
    let workspaces = store.table::<WorkspaceRecord>().unwrap();
    let mut shop = workspaces.list().unwrap().remove(0).unwrap();
    assert_eq!((shop.name.as_str(), shop.revision), ("shop", 0));
    let runs = store.table::<RunRecord>().unwrap().list().unwrap();
    assert_eq!(runs.into_iter().map(|run| run.unwrap().state).collect::<Vec<_>>(), [RunState::Succeeded]);
    shop.revision = 7;
    workspaces.put(&shop).await.unwrap();
    assert_eq!(workspaces.get(shop.id.as_str()).unwrap(), Some(shop));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_that_were_deleted_come_back_and_the_work_tree_as_last_recorded() {
    for restarted in [false, true] {
        for deleted in ["tree", "run", "home"] {
            let (world, run) = world_with_a_past().await;
            let mut daemon = world.open().await;
            daemon.settled().await;
            let own = std::fs::read_dir(world.state().join("workspaces")).unwrap().flatten().next().unwrap().path();
            std::fs::remove_dir_all(own.join(deleted)).unwrap();
            if restarted {
                daemon.end().await;
                daemon = world.open().await;
            }
            let up = daemon.up(&world.project).await.unwrap();
            let how = format!("{deleted}, restarted: {restarted}");
            assert_eq!((up.workspace.phase, up.created), (Phase::Ready, false), "{how}");
            assert_eq!(daemon.exec(&["read", "b.txt"]).await.1, "x", "{how}");
            assert_eq!(daemon.registry.run(&run).unwrap().state, RunState::Succeeded, "{how}");
            let causes: Vec<_> = daemon.handle().checkpoints(10).await.unwrap().into_iter().map(|c| c.cause).collect();
            assert_eq!(causes.iter().any(|c| c == "recovery"), deleted == "tree", "{how}: {causes:?}");
            daemon.end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_history_is_gone_nothing_is_overwritten_and_the_way_out_is_said() {
    for whole in [false, true] {
        let (world, _) = world_with_a_past().await;
        let daemon = world.open().await;
        daemon.settled().await;
        let own = std::fs::read_dir(world.state().join("workspaces")).unwrap().flatten().next().unwrap().path();
        std::fs::remove_dir_all(if whole { own.clone() } else { own.join("host/history.git") }).unwrap();
        let handle = daemon.handle();
        let errors = [
            handle.diff(None, None, Vec::new()).await.map(drop).unwrap_err(),
            handle.checkpoint(None).await.map(drop).unwrap_err(),
            daemon.up(&world.project).await.map(drop).unwrap_err(),
            handle.destroy(false, false).await.unwrap_err(),
        ];
        for error in errors {
            assert!(error.message.contains("history of workspace shop is gone"), "{whole}: {error}");
            assert!(error.data.hint.unwrap().contains("destroy --force"), "{whole}");
        }
        assert!(handle.checkpoints(10).await.is_err());
        assert_eq!(own.join("tree/b.txt").exists(), !whole, "{whole}");
        handle.destroy(true, false).await.unwrap();
        assert_eq!(world.containers().await, 0, "{whole}");
        daemon.end().await;
        assert!(world.open().await.view().is_none(), "{whole}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_destroyed_is_known_with_its_runs_until_it_was_kept_long_enough() {
    let (world, run) = world_with_a_past().await;
    let daemon = world.open().await;
    daemon.settled().await;
    let image = daemon.view().unwrap().image.unwrap();
    daemon.registry.destroy(&protocol::WorkspaceRef::Name("shop".into()), true, false).await.unwrap();
    assert!(!daemon.has_image(&image).await, "it goes with its last use");
    assert!(daemon.registry.run(&run).is_ok());
    daemon.end().await;

    // Its runs come back with it, if the store is lost.
    std::fs::remove_dir_all(world.state().join("db")).unwrap();
    let daemon = world.open().await;
    assert_eq!(daemon.registry.run(&run).unwrap().state, RunState::Succeeded);
    assert_eq!(daemon.recovered.runs, 1);
    daemon.end().await;

    let kept = std::fs::read_dir(world.state().join("trash")).unwrap().flatten().next().unwrap().path();
    let long_ago = std::time::SystemTime::now() - crate::workspace::trash::KEPT - std::time::Duration::from_secs(60);
    std::fs::File::open(&kept).unwrap().set_modified(long_ago).unwrap();
    let daemon = world.open().await;
    until("the end of what was kept", async || !kept.exists()).await;
    assert!(daemon.registry.run(&run).is_err());
    daemon.end().await;
}
