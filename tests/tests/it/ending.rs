//! How commands end that do not end by themselves: asked twice, killed for their memory, with a daemon that is gone.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{World, wait_until};

const TINY: [(&str, &str); 1] = [("Dockerfile", "FROM debian:bookworm-slim\n")];

/// A command that was started and has said `ready`.
fn ready(world: &World, project: &std::path::Path, args: &[&str]) -> Child {
    let mut child = world.command(project, args).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn tell(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
fn a_command_that_will_not_end_ends_with_its_tree_when_it_is_asked_twice() {
    let Some(world) = World::with_engine("commands that will not end") else { return };
    let project = world.project("ending", &TINY);
    world.ok(&project, &["up"]);
    let stubborn = "trap '' TERM INT; (trap '' TERM INT; sleep 4242) & echo ready; sleep 4243; wait";
    let left = || {
        let count = "grep -lsaE '424[23]' /proc/[0-9]*/cmdline | wc -l";
        world.ok(&project, &["exec", "--", "sh", "-c", count]).out.trim().to_owned()
    };
    for (signal, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let mut child = ready(&world, &project, &["exec", "--", "sh", "-c", stubborn]);
        tell(&child, signal);
        tell(&child, signal);
        let mut asked = 2;
        // Two that come at once may be one.
        wait_until(
            || {
                let ended = child.try_wait().unwrap();
                if ended.is_none() && asked < 10 {
                    tell(&child, signal);
                    asked += 1;
                }
                ended.is_some()
            },
            "the command's end",
        );
        assert_eq!(child.wait().unwrap().code(), Some(status));
        wait_until(|| left() == "0", "the end of its tree");
    }
    // One that ends as it is asked says itself how.
    let polite = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let mut child = ready(&world, &project, &["exec", "--", "sh", "-c", polite]);
    tell(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(7));
    // A run that is followed.
    let mut child = ready(&world, &project, &["run", "--", "sh", "-c", stubborn]);
    tell(&child, Signal::SIGTERM);
    let status = child.wait().unwrap().code();
    assert!(matches!(status, Some(130 | 143)), "{status:?}");
    wait_until(|| left() == "0", "the end of the run's tree");
}

#[test]
fn what_is_killed_for_its_memory_is_told_with_the_limit() {
    let Some(world) = World::with_engine("commands over the memory limit") else { return };
    let limits = ("vcoding.toml", "[limits]\nmemory = \"128m\"\n");
    let project = world.project("greedy", &[TINY[0], limits]);
    world.ok(&project, &["up"]);
    let killed = world.ctl(&project, &["exec", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!((killed.status, killed.err.as_str()), (137, ""), "by itself");
    let over = "the guest's processes together used more memory than its limit, 128m, allows";
    let greedy = world.ctl(&project, &["exec", "--", "tail", "/dev/zero"]);
    assert_eq!(greedy.status, 137, "{}", greedy.err);
    assert!(
        greedy.err.starts_with(&format!("warning: {over}")) && greedy.err.contains("memory = \"256m\""),
        "{}",
        greedy.err
    );
    let run = world.ctl(&project, &["run", "--", "tail", "/dev/zero"]);
    assert_eq!(run.status, 137, "{}", run.err);
    assert!(run.err.contains(over), "{}", run.err);
    assert_eq!(world.json(&project, &["runs"])["runs"][0]["memory_limit"], 128 << 20);
}

#[test]
fn a_command_finds_the_next_daemon_whenever_the_last_was_killed() {
    let Some(world) = World::with_engine("commands beside a daemon's end") else { return };
    let project = world.project("beside", &TINY);
    world.ok(&project, &["up"]);
    for _ in 0..10 {
        let pid = Pid::from_raw(world.daemon_pid().unwrap());
        kill(pid, Signal::SIGKILL).unwrap();
        // At once: the daemon is still going.
        let listed = world.ok(&project, &["ls"]);
        assert!(listed.out.contains("beside"), "{}{}", listed.out, listed.err);
    }
}
