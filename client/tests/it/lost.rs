//! A daemon that ends while a call is on its way: by where it was.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

use client::{Client, Places, start};
use protocol::daemon::NoParams;
use protocol::methods::{List, Start};
use protocol::workspace::{WorkspaceList, WorkspaceParams};
use protocol::{Error, Kind, WorkspaceRef};
use serde_json::{Value, json};

/// Where a daemon is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The connection waits to be accepted.
    Waiting,
    /// It was accepted, and nothing sent.
    Accepted,
    /// The call's line is there, and nobody read it.
    Unread,
    /// A part of it was read.
    HalfRead,
    /// All of it was read.
    Read,
    /// And a part of the answer written.
    HalfAnswered,
}

struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let own = PermissionsExt::from_mode(0o700);
        Self { dir: tempfile::Builder::new().permissions(own).tempdir().unwrap() }
    }

    fn places(&self) -> Places {
        let dir = self.dir.path().to_owned();
        Places { state: dir.clone(), config: dir.clone(), socket: dir.join("d.sock"), explicit_socket: None }
    }

    fn listen(&self) -> UnixListener {
        let _none_yet = std::fs::remove_file(self.places().socket);
        UnixListener::bind(self.places().socket).unwrap()
    }

    /// A client whose daemon is killed at that moment of its call; the next one answers `result` and says what it was called.
    fn killed_at<T>(
        &self,
        moment: Moment,
        result: Value,
        call: impl FnOnce(&mut Client) -> Result<T, Error>,
    ) -> (Result<T, Error>, Vec<Value>) {
        let listener = self.listen();
        let mut client = start::connect_or_start(&self.places(), |_| {}).unwrap();
        let first = match moment {
            Moment::Waiting => {
                drop(listener);
                None
            }
            Moment::Accepted => {
                drop(listener.accept().unwrap());
                drop(listener);
                None
            }
            _ => Some(killed(listener.accept().unwrap().0, moment)),
        };
        let second = answering(self.listen(), result);
        let ended = call(&mut client);
        drop(client);
        drop(UnixStream::connect(self.places().socket).unwrap());
        if let Some(first) = first {
            first.join().unwrap();
        }
        (ended, second.join().unwrap())
    }
}

fn killed(mut stream: UnixStream, moment: Moment) -> JoinHandle<()> {
    std::thread::spawn(move || {
        // Until the whole line is there.
        let mut seen = vec![0; 4096];
        loop {
            let got = nix::sys::socket::recv(
                std::os::fd::AsRawFd::as_raw_fd(&stream),
                &mut seen,
                nix::sys::socket::MsgFlags::MSG_PEEK,
            );
            if seen[..got.unwrap()].ends_with(b"\n") {
                break;
            }
        }
        match moment {
            Moment::HalfRead => stream.read_exact(&mut [0; 9]).unwrap(),
            Moment::Read | Moment::HalfAnswered => drop(BufReader::new(&stream).read_line(&mut String::new()).unwrap()),
            Moment::Waiting | Moment::Accepted | Moment::Unread => {}
        }
        if moment == Moment::HalfAnswered {
            stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,").unwrap();
        }
    })
}

/// Answers each call of its one client; ends with the next connection.
fn answering(listener: UnixListener, result: Value) -> JoinHandle<Vec<Value>> {
    std::thread::spawn(move || {
        let mut called = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            if lines.read_line(&mut line).unwrap_or(0) == 0 {
                break;
            }
            let call: Value = serde_json::from_str(&line).unwrap();
            let answer = json!({"jsonrpc": "2.0", "id": call["id"], "result": result});
            called.push(call["method"].clone());
            writeln!(stream, "{answer}").unwrap();
        }
        called
    })
}

const ALL: [Moment; 6] =
    [Moment::Waiting, Moment::Accepted, Moment::Unread, Moment::HalfRead, Moment::Read, Moment::HalfAnswered];

#[test]
fn a_call_that_only_looks_is_made_again_wherever_its_daemon_ended() {
    for moment in ALL {
        let scene = Scene::new();
        let (ended, called) =
            scene.killed_at(moment, json!({"workspaces": []}), |client| client.call::<List>(&NoParams {}));
        assert_eq!(ended.unwrap_or_else(|e| panic!("{moment:?}: {e}")), WorkspaceList { workspaces: Vec::new() });
        assert_eq!(called, ["workspace.list"], "{moment:?}");
    }
}

#[test]
fn a_call_that_may_have_run_is_never_made_twice() {
    for moment in ALL {
        let scene = Scene::new();
        let params = WorkspaceParams { workspace: WorkspaceRef::Name("shop".into()) };
        let refused = json!({"another": "answer"});
        let (ended, called) = scene.killed_at(moment, refused, |client| client.call::<Start>(&params));
        let error = ended.expect_err("neither answers it well");
        if matches!(moment, Moment::Read | Moment::HalfAnswered) {
            assert_eq!(called, [] as [Value; 0], "{moment:?}");
            assert_eq!(error.kind(), Kind::DaemonUnreachable);
            assert!(error.message.contains("had the call workspace.start, which may have run"), "{}", error.message);
            assert_eq!(error.data.hint.as_deref(), Some("vcodingctl ls"));
        } else {
            assert_eq!(called, ["workspace.start"], "{moment:?}: {error}");
            assert_eq!(error.kind(), Kind::VersionMismatch, "the second daemon's answer");
        }
    }
}

#[test]
fn with_two_calls_under_way_neither_is_made_again() {
    let scene = Scene::new();
    let (ended, called) = scene.killed_at(Moment::Unread, json!({"workspaces": []}), |client| {
        client.send::<List>(&NoParams {}, &[])?;
        client.send::<List>(&NoParams {}, &[])?;
        client.receive()
    });
    assert_eq!(ended.unwrap_err().kind(), Kind::DaemonUnreachable);
    assert!(called.is_empty());
}

#[test]
fn a_daemon_is_started_only_at_the_state_directorys_own_socket() {
    let scene = Scene::new();
    let elsewhere = Places { explicit_socket: Some(scene.dir.path().join("other.sock")), ..scene.places() };
    let error = start::connect_or_start(&elsewhere, |_| {}).unwrap_err();
    assert_eq!(error.kind(), Kind::DaemonUnreachable);
    let own = scene.places().socket;
    assert!(error.message.contains(&format!("none is started there: the one of {}", scene.dir.path().display())));
    assert!(error.message.ends_with(own.to_str().unwrap()), "{}", error.message);
}
