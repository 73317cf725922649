//! `kill -9` of the daemon in the middle of things.

use crate::world::{SHOP, World, git, wait_until};

/// Lets the daemon die at `point` of the command, starts another, and hands the world over.
fn dies_at(point: &str, prepare: &[&[&str]], command: &[&str], check: impl Fn(&World, &std::path::Path)) {
    let Some(mut world) = World::with_engine(point) else { return };
    let project = world.repository("shop", &SHOP);
    for args in prepare {
        world.ok(&project, args);
    }
    world.ctl(&project, &["daemon", "stop"]);
    world.set("VCODING_KILL_AT", point);
    world.ok(&project, &["daemon", "start"]);
    let dying = nix::unistd::Pid::from_raw(world.daemon_pid().expect("it has just started"));
    let cut = world.ctl(&project, command);
    assert_ne!(cut.status, 0, "{point}: the daemon was to die here: {}{}", cut.out, cut.err);
    wait_until(|| nix::sys::signal::kill(dying, None).is_err(), "the daemon's death");
    world.set("VCODING_KILL_AT", "");
    check(&world, &project);
}

fn ready(world: &World, project: &std::path::Path) {
    wait_until(|| world.json(project, &["ls"])["workspaces"][0]["phase"] == "ready", "the workspace");
    world.ok(project, &["exec", "--", "true"]);
}

#[test]
fn an_up_that_was_cut_off_is_finished_by_the_next_daemon() {
    for point in ["up/image/after", "up/work tree/before", "up/guest/after", "up/ssh/before"] {
        dies_at(point, &[], &["up"], |world, project| {
            ready(world, project);
            assert_eq!(world.ctl(project, &["exec", "--", "python3", "-m", "pytest", "-q"]).status, 1);
        });
    }
}

#[test]
fn a_rollback_that_was_cut_off_is_finished_and_appended_once() {
    for point in ["rollback/restore/before", "rollback/restore/after"] {
        let prepare: &[&[&str]] = &[&["up"], &["exec", "--", "sh", "-c", "echo x > new.txt"], &["checkpoint"]];
        dies_at(point, prepare, &["rollback", "base"], |world, project| {
            ready(world, project);
            let log = world.json(project, &["log"]);
            let causes: Vec<_> = log["checkpoints"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| c["cause"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(causes.iter().filter(|c| *c == "rollback").count(), 1, "{causes:?}");
            assert_ne!(world.ctl(project, &["exec", "--", "test", "-e", "new.txt"]).status, 0);
            world.ok(project, &["rollback", "@~1"]);
            world.ok(project, &["exec", "--", "test", "-e", "new.txt"]);
        });
    }
}

#[test]
fn an_apply_that_was_cut_off_is_finished_once() {
    for point in ["apply/publish/before", "apply/publish/after"] {
        let prepare: &[&[&str]] = &[&["up"], &["exec", "--", "sh", "-c", "echo x > new.txt"]];
        dies_at(point, prepare, &["apply"], |world, project| {
            ready(world, project);
            world.ok(project, &["apply"]);
            assert_eq!(git(project, &["rev-list", "--count", "main..vcoding/shop"]), "1\n");
            assert_eq!(git(project, &["show", "vcoding/shop:new.txt"]), "x\n");
        });
    }
}

#[test]
fn a_destroy_that_was_cut_off_leaves_nothing() {
    for point in ["destroy/remove/before", "destroy/remove/after", "destroy/put away/after"] {
        dies_at(point, &[&["up"]], &["destroy", "--purge"], |world, project| {
            world.json(project, &["ls"]);
            wait_until(
                || world.json(project, &["ls"])["workspaces"].as_array().unwrap().is_empty(),
                "the end of the workspace",
            );
            assert_eq!(std::fs::read_dir(world.state().join("workspaces")).unwrap().count(), 0);
            let filter = format!("label=vcoding.state-dir={}", world.state().display());
            let left =
                crate::world::output(std::process::Command::new("docker").args(["ps", "-aq", "--filter", &filter]));
            assert_eq!(left, "");
        });
    }
}

#[test]
fn a_guest_is_found_again_as_it_was_left() {
    let Some(world) = World::with_engine("restart") else { return };
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);
    world.ok(&project, &["exec", "--", "sh", "-c", "echo alive > /tmp/mark"]);
    world.kill_daemon();
    ready(&world, &project);
    assert_eq!(world.ok(&project, &["exec", "--", "cat", "/tmp/mark"]).out, "alive\n", "the same guest, not a new one");
    // Killed or removed behind our back, it comes again with its files.
    world.ok(&project, &["exec", "--", "sh", "-c", "echo kept > new.txt"]);
    let container = world.container("shop");
    crate::world::output(std::process::Command::new("docker").args(["rm", "-f", &container]));
    world.ok(&project, &["start"]);
    assert_eq!(world.ok(&project, &["exec", "--", "cat", "new.txt"]).out, "kept\n");
}

#[test]
fn what_a_killed_daemon_only_looked_into_is_removed_by_the_next() {
    let Some(world) = World::with_engine("looked into") else { return };
    let here = world.project("p", &[]);
    world.ok(&here, &["daemon", "start"]);
    let docker = |args: &[&str]| crate::world::output(std::process::Command::new("docker").args(args));
    let label = format!("vcoding.peek={}", world.state().canonicalize().unwrap().display());
    docker(&["create", "--label", &label, "debian:bookworm-slim", "/never-started"]);
    // One of somebody else stays.
    let other =
        docker(&["create", "--label", "vcoding.peek=/somewhere/else", "debian:bookworm-slim", "/never-started"]);
    world.kill_daemon();
    world.ok(&here, &["daemon", "start"]);
    let filter = format!("label={label}");
    wait_until(|| docker(&["ps", "-aq", "--filter", &filter]).is_empty(), "the end of what was looked into");
    assert_ne!(docker(&["ps", "-aq", "--filter", "label=vcoding.peek=/somewhere/else"]), "");
    docker(&["rm", other.trim()]);
}
