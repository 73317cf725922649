//! What becomes of processes when a client, a supervisor or a command goes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use guest::frame::EXEC;

use crate::container::{Guest, shell, text};

/// Children that a signal to the group, a hangup or the death of a parent does not reach.
const STUBBORN: &str = "setsid sleep 7201 & nohup sleep 7202 >/dev/null 2>&1 & \
    (setsid sh -c 'trap \"\" TERM HUP INT; sleep 7203; :' </dev/null >/dev/null 2>&1 &) & echo up; sleep 7204; :";

fn all_are_up(guest: &Guest) -> bool {
    ["sleep 7201", "sleep 7202", "sleep 7203", "sleep 7204"].iter().all(|line| guest.has(line))
}

#[test]
fn the_tree_ends_when_the_client_goes() {
    let Some(guest) = Guest::start() else { return };
    let mut child = guest.send(&[], &shell(STUBBORN));
    guest.eventually("the tree", || all_are_up(&guest));
    child.kill().unwrap();
    child.wait().unwrap();
    guest.eventually("nothing left", || !guest.has("sleep 720"));
    assert_eq!(guest.exec("exit 4").status.code(), Some(4));
}

#[test]
fn without_shell_and_init_of_ours_the_same_tree_lives_on() {
    let Some(guest) = Guest::bare() else { return };
    let mut child = guest.ssh(&[], "bare").arg(STUBBORN).spawn().unwrap();
    guest.eventually("the tree", || all_are_up(&guest));
    child.kill().unwrap();
    child.wait().unwrap();
    guest.eventually("the session's end", || !guest.has("sshd: bare"));
    assert!(guest.has("sleep 7201") && guest.has("sleep 7202") && guest.has("sleep 7203"));
}

#[test]
fn the_tree_ends_when_only_its_channel_goes() {
    let Some(guest) = Guest::start() else { return };
    let path = guest.at("master");
    let control = format!("ControlPath={}", path.display());
    let mut master = guest.ssh(&["-M", "-N", "-o", &control], "work").spawn().unwrap();
    guest.eventually("the shared connection", || path.exists());
    let mut child = guest.send(&["-o", &control], &shell(STUBBORN));
    guest.eventually("the tree", || all_are_up(&guest));
    child.kill().unwrap();
    child.wait().unwrap();
    guest.eventually("nothing left", || !guest.has("sleep 720"));
    assert!(master.try_wait().unwrap().is_none(), "the connection has to live for this");
    master.kill().unwrap();
    master.wait().unwrap();
}

#[test]
fn background_children_and_what_they_leave_live_on_after_a_normal_end() {
    let Some(guest) = Guest::start() else { return };
    // The second is orphaned only long after its session is over.
    let output = guest.exec(
        "sleep 7301 >/dev/null 2>&1 & (while ! [ -e go ]; do sleep 0.1; done; setsid sleep 7302 & exit) >/dev/null 2>&1 & exit 9",
    );
    assert_eq!(output.status.code(), Some(9));
    guest.eventually("the session's end", || !guest.has("sshd:"));
    std::fs::write(guest.at("tree/go"), "").unwrap();
    guest.eventually("the late orphan", || guest.has("sleep 7302"));
    // Another session's end is one more look of PID 1 at what it adopted.
    assert_eq!(guest.exec("true").status.code(), Some(0));
    assert!(guest.has("sleep 7301") && guest.has("sleep 7302"));
    let parents = text(&guest.exec("ps -o args= -p $(ps -o ppid= -p $(pgrep -f '^sleep 7302'))"));
    assert!(parents.starts_with("vcoding-guest -c"), "its parent is not its supervisor: {parents}");
}

#[test]
fn a_signal_for_the_channel_reaches_the_command_once_and_the_supervisor_survives_it() {
    let Some(guest) = Guest::start() else { return };
    // To the group, as sshd does it; once the supervisor waits, since what comes while the command starts is passed on by it.
    let script = "for s in INT TERM HUP QUIT USR1 USR2; do trap \"echo $s\" $s; done; \
        until grep -q '^State:.S' /proc/$PPID/status; do sleep 0.01; done; \
        for s in INT TERM HUP QUIT USR1 USR2; do kill -$s 0; done; sleep 0.2; exit 3";
    let output = guest.exec(script);
    let mut heard: Vec<_> = text(&output).lines().map(str::to_owned).collect();
    heard.sort();
    assert_eq!((heard.join(" ").as_str(), output.status.code()), ("HUP INT QUIT TERM USR1 USR2", Some(3)));
    assert_eq!(guest.exec("kill -INT 0; sleep 10").status.code(), Some(130));
}

#[test]
fn the_tree_of_a_killed_supervisor_ends() {
    let Some(guest) = Guest::start() else { return };
    let mut child = guest.send(&[], &shell(STUBBORN));
    guest.eventually("the tree", || all_are_up(&guest));
    guest.exec("kill -9 $(ps -o ppid= -p $(pgrep -f '^sleep 7204') | xargs ps -o ppid= -p)");
    assert_eq!(child.wait().unwrap().code(), Some(137));
    guest.eventually("nothing left", || !guest.has("sleep 720"));
}

#[test]
fn the_next_command_works_after_a_sweep_of_everything() {
    let Some(guest) = Guest::start() else { return };
    let mut child = guest.send(&[], &shell(STUBBORN));
    guest.eventually("the tree", || all_are_up(&guest));
    let mut sweep = guest.ssh(&[], "work").arg(EXEC).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(sweep.stdin.as_mut().unwrap(), &shell("kill -9 -1").encode().unwrap()).unwrap();
    assert!(!sweep.wait().unwrap().success());
    assert!(!child.wait().unwrap().success());
    guest.eventually("nothing left but the relay", || !guest.has("sleep") && guest.has("vcoding-guest relay"));
    assert_eq!(guest.exec("exit 4").status.code(), Some(4));
}

#[test]
fn nobody_reads_the_memory_of_ours() {
    let Some(guest) = Guest::start() else { return };
    let output = guest.exec("cat /proc/1/environ /proc/$PPID/environ; echo -n | dd of=/proc/1/mem 2>&1; cat /proc/$$/environ >/dev/null && echo own");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &text(&output);
    assert_eq!(said.matches("Permission denied").count(), 3, "{said}");
    assert!(said.ends_with("own\n"), "the control: {said}");
}

#[test]
fn output_is_not_held_open_by_the_supervisor_of_background_children() {
    let Some(guest) = Guest::start() else { return };
    let mut child = guest.send(&[], &shell("sleep 7401 >/dev/null 2>&1 </dev/null & echo first"));
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    output.read_to_string(&mut line).unwrap();
    assert_eq!((line.as_str(), child.wait().unwrap().code()), ("first\n", Some(0)));
    assert!(guest.has("sleep 7401"));
}
