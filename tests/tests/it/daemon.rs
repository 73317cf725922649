//! The socket, one daemon a state directory, its start and its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{World, program, run, wait_until};

fn socket(world: &World) -> UnixStream {
    UnixStream::connect(world.state().join("run/vcodingd.sock")).unwrap()
}

/// Sends these bytes, closes the sending half, and returns every line of the answer.
fn talk(world: &World, bytes: &[u8]) -> Vec<Value> {
    let mut stream = socket(world);
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    BufReader::new(stream).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

#[test]
fn a_command_starts_the_daemon_and_a_second_daemon_says_who_is_there() {
    let world = World::new();
    let here = world.project("p", &[]);
    let status = world.json(&here, &["daemon", "start"]);
    assert_eq!(status["state_dir"], world.state().to_str().unwrap());
    let mut second = Command::new(program("vcodingd"));
    second.env("VCODING_STATE_DIR", world.state()).env("VCODING_CONFIG_DIR", world.path("config")).stdin(Stdio::null());
    let second = run(second);
    assert_eq!(second.status, 5, "{}", second.err);
    let pid = status["pid"].to_string();
    assert!(second.err.contains(&pid) && second.err.contains("hint: vcodingctl daemon status"), "{}", second.err);
    let mode = std::fs::metadata(world.state()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn json_rpc_holds_for_batches_notifications_and_half_closed_connections() {
    let world = World::new();
    world.ok(&world.project("p", &[]), &["daemon", "start"]);
    let answers = talk(
        &world,
        b"{\"jsonrpc\":\"2.0\",\"method\":\"daemon.status\"}\n\
          [{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"daemon.status\"},{\"jsonrpc\":\"2.0\",\"method\":\"workspace.list\"},7]\n",
    );
    assert_eq!(answers.len(), 1, "a notification has no answer: {answers:?}");
    let batch = answers[0].as_array().unwrap();
    assert_eq!(batch.len(), 2);
    assert_eq!(batch[0]["result"]["protocol"], 1);
    assert_eq!(batch[1]["error"]["code"], -32600);

    let unknown = talk(&world, b"{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"no.such\"}\n");
    assert_eq!((&unknown[0]["id"], &unknown[0]["error"]["code"]), (&json!("a"), &json!(-32601)));
    let wrong =
        talk(&world, b"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"workspace.show\",\"params\":{\"workspce\":\"x\"}}\n");
    assert_eq!(wrong[0]["error"]["data"]["kind"], "invalid-parameters");
    assert!(wrong[0]["error"]["message"].as_str().unwrap().contains("workspce"), "{wrong:?}");
    let broken = talk(&world, b"{nonsense\n");
    assert_eq!(broken[0]["error"]["code"], -32700);
}

#[test]
fn a_line_over_the_limit_is_refused_and_the_connection_lives() {
    let world = World::new();
    world.ok(&world.project("p", &[]), &["daemon", "start"]);
    let mut bytes = vec![b' '; 5 << 20];
    bytes.extend_from_slice(b"\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"daemon.status\"}\n");
    let answers = talk(&world, &bytes);
    assert_eq!(answers[0]["error"]["data"]["kind"], "invalid-message");
    assert_eq!(answers[1]["id"], 1);
}

#[test]
fn the_interface_describes_itself() {
    let world = World::new();
    world.ok(&world.project("p", &[]), &["daemon", "start"]);
    let answers = talk(&world, b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.discover\"}\n");
    let methods = answers[0]["result"]["methods"].as_array().unwrap();
    for name in ["workspace.up", "exec.start", "run.subscribe", "checkpoint.rollback", "transfer.apply"] {
        assert!(methods.iter().any(|m| m["name"] == name), "{name}");
    }
}

#[test]
fn a_signal_ends_the_daemon_and_the_next_command_starts_another() {
    let world = World::new();
    let here = world.project("p", &[]);
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGINT] {
        world.ok(&here, &["daemon", "start"]);
        let pid = nix::unistd::Pid::from_raw(world.daemon_pid().unwrap());
        // A client that waits does not hold it up. (One that was not accepted yet would be cut off.)
        let mut waiting = socket(&world);
        waiting.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"daemon.status\",\"params\":{}}\n").unwrap();
        assert!(waiting.read(&mut [0; 4096]).unwrap() > 0);
        nix::sys::signal::kill(pid, signal).unwrap();
        let mut rest = Vec::new();
        waiting.read_to_end(&mut rest).unwrap();
        wait_until(|| nix::sys::signal::kill(pid, None).is_err(), "the daemon's end");
        let log = world.log();
        assert!(log.trim_end().ends_with("}") && log.lines().last().unwrap().contains("ended"), "{log}");
    }
}

#[test]
fn a_socket_directory_that_others_may_enter_is_not_trusted() {
    let world = World::new();
    let here = world.project("p", &[]);
    world.ok(&here, &["daemon", "start"]);
    let run_dir = world.state().join("run");
    std::fs::set_permissions(&run_dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = world.ctl(&here, &["ls"]);
    std::fs::set_permissions(&run_dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(refused.status, 7, "{}", refused.err);
    assert!(refused.err.contains("not a directory of yours alone"), "{}", refused.err);
}

#[test]
fn keys_are_listed_by_name_with_where_they_are_and_never_shown() {
    let mut world = World::new();
    world.set("ANTHROPIC_API_KEY", "sk-of-the-environment");
    let project = world.project("p", &[]);
    let listed = world.json(&project, &["secret", "ls"]);
    assert_eq!(listed["secrets"][0]["source"], "environment", "{listed}");
    let mut set = world.command(&project, &["secret", "set", "ANTHROPIC_API_KEY"]);
    let key = world.path("key");
    std::fs::write(&key, "sk-that-is-kept\n").unwrap();
    set.stdin(std::fs::File::open(&key).unwrap());
    assert_eq!(crate::world::run(set).status, 0);
    let listed = world.json(&project, &["secret", "ls"]);
    assert_eq!(listed["secrets"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed["secrets"][0]["source"], "kept");
    assert!(listed["secrets"][0]["time"].is_string() && !listed.to_string().contains("sk-"), "{listed}");
    world.ok(&project, &["secret", "rm", "ANTHROPIC_API_KEY"]);
    assert_eq!(world.json(&project, &["secret", "ls"])["secrets"][0]["source"], "environment");
}

/// A process of the same user that opens connections and says nothing, until it is told to end.
#[test]
fn silent_connections_of_one_process_keep_nobody_from_being_served() {
    let world = World::new();
    let project = world.project("none", &[]);
    world.ok(&project, &["daemon", "start"]);
    let socket = world.state().join("run/vcodingd.sock");
    // One that has spoken and only listens from here on.
    let mut listener = UnixStream::connect(&socket).unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    writeln!(listener, r#"{{"jsonrpc":"2.0","id":1,"method":"daemon.status"}}"#).unwrap();
    let mut heard = BufReader::new(listener.try_clone().unwrap());
    let mut line = String::new();
    heard.read_line(&mut line).unwrap();
    assert!(line.contains("\"result\""), "{line}");
    let mut silent = std::collections::VecDeque::new();
    for _ in 0..2000 {
        silent.push_back(UnixStream::connect(&socket).unwrap());
        // As many as this process may have open; those before were sent away, as more than one may hold.
        if silent.len() > 600 {
            silent.pop_front();
        }
    }
    world.ok(&project, &["daemon", "status"]);
    let mut oldest = silent.pop_front().unwrap();
    oldest.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(oldest.read(&mut [0]).unwrap(), 0, "it was sent away");
    let mut newest = silent.pop_back().unwrap();
    for stream in [&mut newest, &mut listener] {
        writeln!(stream, r#"{{"jsonrpc":"2.0","id":2,"method":"daemon.status"}}"#).unwrap();
    }
    line.clear();
    heard.read_line(&mut line).unwrap();
    assert!(line.contains("\"id\":2") && line.contains("\"result\""), "who has spoken is not sent away: {line}");
    line.clear();
    BufReader::new(newest).read_line(&mut line).unwrap();
    assert!(line.contains("\"result\""), "{line}");
}

#[test]
fn a_process_whose_connections_have_all_spoken_gets_no_more_and_is_told_why() {
    let world = World::new();
    let project = world.project("none", &[]);
    world.ok(&project, &["daemon", "start"]);
    let socket = world.state().join("run/vcodingd.sock");
    let ask = || {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // One that is refused may be gone before this.
        let _refused = writeln!(stream, r#"{{"jsonrpc":"2.0","id":1,"method":"daemon.status"}}"#);
        let mut line = String::new();
        let _reset = BufReader::new(stream.try_clone().unwrap()).read_line(&mut line);
        (stream, line)
    };
    let mut held = Vec::new();
    let refused = loop {
        let (stream, line) = ask();
        if !line.contains("\"result\"") {
            break line;
        }
        held.push(stream);
        assert!(held.len() < 1000);
    };
    assert!(refused.contains("daemon-busy") && refused.contains(&std::process::id().to_string()), "{refused}");
    world.ok(&project, &["daemon", "status"]);
    drop(held.pop());
    wait_until(|| ask().1.contains("\"result\""), "a place that was left to be free");
}
