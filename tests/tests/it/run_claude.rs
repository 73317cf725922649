//! The real Claude Code CLI in a sealed guest, against a scripted model: a real HTTP server of the
//! provider's wire protocol that sends each answer only when the request carries the real result
//! of the step before.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use model_server::{ModelServer, Script};
use serde_json::Value;

use crate::world::{SHOP, World, wait_until};

const KEY: &str = "sk-real-key-of-the-user-0123456789";

/// A world whose model is `script`; none where the agent's package cannot be fetched.
fn world(test: &str, script: Script) -> Option<(World, ModelServer)> {
    let mut world = World::with_engine(test)?;
    let server = ModelServer::start(script).unwrap();
    let mut config = format!("[endpoints]\nANTHROPIC_API_KEY = \"{}\"\n", server.url());
    if let Some(registry) = std::env::var_os("VCODING_TEST_REGISTRY") {
        config.push_str(&format!("[agents]\nregistry = \"{}\"\n", registry.display()));
    }
    world.configure(&config);
    world.set("ANTHROPIC_API_KEY", KEY);
    // The agent's package is fetched once for all tests.
    let shared = fetched();
    std::fs::create_dir_all(world.state().join("store")).unwrap();
    std::fs::set_permissions(world.state(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    if shared.is_dir() {
        let copied = Command::new("cp").args(["-a"]).arg(&shared).arg(world.state().join("store/agents")).status();
        assert!(copied.unwrap().success());
    }
    Some((world, server))
}

/// Where one test leaves the agent's program for the next.
fn fetched() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("agents")
}

/// Keeps what was fetched for the next test.
fn keep(world: &World) {
    let shared = fetched();
    if !shared.is_dir() {
        let aside = world.path("fetched");
        let copied = Command::new("cp").args(["-a"]).arg(world.state().join("store/agents")).arg(&aside).status();
        assert!(copied.unwrap().success());
        // Another test may have been quicker, and the target directory may be on another disk.
        let beside = shared.with_extension(format!("{:?}", std::thread::current().id()));
        let moved = Command::new("mv").args(["-T"]).arg(&aside).arg(&beside).status();
        assert!(moved.unwrap().success());
        if std::fs::rename(&beside, &shared).is_err() {
            drop(std::fs::remove_dir_all(&beside));
        }
    }
}

fn unavailable(test: &str, err: &str) -> bool {
    let missing = err.contains("cannot be fetched");
    if missing {
        let _told = writeln!(std::io::stderr(), "skipped: {test}: the agent's registry does not answer");
    }
    missing
}

#[test]
fn claude_makes_the_failing_test_pass_and_no_key_is_inside() {
    let test = "run claude";
    let Some((world, server)) = world(test, Script::fix_failing_test("/work")) else { return };
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);
    let ran = world.ctl(&project, &["run", "claude", "make the failing test pass"]);
    if unavailable(test, &ran.err) {
        return;
    }
    keep(&world);
    assert_eq!(ran.status, 0, "{}{}\n{:?}\n{}", ran.out, ran.err, server.refusals(), world.log());
    assert!(server.finished(), "{:?}", server.refusals());
    let said = ran.out.clone() + &ran.err;
    assert!(said.contains("pytest") && said.contains("cart.py"), "{said}");

    // The key arrived at the endpoint, and only there.
    let exchanges = server.exchanges();
    assert!(!exchanges.is_empty() && exchanges.iter().all(|e| e.header("x-api-key") == Some(KEY)));
    let look = world.ctl(
        &project,
        &[
            "exec",
            "--",
            "sh",
            "-c",
            "grep -rsl sk-real-key /work /home /tmp /run /etc/vcoding; env | grep sk-real-key; true",
        ],
    );
    assert_eq!(look.out, "");

    // Which run changed what.
    let runs = world.json(&project, &["runs"]);
    let run = &runs["runs"][0];
    assert_eq!((run["agent"].as_str(), run["state"].as_str()), (Some("claude"), Some("succeeded")));
    let id = run["id"].as_str().unwrap();
    let diff = world.json(&project, &["diff", &format!("run:{id}^"), &format!("run:{id}")]);
    assert_eq!(diff["files"][0]["path"], "shop/cart.py");
    assert_eq!(diff["files"].as_array().unwrap().len(), 1);
    world.ok(&project, &["exec", "--", "python3", "-m", "pytest", "-q"]);

    // Its events again, typed and without a gap.
    let logs = world.ok(&project, &["--json", "logs", id]);
    let events: Vec<Value> = logs.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let kinds: Vec<_> = events.iter().filter_map(|e| e["type"].as_str()).collect();
    for kind in ["session", "text", "tool-call", "tool-result", "edit", "finished"] {
        assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
    }
    let seqs: Vec<(u64, u64)> =
        events.iter().filter_map(|e| Some((e["seq"][0].as_u64()?, e["seq"][1].as_u64()?))).collect();
    assert!(seqs.windows(2).all(|w| w[0] < w[1]), "{seqs:?}");
    world.ok(&project, &["rollback", "base"]);
    assert_eq!(world.ctl(&project, &["exec", "--", "python3", "-m", "pytest", "-q"]).status, 1);
    drop(server);
}

#[test]
fn an_agent_outlives_the_daemon_and_its_log_has_no_gap() {
    let test = "an agent over a daemon's death";
    let Some((world, server)) = world(test, Script::fix_failing_test("/work")) else { return };
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);
    let started = world.ctl(&project, &["run", "--detach", "claude", "make the failing test pass"]);
    if unavailable(test, &started.err) {
        return;
    }
    keep(&world);
    assert_eq!(started.status, 0, "{}", started.err);
    // In the middle of its work.
    assert!(server.wait(Duration::from_secs(120), |exchanges| exchanges.len() >= 2), "{}", world.log());
    world.kill_daemon();
    let state = || world.json(&project, &["runs"])["runs"][0]["state"].as_str().unwrap().to_owned();
    wait_until(|| !matches!(state().as_str(), "running" | "starting"), "the run's end");
    assert_eq!(state(), "succeeded", "{:?}\n{}", server.refusals(), world.log());
    let runs = world.json(&project, &["runs"]);
    let id = runs["runs"][0]["id"].as_str().unwrap();
    let logs = world.ok(&project, &["--json", "logs", id]);
    let events: Vec<Value> = logs.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let texts: Vec<_> = events.iter().filter(|e| e["type"] == "text").filter_map(|e| e["text"].as_str()).collect();
    let unique: std::collections::BTreeSet<_> = texts.iter().collect();
    assert_eq!(unique.len(), texts.len(), "nothing twice: {texts:?}");
    assert_eq!(texts.len(), 5, "nothing missing: {texts:?}");
    world.ok(&project, &["exec", "--", "python3", "-m", "pytest", "-q"]);
    drop(server);
}

#[test]
fn a_key_that_the_endpoint_refuses_ends_with_status_6() {
    let test = "a refused key";
    let script = r#"{"name": "refused", "prompt": "hello", "steps": [{"say": "never", "faults": [{"kind": "status", "status": 401}]}]}"#;
    let script = Script::parse(script, "/work").unwrap();
    let Some((world, server)) = world(test, script) else { return };
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);
    let mut command = world.command(&project, &["run", "--timeout", "20s", "claude", "hello"]);
    command.stdin(Stdio::null());
    let ran = crate::world::run(command);
    if unavailable(test, &ran.err) {
        return;
    }
    keep(&world);
    // Claude repeats a refused request for minutes; whichever comes first is said as what it is.
    assert!(matches!(ran.status, 6 | 124), "{}: {}{}", ran.status, ran.out, ran.err);
    assert!((ran.out + &ran.err).contains("401"), "the refusal is shown while it is repeated");
    drop(server);
}

#[test]
fn an_endpoint_at_which_nobody_listens_is_said_before_an_agent_is_started() {
    let Some(world) = World::with_engine("no endpoint") else { return };
    let project = world.repository("shop", &[("Dockerfile", "FROM debian:bookworm-slim\n")]);
    // A port that was free a moment ago, and that nobody was told of.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    world.configure(&format!("[endpoints]\nANTHROPIC_API_KEY = \"http://127.0.0.1:{port}\"\n"));
    world.ok(&project, &["up"]);
    let mut set = world.command(&project, &["secret", "set", "ANTHROPIC_API_KEY"]);
    set.stdin(std::process::Stdio::piped());
    let mut child = set.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"a-key\n").unwrap();
    assert!(child.wait().unwrap().success());
    let ran = world.ctl(&project, &["run", "claude", "make it pass"]);
    assert_eq!(ran.status, 6, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("cannot be reached") && ran.err.contains("hint: config.toml: [endpoints]"), "{}", ran.err);
    assert_eq!(world.json(&project, &["runs"])["runs"], serde_json::json!([]));
}
