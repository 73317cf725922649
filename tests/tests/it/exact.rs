//! A background command's output, followed or read later: what it wrote, byte for byte, each stream apart.

use std::path::Path;
use std::process::{Command, Output};

use crate::world::World;

/// Long lines, a last one without newline, bytes that are no text, and both streams at once.
const SCRIPTS: [&str; 6] = [
    "printf abc",
    "printf 'a\\n\\nb\\r\\n\\tc'; printf 'x\\ny' >&2",
    "head -c 2000000 /dev/zero | tr '\\0' x; echo; head -c 300000 /dev/zero; echo e >&2",
    "head -c 700000 /dev/urandom >/tmp/r; cat /tmp/r; cat /tmp/r >&2; printf '\\377\\376'",
    "(seq 1 200000 >&2) & seq 1 200000; wait; printf end >&2",
    "printf 'Continue? '; sleep 0.5; echo y; exit 3",
];

fn bytes_of(mut command: Command) -> Output {
    command.output().unwrap()
}

#[test]
fn a_commands_output_is_what_it_wrote() {
    let Some(world) = World::with_engine("a command's exact output") else { return };
    let project = world.project("exact", &[("Dockerfile", "FROM debian:bookworm-slim\n")]);
    world.ok(&project, &["up"]);
    for script in SCRIPTS {
        let of = |args: &[&str]| bytes_of(world.command(&project, args));
        // The same bytes twice, where they are random: the file is kept in the guest.
        let script = script
            .replace("head -c 700000 /dev/urandom >/tmp/r; ", "[ -f /tmp/r ] || head -c 700000 /dev/urandom >/tmp/r; ");
        let expected = of(&["exec", "--", "sh", "-c", &script]);
        let run = of(&["run", "--", "sh", "-c", &script]);
        same(&run, &expected, &script);
        assert_eq!(run.status.code(), expected.status.code(), "{script}");
        same(&of(&["logs"]), &expected, &script);
        same(&of(&["logs", "-f", "--raw"]), &expected, &script);
    }
    into_files(&world, &project);
}

fn same(found: &Output, expected: &Output, script: &str) {
    for (found, expected) in [(&found.stdout, &expected.stdout), (&found.stderr, &expected.stderr)] {
        let differs = found.iter().zip(expected.iter()).position(|(a, b)| a != b);
        assert_eq!(
            (found.len(), differs),
            (expected.len(), None),
            "{script}: {:?}",
            String::from_utf8_lossy(&found[..found.len().min(200)])
        );
    }
}

/// As a shell's redirections do it: the end of one command, then the next behind it.
fn into_files(world: &World, project: &Path) {
    let both = project.join("both");
    for _ in 0..2 {
        let file = std::fs::File::options().append(true).create(true).open(&both).unwrap();
        let mut command = world.command(project, &["run", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
        command.stdout(file.try_clone().unwrap()).stderr(file);
        assert_eq!(command.status().unwrap().code(), Some(3));
    }
    let mut lines: Vec<String> = std::fs::read_to_string(&both).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "err", "out", "out"]);
}
