//! What the machine around it does to it: an engine that goes away, a disk that is full, a daemon of another version, a registry that
//! does not answer. Each is said with what to type, and afterwards the same command works.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::world::{SHOP, World, output, wait_until};

/// The engine behind a socket that can be taken away: what goes through it is the engine's own.
struct Engine {
    path: PathBuf,
    through: Arc<Mutex<Vec<UnixStream>>>,
}

impl Engine {
    fn at(path: PathBuf) -> Self {
        let engine = Self { path, through: Arc::default() };
        engine.come();
        engine
    }

    fn come(&self) {
        let listener = UnixListener::bind(&self.path).unwrap();
        let through = self.through.clone();
        std::thread::spawn(move || {
            // Ends with the test's process; a listener whose path was removed hears nobody.
            for client in listener.incoming() {
                let (Ok(client), Ok(engine)) = (client, UnixStream::connect("/var/run/docker.sock")) else { continue };
                through.lock().unwrap().extend([client.try_clone().unwrap(), engine.try_clone().unwrap()]);
                for (mut from, mut to) in [(client.try_clone().unwrap(), engine.try_clone().unwrap()), (engine, client)]
                {
                    std::thread::spawn(move || {
                        let _cut = std::io::copy(&mut from, &mut to);
                        let _gone = to.shutdown(std::net::Shutdown::Write);
                    });
                }
            }
        });
    }

    /// It stops: nobody listens, and what was under way is cut.
    fn go(&self) {
        std::fs::remove_file(&self.path).unwrap();
        for stream in self.through.lock().unwrap().drain(..) {
            let _gone = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Whatever a test asserts in between: what it made is removed by the engine.
struct Back<'a>(&'a Engine);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        if !self.0.path.exists() {
            self.0.come();
        }
    }
}

#[test]
fn an_engine_that_stops_in_the_middle_is_said_and_the_same_command_works_when_it_is_back() {
    let Some(world) = World::with_engine("an engine that stops") else { return };
    let engine = Engine::at(world.path("engine.sock"));
    let _back = Back(&engine);
    world.configure(&format!("[engine]\nsocket = \"{}\"\n", engine.path.display()));
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);

    // A build is under way: one step is done, and the next takes its time.
    let dockerfile = "FROM debian:bookworm-slim\nRUN echo begun\nRUN sleep 600\n";
    let slow = world.repository("slow", &[("Dockerfile", dockerfile), ("a", "1\n")]);
    let mut up = world.command(&slow, &["up"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(up.stderr.take().unwrap());
    while !said.contains("RUN echo begun") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "{said}");
    }
    engine.go();
    lines.read_to_string(&mut said).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(6), "{said}");
    assert!(said.contains("hint: docker info"), "{said}");

    // A guest that is there needs no engine to be worked in.
    world.ok(&project, &["exec", "--", "sh", "-c", "echo more > more"]);
    world.ok(&project, &["checkpoint", "-m", "without"]);
    let stopped = world.ctl(&project, &["stop"]);
    assert_eq!(stopped.status, 6, "{}", stopped.err);
    assert!(stopped.err.contains("hint: docker info"), "{}", stopped.err);

    engine.come();
    world.ok(&project, &["up"]);
    assert_eq!(world.ok(&project, &["exec", "--", "cat", "more"]).out, "more\n");
    world.ok(&project, &["stop"]);
    std::fs::write(slow.join("Dockerfile"), "FROM debian:bookworm-slim\n").unwrap();
    world.ok(&slow, &["up"]);
    assert_eq!(world.ok(&slow, &["exec", "--", "cat", "a"]).out, "1\n");
}

#[test]
fn a_full_disk_is_said_and_nothing_that_was_recorded_is_lost() {
    let Some(mut world) = World::with_engine("a full disk") else { return };
    std::fs::create_dir(world.state()).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs"])
        .arg(world.state())
        .output()
        .is_ok_and(|done| done.status.success());
    if !mounted {
        let _told = writeln!(std::io::stderr(), "skipped: a full disk: nothing can be mounted here");
        return;
    }
    world.unmount_at_the_end([world.state()]);
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);
    world.ok(&project, &["exec", "--", "sh", "-c", "echo kept > kept"]);
    world.ok(&project, &["checkpoint", "-m", "before"]);

    let fill = "head -c 1500000 /dev/urandom > r; cat r r r r r r r r r r r r r r r r r r > large";
    let filled = world.ctl(&project, &["exec", "--", "sh", "-c", fill]);
    assert!(filled.err.contains("No space left on device"), "{}", filled.err);
    let refused = world.ctl(&project, &["checkpoint"]);
    assert_eq!(refused.status, 6, "{}", refused.err);
    assert!(refused.err.contains("No space left on device") && refused.err.contains("hint: df -h"), "{}", refused.err);
    let other =
        world.repository("other", &[("Dockerfile", "FROM debian:bookworm-slim\n"), ("a", &"a".repeat(2 << 20))]);
    let refused = world.ctl(&other, &["up"]);
    assert_eq!(refused.status, 6, "{}", refused.err);
    assert!(refused.err.contains("hint: df -h"), "{}", refused.err);
    let doctor = world.ctl(&project, &["doctor"]).out;
    assert!(doctor.contains("disk        ! 0 MiB free"), "{doctor}");

    world.ok(&project, &["exec", "--", "rm", "r", "large"]);
    world.ok(&project, &["exec", "--", "sh", "-c", "echo after > after"]);
    world.ok(&project, &["checkpoint", "-m", "after"]);
    world.ok(&project, &["rollback", "before"]);
    assert_eq!(world.ok(&project, &["exec", "--", "sh", "-c", "cat kept; ls after 2>&1 | wc -l"]).out, "kept\n1\n");
    world.ok(&project, &["rollback", "after"]);
    assert_eq!(world.ok(&project, &["exec", "--", "cat", "after"]).out, "after\n");
    world.ok(&other, &["up"]);
}

#[test]
fn a_daemon_of_another_version_is_said_and_how_to_end_it() {
    let world = World::new();
    let project = world.repository("p", &[("Dockerfile", "FROM x\n")]);
    let directory = world.path("other");
    std::fs::DirBuilder::new().mode(0o700).create(&directory).unwrap();
    let socket = directory.join("vcodingd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // An older one, that knows nothing of what it is asked; a newer one, that answers something else.
    let answers = [
        r#""error":{"code":-32601,"message":"no such method","data":{"kind":"unknown-method"}}"#,
        r#""result":{"renamed":[]}"#,
    ];
    std::thread::spawn(move || {
        for (stream, answer) in listener.incoming().map(Result::unwrap).zip(answers) {
            for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
                let call: serde_json::Value = serde_json::from_str(&line).unwrap();
                let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},{answer}}}\n", call["id"]);
                if (&stream).write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    for what in ["does not know workspace.list: it is of another version", "answer to workspace.list is not understood"]
    {
        let ran = world.ctl(&project, &["--socket", socket.to_str().unwrap(), "ls"]);
        assert_eq!(ran.status, 7, "{}", ran.err);
        assert!(
            ran.err.contains(what) && ran.err.contains("hint: vcodingctl daemon stop; the next command"),
            "{}",
            ran.err
        );
    }
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_said_and_a_long_state_directory_works() {
    let mut world = World::new();
    let project = world.project("p", &[]);
    let long = world.path(&"x".repeat(120));
    std::fs::DirBuilder::new().mode(0o700).create(&long).unwrap();
    let ran = world.ctl(&project, &["--socket", long.join("s").to_str().unwrap(), "ls"]);
    assert_eq!(ran.status, 2, "{}", ran.err);
    assert!(ran.err.contains("too long for a socket") && ran.err.contains("hint: a shorter --socket"), "{}", ran.err);
    world.set("VCODING_STATE_DIR", long.join("state").to_str().unwrap());
    let status = world.json(&project, &["daemon", "start"]);
    world.ok(&project, &["ls"]);
    world.ok(&project, &["daemon", "stop"]);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(status["pid"].as_i64().unwrap()).unwrap());
    wait_until(|| nix::sys::signal::kill(pid, None).is_err(), "the daemon's end");
}

#[test]
fn an_agent_that_cannot_be_fetched_is_said_before_anything_is_started() {
    let Some(world) = World::with_engine("an agent that cannot be fetched") else { return };
    // Nobody listens there.
    world.configure(
        "[agents]\nregistry = \"http://127.0.0.1:9\"\n[endpoints]\nANTHROPIC_API_KEY = \"http://127.0.0.1:9\"\n",
    );
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);
    let mut set = world.command(&project, &["secret", "set", "ANTHROPIC_API_KEY"]);
    let key = world.path("key");
    std::fs::write(&key, "a-key\n").unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    set.stdin(std::fs::File::open(&key).unwrap());
    let set = crate::world::run(set);
    assert_eq!(set.status, 0, "{}", set.err);
    let ran = world.ctl(&project, &["run", "claude", "mend the tests"]);
    assert_eq!(ran.status, 6, "{}", ran.err);
    assert!(ran.err.contains("127.0.0.1:9") && ran.err.contains("hint: "), "{}", ran.err);
    assert_eq!(world.json(&project, &["runs"])["runs"].as_array().map(Vec::len), Some(0));
    let left = output(Command::new("docker").args(["exec", &world.container("shop"), "ps", "-e"]));
    assert!(!left.contains("claude"), "{left}");
}
