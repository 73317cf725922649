//! Commands: status, arguments, environment, terminal.

use std::io::{Read as _, Write as _};

use guest::Frame;
use guest::frame::{EXEC, READY};

use crate::container::{Guest, shell, text};

#[test]
fn the_status_is_the_commands() {
    let Some(guest) = Guest::start() else { return };
    for (script, status) in
        [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
    {
        assert_eq!(guest.exec(script).status.code(), Some(status), "{script}");
    }
    let missing = guest.frame(&Frame::exec(["no-such-program"]), b"");
    assert_eq!(missing.status.code(), Some(127));
    assert_eq!(String::from_utf8_lossy(&missing.stderr), "vcoding: no-such-program: not found\n");
    assert_eq!(guest.frame(&Frame::exec(["/etc/passwd"]), b"").status.code(), Some(126));
    let nowhere = Frame { directory: b"no/such".to_vec(), ..Frame::exec(["true"]) };
    assert_eq!(guest.frame(&nowhere, b"").status.code(), Some(126));
}

#[test]
fn a_command_gets_what_the_frame_says_and_the_images_environment() {
    let Some(guest) = Guest::start() else { return };
    let odd = Frame::exec(["printf", "[%s]", "a b", "", "new\nline", "'\"$HOME"]);
    assert_eq!(text(&guest.frame(&odd, b"")), "[a b][][new\nline]['\"$HOME]");
    assert_eq!(text(&guest.frame(&Frame::exec(["cat"]), b"the\0input")), "the\0input");
    let env = shell("echo $IMAGE $TWICE $OWN $HOME $USER $LOGNAME $SHELL; pwd; umask");
    let env = Frame { env: vec![b"TWICE=frame".to_vec(), b"OWN=1".to_vec()], umask: 0o077, ..env };
    let expected = "yes frame 1 /home/work work work /bin/bash\n/work\n0077\n";
    assert_eq!(text(&guest.frame(&env, b"")), expected);
    std::fs::create_dir(guest.at("tree/sub dir")).unwrap();
    let below = Frame { directory: b"sub dir".to_vec(), ..Frame::exec(["pwd"]) };
    assert_eq!(text(&guest.frame(&below, b"")), "/work/sub dir\n");
}

#[test]
fn a_command_gets_three_descriptors_and_no_signal_blocked_or_ignored() {
    let Some(guest) = Guest::start() else { return };
    // In the shell's own place: while it waits for a program it blocks signals for moments.
    let script = "ls /proc/$$/fd; exec grep -E 'Sig(Blk|Ign)' /proc/self/status";
    let output = text(&guest.frame(&Frame::exec(["sh", "-c", script]), b""));
    let none = "0".repeat(16);
    // The shell may hold the script's copy of nothing: it reads it from its arguments.
    assert_eq!(output, format!("0\n1\n2\nSigBlk:\t{none}\nSigIgn:\t{none}\n"));
}

#[test]
fn another_string_is_the_real_shells_own_business() {
    let Some(guest) = Guest::start() else { return };
    let output = guest.ssh(&[], "work").arg("echo $0 $IMAGE \"$SHELL\"; pwd; exit 5").output().unwrap();
    assert_eq!((text(&output).as_str(), output.status.code()), ("/bin/bash yes /bin/bash\n/work\n", Some(5)));
    let mut login = guest.ssh(&[], "work").spawn().unwrap();
    login.stdin.take().unwrap().write_all(b"echo $0 $IMAGE; exit 6\n").unwrap();
    let output = login.wait_with_output().unwrap();
    assert_eq!((text(&output).as_str(), output.status.code()), ("-bash yes\n", Some(6)));
}

/// Reads until the output ends with a text.
fn until(from: &mut impl std::io::Read, end: &str) -> String {
    let mut all = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&all).ends_with(end) {
        assert_eq!(from.read(&mut byte).unwrap(), 1, "ended: {}", String::from_utf8_lossy(&all));
        all.push(byte[0]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn a_terminal_is_raw_for_the_frame_and_then_the_commands_own() {
    let Some(guest) = Guest::start() else { return };
    let mut child = guest.ssh(&["-tt"], "work").arg(EXEC).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut ready = [0];
    output.read_exact(&mut ready).unwrap();
    assert_eq!(ready, [READY]);
    // A frame with what a terminal would swallow or turn into signals.
    let frame = Frame {
        env: vec![b"ODD=\x03\x04\x11\x13\x1a\x7f\r\n".to_vec()],
        ..shell(
            // A shell that starts a program just then (by vfork) would lose the signal.
            "tty; stty -a | grep -ow 'isig\\|icanon\\|echo'; printf %s \"$ODD\" | od -An -c; echo ready; read line",
        )
    };
    input.write_all(&frame.encode().unwrap()).unwrap();
    let said = until(&mut output, "ready\r\n");
    assert!(said.starts_with("/dev/pts/"), "{said}");
    assert!(said.contains("isig") && said.contains("icanon") && said.contains("echo"), "{said}");
    assert!(said.contains("003 004 021 023 032 177  \\r  \\n"), "{said}");
    input.write_all(b"\x03").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn job_control_works_on_a_terminal_and_a_hangup_ends_the_tree() {
    let Some(guest) = Guest::start() else { return };
    let mut child = guest.ssh(&["-tt"], "work").arg(EXEC).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut ready = [0];
    output.read_exact(&mut ready).unwrap();
    let frame = Frame { env: vec![b"TERM=dumb".to_vec()], ..Frame::exec(["bash", "--norc", "-i"]) };
    input.write_all(&frame.encode().unwrap()).unwrap();
    input.write_all(b"PS1=; stty -echo; echo set''up\n").unwrap();
    until(&mut output, "setup\r\n");
    input.write_all(b"echo go; sleep 7111\n").unwrap();
    until(&mut output, "go\r\n");
    guest.eventually("the job in the foreground", || guest.has("sleep 7111"));
    input.write_all(b"\x1a").unwrap();
    until(&mut output, "Stopped                 sleep 7111\r\n");
    input.write_all(b"bg; setsid sleep 7112 & disown; nohup sleep 7113 & echo both\n").unwrap();
    until(&mut output, "both\r\n");
    guest.eventually("all jobs", || guest.has("sleep 7112") && guest.has("sleep 7113"));
    child.kill().unwrap();
    child.wait().unwrap();
    guest.eventually("nothing left", || !guest.has("sleep 711"));
}
