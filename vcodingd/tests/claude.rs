//! The real Claude Code, fetched by the store, started as `launch` says, on this host as an ordinary user,
//! against a model server that follows a script; what it prints is read by the parser.
//!
//! Needs the registry, and root to become another user (Claude Code refuses to work as root); skipped where
//! one is missing. `VCODING_REGISTRY` names another registry.

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use guest::run::Stream;
use model_server::{CHECK, ModelServer, Script};
use protocol::RunId;
use protocol::event::EventBody;
use vcodingd::agents::{
    Error, Installed, LaunchRequest, Libc, Platform, REGISTRY, Session, Store, Verdict, find, launch, parser,
};

/// An account that is nobody's.
const UID: u32 = 231_871;

/// Tells why a test did nothing, past the capture of the test harness.
fn skip(why: &str) {
    let _told = writeln!(std::io::stderr(), "skipped: the real Claude Code: {why}");
}

struct Stage {
    dir: tempfile::TempDir,
    /// Its path is the one on this host instead of a guest's.
    program: Installed,
}

impl Stage {
    async fn set() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip("only root can become another user");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["home", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            chown(dir.path().join(name), Some(UID), Some(UID)).unwrap();
        }
        let registry = std::env::var("VCODING_REGISTRY").unwrap_or_else(|_| REGISTRY.into());
        let platform = Platform::of_host(Libc::Gnu).unwrap();
        // Kept between runs: what was verified before it got its name need not come again.
        static STORE: OnceLock<Store> = OnceLock::new();
        let store = STORE.get_or_init(|| Store::open(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("agents")).unwrap());
        let claude = find(None, "claude").unwrap();
        match store.ensure(&registry, &claude, platform, |_, _| {}).await {
            Ok(program) => {
                // The way to the target directory may be closed to other users.
                let host = dir.path().join("claude");
                std::fs::hard_link(&program.host, &host)
                    .or_else(|_| std::fs::copy(&program.host, &host).map(drop))
                    .unwrap();
                Some(Self { dir, program: Installed { program: host.display().to_string(), ..program } })
            }
            Err(error @ Error::Registry { .. }) => {
                skip(&error.to_string());
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn work(&self) -> String {
        self.dir.path().join("work").display().to_string()
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.dir.path().join("work").join(name);
        std::fs::write(&path, content).unwrap();
        chown(&path, Some(UID), Some(UID)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join("work").join(name)).unwrap()
    }

    /// Runs the agent to its end.
    fn run(&self, server: &ModelServer, session: Session<'_>) -> Output {
        let request = LaunchRequest {
            prompt: "make the check pass",
            model: Some("scripted-model"),
            session,
            model_port: server.addr().port(),
            token: "token-of-the-run",
        };
        let launch = launch(&find(None, "claude").unwrap(), &self.program, &request);
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
        let env = launch.env.iter().map(|pair| {
            let (name, value) = text(pair).split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap();
            (name, value)
        });
        let mut child = Command::new(text(&launch.argv[0]))
            .args(launch.argv[1..].iter().map(text))
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.dir.path().join("home"))
            .envs(env)
            .current_dir(self.dir.path().join("work"))
            .uid(UID)
            .gid(UID)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program that was installed starts");
        child.stdin.take().expect("piped").write_all(&launch.stdin).unwrap();
        child.wait_with_output().unwrap()
    }
}

fn parse(output: &Output) -> (Vec<EventBody>, Verdict) {
    let mut parser = parser(find(None, "claude").unwrap().output);
    let mut events = Vec::new();
    for line in output.stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        events.extend(parser.line(Stream::Out, line));
    }
    (events, parser.verdict())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_edits_by_its_own_tools_and_can_be_gone_on_with() {
    let Some(stage) = Stage::set().await else { return };
    for (name, content) in CHECK {
        stage.write(name, content);
    }
    let server = ModelServer::start(Script::make_check_pass(&stage.work())).unwrap();
    let run: RunId = "01jd0000000000000000000001".parse().unwrap();
    let output = stage.run(&server, Session::New(&run));
    let (events, verdict) = parse(&output);
    let told = || format!("{:?}\n{events:#?}\n{}", server.refusals(), String::from_utf8_lossy(&output.stderr));

    assert_eq!(stage.read("answer.txt"), "the answer is 42\n", "{}", told());
    assert!(server.finished() && server.refusals().is_empty(), "{}", told());
    assert!(output.status.success(), "{}", told());
    assert_eq!((verdict.finished, verdict.text.as_deref()), (Some(true), Some("The check passes.")));
    let session = verdict.session.expect("it says its session");
    assert_eq!(session, vcodingd::agents::session_of(&run));
    let results: Vec<bool> = events
        .iter()
        .filter_map(|event| if let EventBody::ToolResult { ok, .. } = event { Some(*ok) } else { None })
        .collect();
    assert_eq!(results, [false, true, true, true], "{}", told());
    let path = format!("{}/answer.txt", stage.work()).as_str().into();
    assert!(events.contains(&EventBody::Edit { path, added: 1, deleted: 1 }), "{}", told());
    assert!(!events.iter().any(|event| matches!(event, EventBody::Output { .. })), "{}", told());
    for exchange in server.exchanges() {
        assert_eq!(exchange.header("x-api-key"), Some("token-of-the-run"));
        assert!(exchange.target.starts_with("/v1/messages?"), "{}", exchange.target);
        assert_eq!(exchange.body["model"], "scripted-model");
    }

    // The second run's requests carry the first one's conversation, which the script goes through again to its end.
    let before = server.exchanges().len();
    let output = stage.run(&server, Session::Resume(&session));
    let (_, verdict) = parse(&output);
    assert_eq!((verdict.finished, verdict.session.as_deref()), (Some(true), Some(session.as_str())));
    assert_eq!(server.exchanges().len(), before + 1, "{:?}", server.refusals());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_for_a_while_is_told_and_one_that_refuses_is_the_reason() {
    let Some(stage) = Stage::set().await else { return };
    let script = |faults: &str| {
        let text = format!(r#"{{"name":"plain","steps":[{{"say":"Done.","faults":[{faults}]}}]}}"#);
        Script::parse(&text, "/").unwrap()
    };
    let first: RunId = "01jd0000000000000000000002".parse().unwrap();
    let server = ModelServer::start(script(r#"{"kind":"status","status":429,"retry_after":0,"times":1}"#)).unwrap();
    let (events, verdict) = parse(&stage.run(&server, Session::New(&first)));
    assert!(events.iter().any(|e| matches!(e, EventBody::Retry { attempt: 1, .. })), "{events:?}");
    assert_eq!((verdict.finished, verdict.endpoint_failed), (Some(true), false));

    let second: RunId = "01jd0000000000000000000003".parse().unwrap();
    let server = ModelServer::start(script(r#"{"kind":"status","status":400}"#)).unwrap();
    let output = stage.run(&server, Session::New(&second));
    let (events, verdict) = parse(&output);
    assert!(!output.status.success());
    assert_eq!((verdict.finished, verdict.endpoint_failed), (Some(false), true), "{events:?}");
    assert!(server.wait(Duration::ZERO, |seen| !seen.is_empty()));
}
