//! The main job for an ordinary user of the engine's group: guests have that user's own uid.

use crate::world::{World, git};

const DOCKERFILE: &str = "FROM debian:bookworm-slim\n";

#[test]
fn an_ordinary_user_has_the_whole_way_there_and_back() {
    let Some(world) = World::of_ordinary_user("an ordinary user") else { return };
    let project = world.repository("shop", &[("Dockerfile", DOCKERFILE), ("a.txt", "first\n")]);
    world.give(&project);
    world.ok(&project, &["up"]);
    let ran =
        world.ok(&project, &["exec", "--", "sh", "-c", "id -u; cat a.txt; echo second > a.txt; mkdir d; echo x > d/b"]);
    assert_eq!(ran.out, "54321\nfirst\n");
    let wall = world.json(&project, &["show"]);
    assert_eq!((&wall["wall"]["uid"], &wall["wall"]["read_only_root"]), (&54321.into(), &true.into()));
    assert_eq!(wall["wall"]["interfaces"], serde_json::json!(["lo"]));

    world.ok(&project, &["rollback", "base"]);
    assert_eq!(world.ok(&project, &["exec", "--", "sh", "-c", "cat a.txt; ls"]).out, "first\nDockerfile\na.txt\n");
    world.ok(&project, &["rollback", "@~1"]);
    assert_eq!(world.ok(&project, &["exec", "--", "cat", "a.txt", "d/b"]).out, "second\nx\n");
    world.ok(&project, &["run", "--", "sh", "-c", "echo third > a.txt"]);

    world.ok(&project, &["apply"]);
    git(&project, &["-c", "safe.directory=*", "show", "vcoding/shop:d/b"]);
    // Everything that came home is the user's.
    let strange = std::process::Command::new("find").arg(&project).args(["!", "-uid", "54321"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&strange.stdout), "");
    world.ok(&project, &["stop"]);
    world.ok(&project, &["start"]);
    assert_eq!(world.ok(&project, &["exec", "--", "cat", "a.txt"]).out, "third\n");
    world.ok(&project, &["destroy", "--purge"]);
    assert_eq!(std::fs::read_dir(world.state().join("workspaces")).unwrap().count(), 0);
}
