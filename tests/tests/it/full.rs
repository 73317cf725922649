//! A guest that fills the disk.

use crate::world::{World, wait_until};

const DOCKERFILE: &str = "FROM debian:bookworm-slim\n";

#[test]
fn a_guest_cannot_take_more_of_the_disk_than_it_may_and_room_can_be_made() {
    let Some(world) = World::with_engine("a_guest_cannot_take_more_of_the_disk") else { return };
    let project = world.repository(
        "tiny",
        &[("Dockerfile", DOCKERFILE), ("vcoding.toml", "[limits]\ndisk = \"300m\"\n"), (".gitignore", "much/\n")],
    );
    world.ok(&project, &["up"]);
    // Room that is not written cannot be had, and no file is larger than the whole may be.
    let reserved = world.ctl(&project, &["exec", "--", "fallocate", "-l", "30G", "big"]);
    assert!(reserved.status != 0 && reserved.err.contains("not supported"), "{}", reserved.err);
    let long = world.ctl(&project, &["exec", "--", "sh", "-c", "mkdir much; exec head -c 400M /dev/zero > much/long"]);
    assert_ne!(long.status, 0, "{}{}", long.out, long.err);
    // Many files are ended, a run's as well.
    let fill = "i=0; while :; do i=$((i+1)); head -c 50M /dev/urandom > much/$i || sleep 1; done";
    world.ok(&project, &["run", "--detach", "--", "sh", "-c", fill]);
    let view = || world.json(&project, &["ls"])["workspaces"][0].clone();
    wait_until(|| view()["warning"].as_str().is_some_and(|text| text.contains("[limits] disk is 300 MiB")), "its end");
    wait_until(|| view()["runs"] == 0, "the run's end");
    assert_eq!(view()["phase"], "ready");
    world.ok(&project, &["exec", "--", "rm", "-rf", "much"]);
    assert!(world.ctl(&project, &["ls"]).err.contains("its guest's processes were ended"), "it says so");
    world.ok(&project, &["destroy", "--force"]);
}
