//! A guest that takes too much of the disk.

use protocol::workspace::WhileRunning;

use super::world::{World, until};
use crate::workspace::disk::Fill;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_takes_too_much_is_stopped_and_what_makes_room_works() {
    let world = World::new();
    std::fs::write(world.project.join("vcoding.toml"), "[limits]\ndisk = \"64m\"\n").unwrap();
    let daemon = world.open().await;
    let id = daemon.up(&world.project).await.unwrap().workspace.id;
    daemon.exec(&["spawn"]).await;
    assert_eq!(world.guests.children(&id), 1);
    let fuller = || daemon.fill.send(Fill::default()).unwrap();
    fuller();
    let tree = world.state().join("workspaces").join(id.as_str()).join("tree");
    std::fs::write(tree.join("much"), vec![7; 70 << 20]).unwrap();
    let warning = || daemon.view().unwrap().warning;
    until("the end of its processes", async || {
        fuller();
        warning().is_some()
    })
    .await;
    assert!(warning().unwrap().contains("[limits] disk is 64 MiB"), "{:?}", warning());
    until("their end", async || world.guests.children(&id) == 0).await;
    // What makes room works, and the warning goes with its cause.
    let works = async || daemon.try_exec(&["read", "a.txt"]).await.is_ok_and(|(_, text)| text == "first\n");
    until("a command on a connection that is there", works).await;
    daemon.handle().rollback("base".into(), Vec::new(), false, WhileRunning::Refuse).await.unwrap();
    std::fs::remove_file(tree.join("much"))
        .or_else(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(e),
        })
        .unwrap();
    until("the warning's end", async || {
        fuller();
        warning().is_none()
    })
    .await;
    daemon.end().await;
}
