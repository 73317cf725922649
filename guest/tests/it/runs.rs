//! Runs: files, ends, limits, cancel.

use guest::run::{End, SEGMENT, UNREAD};
use guest::{Frame, Job};

use crate::container::{Guest, RUN_ID, a_run, shell};

fn cancel() -> Frame {
    Frame { job: Job::Cancel { id: RUN_ID.to_owned() }, ..Frame::exec(Vec::<Vec<u8>>::new()) }
}

fn read(guest: &Guest, name: &str) -> String {
    std::fs::read_to_string(guest.run_directory().join(name)).unwrap_or_default()
}

#[test]
fn a_run_outlives_its_session_and_leaves_output_and_end() {
    let Some(guest) = Guest::start() else { return };
    let script =
        "cat; echo \"$IMAGE $OWN\"; echo problem >&2; while ! [ -e go ]; do sleep 0.1; done; echo late; exit 3";
    let job = Job::Run { id: RUN_ID.to_owned(), stdin: b"the prompt\n".to_vec(), timeout_ms: 0 };
    let frame = Frame { job, env: vec![b"OWN=1".to_vec()], ..a_run(script) };
    let output = guest.frame(&frame, b"");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
    guest.eventually("the session's end", || !guest.has("sshd:"));
    guest.eventually("the first output", || read(&guest, "out.0") == "the prompt\nyes 1\n");
    // The same run is not started twice.
    assert_eq!(guest.frame(&frame, b"").status.code(), Some(126));
    std::fs::write(guest.at("tree/go"), "").unwrap();
    assert_eq!(guest.end(), End::Exited(3));
    assert_eq!(
        (read(&guest, "out.0"), read(&guest, "err.0")),
        ("the prompt\nyes 1\nlate\n".into(), "problem\n".into())
    );
    assert_eq!(guest.frame(&frame, b"").status.code(), Some(126));
    assert_eq!(guest.end(), End::Exited(3));
}

#[test]
fn the_end_of_a_run_is_the_end_of_its_tree() {
    let Some(guest) = Guest::start() else { return };
    let script = "setsid sleep 7501 & (setsid sleep 7502 &) & nohup sleep 7503 & \
        while ! pgrep -f '^sleep 7502'; do :; done; kill -9 $$";
    assert!(guest.frame(&a_run(script), b"").status.success());
    assert_eq!(guest.end(), End::Signalled(9));
    assert!(!guest.has("sleep 750"));
}

#[test]
fn a_run_that_cannot_start_says_so_in_both_places() {
    let Some(guest) = Guest::start() else { return };
    let frame = Frame { argv: vec![b"no-such-agent".to_vec()], ..a_run("") };
    let output = guest.frame(&frame, b"");
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "vcoding: no-such-agent: not found\n");
    assert_eq!(guest.end(), End::NotStarted { status: 127, why: "no-such-agent: not found".into() });
}

#[test]
fn the_limit_holds_without_any_daemon() {
    let Some(guest) = Guest::start() else { return };
    let job = Job::Run { id: RUN_ID.to_owned(), stdin: Vec::new(), timeout_ms: 300 };
    let frame = Frame { job, ..a_run("trap '' TERM; setsid sleep 7511 & sleep 7512; sleep 7513") };
    assert!(guest.frame(&frame, b"").status.success());
    assert_eq!(guest.end(), End::TimedOut);
    assert!(!guest.has("sleep 751"));
}

#[test]
fn cancel_ends_even_a_tree_that_ignores_it() {
    let Some(guest) = Guest::start() else { return };
    assert_eq!(guest.frame(&cancel(), b"").status.code(), Some(3));
    let script = "trap '' INT TERM HUP; setsid sleep 7521 & while :; do sleep 7522; done";
    assert!(guest.frame(&a_run(script), b"").status.success());
    guest.eventually("the tree", || guest.has("sleep 7521") && guest.has("sleep 7522"));
    assert_eq!(guest.frame(&cancel(), b"").status.code(), Some(0));
    assert_eq!(guest.end(), End::Cancelled);
    assert!(!guest.has("sleep 752"));
    guest.eventually("the supervisor's end", || guest.frame(&cancel(), b"").status.code() == Some(3));
}

#[test]
fn cancel_interrupts_first() {
    let Some(guest) = Guest::start() else { return };
    let script = "trap 'echo interrupted; exit 0' INT; echo up; while :; do sleep 0.1; done";
    assert!(guest.frame(&a_run(script), b"").status.success());
    guest.eventually("the command", || read(&guest, "out.0") == "up\n");
    assert!(guest.frame(&cancel(), b"").status.success());
    assert_eq!(guest.end(), End::Cancelled);
    assert_eq!(read(&guest, "out.0"), "up\ninterrupted\n");
}

#[test]
fn output_waits_for_the_host_and_nothing_is_lost() {
    let Some(guest) = Guest::start() else { return };
    let size = (UNREAD as u64 + 2) * SEGMENT + 5;
    let script = format!("head -c {size} /dev/zero; touch written");
    assert!(guest.frame(&a_run(&script), b"").status.success());
    let segment = |n: u64| guest.run_directory().join(format!("out.{n}"));
    let length = |n: u64| segment(n).metadata().map_or(0, |m| m.len());
    guest.eventually("all the room is taken", || length(UNREAD as u64 - 1) == SEGMENT);
    assert!(!segment(UNREAD as u64).exists() && !guest.at("tree/written").exists());
    let mut read = 0;
    for n in 0.. {
        guest.eventually("a whole segment", || length(n) == SEGMENT || guest.run_directory().join("end").exists());
        read += length(n);
        if length(n) < SEGMENT {
            break;
        }
        std::fs::remove_file(segment(n)).unwrap();
    }
    assert_eq!((read, guest.end()), (size, End::Exited(0)));
}

#[test]
fn a_run_whose_supervisor_was_killed_has_an_end_too() {
    let Some(guest) = Guest::start() else { return };
    assert!(guest.frame(&a_run("setsid sleep 7531 & sleep 7532; :"), b"").status.success());
    guest.eventually("the tree", || guest.has("sleep 7531") && guest.has("sleep 7532"));
    guest.exec("kill -9 $(ps -o ppid= -p $(pgrep -f '^sleep 7532') | xargs ps -o ppid= -p)");
    assert_eq!(guest.end(), End::SupervisorKilled);
    assert!(!guest.has("sleep 753"));
}

/// Each is a race that the command may win, so some: a start that waited for a supervisor which stands still would not end.
#[test]
fn a_command_that_stops_its_supervisor_at_once_does_not_hold_up_its_start() {
    let Some(guest) = Guest::start() else { return };
    for n in 0..12 {
        let id = format!("01jd00000000000000000000{n:02}");
        let job = Job::Run { id, stdin: Vec::new(), timeout_ms: 0 };
        let run = guest.frame(&Frame { job, ..shell(&format!("kill -STOP $PPID; sleep 78{n:02}")) }, b"");
        assert!(run.status.success(), "{n}: {}", String::from_utf8_lossy(&run.stderr));
        guest.eventually("it goes on without its session", || guest.has(&format!("sleep 78{n:02}")));
    }
}
