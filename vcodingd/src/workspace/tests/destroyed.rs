//! Destroyed workspaces: kept whole, brought back, ended.

use protocol::Kind;
use protocol::workspace::{GcParams, Phase, UpParams};

use super::world::World;
use crate::workspace::Say;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_destroyed_is_brought_back_with_what_no_checkpoint_had() {
    let world = World::new();
    std::fs::write(world.project.join(".gitignore"), "*.secret\n").unwrap();
    let daemon = world.open().await;
    daemon.up(&world.project).await.unwrap();
    assert_eq!(daemon.exec(&["write", "only.secret", "here"]).await.0, 0);
    assert_eq!(daemon.exec(&["write", "b.txt", "new"]).await.0, 0);
    let id = daemon.view().unwrap().id;
    let home = world.state().join("workspaces").join(id.as_str()).join("home");
    std::fs::write(home.join("history"), "h").unwrap();
    let named = protocol::WorkspaceRef::Name("shop".into());
    let gone = daemon.registry.destroy(&named, true, false).await.unwrap();
    assert_eq!(gone.notes, ["in no checkpoint were 1 name that the project's own rules ignore: only.secret"]);
    let kept = daemon.registry.trash().await.unwrap();
    assert_eq!((kept.len(), &kept[0].id, kept[0].name.as_ref().unwrap().as_str()), (1, &id, "shop"));

    let from =
        |text: &str| UpParams { project: world.project.clone(), from: Some(text.to_owned()), ..UpParams::default() };
    let refused = daemon.registry.up(from("shap"), Say::default()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::WorkspaceNotFound, "{refused}");
    let back = daemon.registry.up(from("shop"), Say::default()).await.unwrap();
    assert_eq!((&back.workspace.id, back.workspace.phase), (&id, Phase::Ready));
    assert_eq!(daemon.exec(&["read", "only.secret"]).await.1, "here");
    assert_eq!(std::fs::read_to_string(home.join("history")).unwrap(), "h");
    assert!(daemon.registry.trash().await.unwrap().is_empty());

    // A second one of the project is in the way; by another name, and by a checkpoint.
    daemon.registry.destroy(&named, true, false).await.unwrap();
    let other = daemon.up(&world.project).await.unwrap().workspace.id;
    assert_ne!(other, id);
    let refused = daemon.registry.up(from(id.as_str()), Say::default()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::WorkspaceTaken, "{refused}");
    let renamed = UpParams { name: Some("old".parse().unwrap()), ..from(&format!("{id}:base")) };
    let back = daemon.registry.up(renamed, Say::default()).await.unwrap();
    assert_eq!((back.workspace.name.as_str(), &back.workspace.id), ("old", &id));
    let tree = world.state().join("workspaces").join(id.as_str()).join("tree");
    assert!(!tree.join("b.txt").exists() && tree.join("only.secret").exists());
    daemon.end().await;
    let daemon = world.open().await;
    assert_eq!(daemon.registry.list().len(), 2, "both are there for the next daemon");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_way_back_was_cut_off_is_kept_or_is_there() {
    let world = World::new();
    let daemon = world.open().await;
    let id = daemon.up(&world.project).await.unwrap().workspace.id;
    let named = protocol::WorkspaceRef::Name("shop".into());
    daemon.registry.destroy(&named, true, false).await.unwrap();
    daemon.end().await;
    // Moved, and the daemon killed before its store knew.
    let kept = world.state().join("trash").join(id.as_str());
    let record = crate::workspace::WorkspaceRecord::read_copy(&kept.join("host")).unwrap();
    let record = crate::workspace::WorkspaceRecord {
        intent: None,
        rest: crate::workspace::record::Rest::Stopped,
        revision: record.revision + 1,
        ..record
    };
    crate::workspace::trash::bring_back(&world.state(), &record).unwrap();
    let daemon = world.open().await;
    assert_eq!(daemon.settled().await.unwrap().phase, Phase::Stopped);
    daemon.handle().start().await.unwrap();
    assert_eq!(daemon.exec(&["read", "a.txt"]).await.1, "first\n");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gc_ends_what_nobody_needs_and_says_what_it_frees() {
    let world = World::new();
    let daemon = world.open().await;
    let image = daemon.up(&world.project).await.unwrap().workspace.image.unwrap();
    let provider = daemon.registry.shared().provider.clone();
    provider.tag(&crate::provider::ImageId(image.clone()), "vcoding/old:1234").await.unwrap();
    let other = world.project_beside("other");
    daemon.up(&other).await.unwrap();
    daemon.registry.destroy(&protocol::WorkspaceRef::Name("other".into()), true, false).await.unwrap();
    let gc = async |trash, dry_run| daemon.registry.gc(GcParams { trash, dry_run }).await.unwrap();
    let names = |result: &protocol::workspace::GcResult| {
        result.freed.iter().map(|freed| freed.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&gc(false, true).await), ["vcoding/old:1234"]);
    assert!(daemon.has_image("vcoding/old:1234").await, "that was only a look");
    let done = gc(false, false).await;
    assert_eq!((names(&done), done.trashed), (vec!["vcoding/old:1234".to_owned()], 1));
    assert!(!daemon.has_image("vcoding/old:1234").await && daemon.has_image(&image).await);
    let done = gc(true, false).await;
    assert_eq!((names(&done), done.trashed, done.trash_bytes), (vec!["other".to_owned()], 0, 0));
    daemon.end().await;
}
