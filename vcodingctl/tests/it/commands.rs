//! Each command's output, by eye and by program.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::fake::{Fake, Step};
use crate::samples::{BASE, HEAD, RUN, ago, checkpoint, run, wall, workspace};
use crate::{snapshot, vcodingctl};

/// One method, one answer.
fn answering(method: &'static str, result: serde_json::Value) -> Fake {
    Fake::start(&[(method, vec![Step::Answer(result)])])
}

#[test]
fn up_shows_each_step_the_wall_and_what_was_left_out() {
    let step = |step: &str, state: &str, took: Option<u64>| {
        Step::Progress(json!({"step": step, "state": state, "took_ms": took}))
    };
    let output = |step: &str, text: &str| Step::Progress(json!({"step": step, "state": "output", "text": text}));
    let left_out: Vec<_> = [".env", "id_rsa", "a.pem", "b.pem", "c.pem", "d.pem", "e\u{1b}[2J.pem"]
        .iter()
        .map(|path| json!({"path": path, "why": "may hold a secret"}))
        .collect();
    let fake = Fake::start(&[(
        "workspace.up",
        vec![
            step("image", "started", None),
            step("[1/3] FROM debian:bookworm-slim", "cached", None),
            step("[2/3] RUN apt-get update && apt-get install -y python3 python3-pytest", "started", None),
            output("[2/3] RUN apt-get update && apt-get install -y python3 python3-pytest", "Get:1 http://deb…"),
            step("[2/3] RUN apt-get update && apt-get install -y python3 python3-pytest", "done", Some(12_345)),
            step("image", "done", Some(14_001)),
            step("work tree", "done", Some(37)),
            step("guest", "done", Some(420)),
            Step::Answer(json!({
                "workspace": workspace("ready"), "created": true, "wall": wall(), "left_out": left_out,
                "left_out_total": 131, "files": 132, "notes": ["the Dockerfile's ENTRYPOINT is not run"],
            })),
        ],
    )]);
    let project = fake.directory.path().to_str().unwrap().to_owned();
    snapshot::check("up", &fake, &["--project", &project, "up"]);
    let (_, params) = &fake.calls()[0];
    assert_eq!(params["progress"], true);
}

#[test]
fn up_again_says_that_it_is_there() {
    let fake = answering(
        "workspace.up",
        json!({"workspace": workspace("ready"), "created": false, "wall": wall(), "files": 0}),
    );
    let project = fake.directory.path().to_str().unwrap().to_owned();
    snapshot::check("up-again", &fake, &["--project", &project, "up"]);
}

#[test]
fn ls_lists_workspaces() {
    let mut stopped = workspace("stopped");
    stopped["name"] = json!("a-much-longer-name");
    stopped["unapplied"] = json!(false);
    stopped["created"] = json!(ago(3 * 86_400));
    stopped["project"] = json!("/home/me/src/日本語/a/path/that/does/not/fit/on/eighty/columns");
    let mut broken = workspace("broken");
    broken["name"] = json!("b");
    broken["problem"] = json!("the guest was lost\u{1b}]0;x\u{7}");
    let fake = answering("workspace.list", json!({"workspaces": [workspace("ready"), stopped, broken]}));
    snapshot::check("ls", &fake, &["ls"]);
}

#[test]
fn ls_of_nothing_is_a_header() {
    snapshot::check("ls-empty", &answering("workspace.list", json!({"workspaces": []})), &["ls"]);
}

#[test]
fn show_says_what_isolates_it() {
    let limits = json!({
        "memory": 4_u64 << 30, "milli_cpus": 2500, "pids": 1024, "disk": 20_u64 << 30, "open_files": 20_000, "open_files_asked": 65_536,
    });
    let volumes = ["/var/lib/postgresql"];
    let shown = json!({"workspace": workspace("ready"), "wall": wall(), "limits": limits, "in_memory": volumes});
    let fake = answering("workspace.show", shown);
    snapshot::check("show", &fake, &["-w", "shop", "show"]);
    assert_eq!(fake.calls()[0].1, json!({"workspace": "shop"}));
}

#[test]
fn show_of_a_weak_wall_shouts() {
    let mut weak = wall();
    weak["interfaces"] = json!(["lo", "eth0"]);
    weak["uid"] = json!(0);
    weak["capabilities"] = json!("00000000a80425fb");
    weak["seccomp"] = json!(false);
    weak["no_new_privileges"] = json!(false);
    weak["read_only_root"] = json!(false);
    let fake = answering("workspace.show", json!({"workspace": workspace("ready"), "wall": weak}));
    snapshot::check("show-weak", &fake, &["-w", "shop", "show"]);
}

#[test]
fn start_and_stop_say_what_it_is_now() {
    let fake = Fake::start(&[
        ("workspace.start", vec![Step::Answer(json!({"workspace": workspace("ready")}))]),
        ("workspace.show", vec![Step::Answer(json!({"workspace": workspace("ready")}))]),
        (
            "workspace.stop",
            vec![Step::Answer(json!({"workspace": workspace("stopped"), "in_memory": ["/var/lib/postgresql"]}))],
        ),
    ]);
    snapshot::check("start", &fake, &["-w", "shop", "start"]);
    snapshot::check("stop", &fake, &["-w", "shop", "stop"]);
}

#[test]
fn what_was_destroyed_is_listed_with_the_way_back() {
    let kept = json!({"trash": [
        {"id": crate::samples::WORKSPACE, "name": "shop", "project": "/home/ada/shop", "destroyed": ago(7200),
         "kept_until": "2026-12-24T16:00:00.000Z", "bytes": 123_456_789},
        {"id": crate::samples::WORKSPACE, "destroyed": ago(90_000), "kept_until": "2026-12-23T16:00:00.000Z", "bytes": 0},
    ]});
    snapshot::check("ls-trash", &answering("workspace.trash", kept), &["ls", "--trash"]);
    let freed = json!({"freed": [
        {"kind": "workspace", "name": "shop", "bytes": 123_456_789},
        {"kind": "image", "name": "vcoding/shop:0123456789ab", "bytes": 1_234_567_890_u64},
    ], "trashed": 2, "trash_bytes": 4096});
    snapshot::check("gc", &answering("workspace.gc", freed), &["gc"]);
    let nothing = json!({"freed": [], "trashed": 0, "trash_bytes": 0});
    snapshot::check("gc-nothing", &answering("workspace.gc", nothing), &["gc", "--dry-run"]);
}

#[test]
fn destroy_says_what_is_kept() {
    let kept = json!({"id": crate::samples::WORKSPACE, "name": "shop", "kept_until": "2026-12-24T16:00:00.000Z"});
    snapshot::check("destroy", &answering("workspace.destroy", kept), &["-w", "shop", "destroy"]);
    let purged = json!({"id": crate::samples::WORKSPACE, "name": "shop"});
    let fake = answering("workspace.destroy", purged);
    snapshot::check("destroy-purge", &fake, &["-w", "shop", "destroy", "--force", "--purge"]);
    assert_eq!(fake.calls()[0].1, json!({"workspace": "shop", "force": true, "purge": true}));
}

/// Started ten minutes ago; what is over took a minute and 3.5 seconds.
fn with_times(mut run: serde_json::Value) -> serde_json::Value {
    let started = protocol::Timestamp::now().unix_ms() - 630_000;
    let at = |ms| json!(protocol::Timestamp::from_unix_ms(ms));
    run["started"] = at(started);
    if run["state"] != "running" {
        run["ended"] = at(started + 63_500);
    }
    run
}

#[test]
fn runs_are_listed_with_what_they_took_and_cost() {
    let run = |state| with_times(run(state));
    let mut done = run("succeeded");
    done["cost_usd"] = json!(0.4237);
    let mut other = with_times(crate::samples::command("timed-out", 124));
    other["id"] = json!("01kavw3r5m0000000007x4k2qa");
    other["title"] = json!("a title that is much longer than the terminal is wide, by far, really");
    let fake = answering("run.list", json!({"runs": [run("running"), done, other]}));
    snapshot::check("runs", &fake, &["-w", "shop", "runs"]);
    snapshot::check("runs-all", &fake, &["runs", "--all"]);
}

#[test]
fn checkpoint_says_what_it_holds() {
    let fake = answering(
        "checkpoint.create",
        json!({"checkpoint": checkpoint(HEAD, "checkpoint", &["@"]), "created": true, "notes": ["big.bin is over 50 MiB and stays out"]}),
    );
    snapshot::check("checkpoint", &fake, &["-w", "shop", "checkpoint", "-m", "before lunch"]);
    assert_eq!(fake.calls()[0].1, json!({"workspace": "shop", "label": "before lunch"}));
    let fake =
        answering("checkpoint.create", json!({"checkpoint": checkpoint(HEAD, "checkpoint", &["@"]), "created": false}));
    snapshot::check("checkpoint-unchanged", &fake, &["-w", "shop", "checkpoint"]);
}

#[test]
fn log_names_checkpoints_as_they_can_be_typed() {
    let end = format!("run:{RUN}");
    let start = format!("run:{RUN}^");
    let mut labelled = checkpoint("aa".repeat(20).as_str(), "checkpoint", &[]);
    labelled["label"] = json!("before lunch");
    let fake = answering(
        "checkpoint.list",
        json!({"checkpoints": [
            checkpoint(HEAD, "run", &["@", &end]), labelled, checkpoint(BASE, "up", &["base", &start]),
        ]}),
    );
    snapshot::check("log", &fake, &["-w", "shop", "log"]);
}

#[test]
fn diff_is_a_patch() {
    let patch = "diff --git a/shop/cart.py b/shop/cart.py\nindex 3f2a91c..77aa01b 100644\n--- a/shop/cart.py\n\
                 +++ b/shop/cart.py\n@@ -1,3 +1,3 @@ def total(items):\n     sum = 0\n-    return sum\n+    return sum + 1\u{1b}[2J\n \n";
    let files = json!([
        {"path": "shop/cart.py", "status": "M", "added": 1, "deleted": 1},
        {"path": "logo.png", "status": "A"},
        {"path": "new/name.py", "old_path": "old/name.py", "status": "R", "added": 0, "deleted": 0},
        {"path": {"base64": "/w=="}, "status": "D", "added": 0, "deleted": 12},
    ]);
    let result = json!({"from": BASE, "to": HEAD, "files": files, "patch": patch, "truncated": true});
    let fake = answering("checkpoint.diff", result);
    snapshot::check("diff", &fake, &["-w", "shop", "diff"]);
    snapshot::check("diff-stat", &fake, &["-w", "shop", "diff", "base", "@", "--stat", "--", "shop", "logo.png"]);
    let (_, params) = fake.calls().pop().unwrap();
    assert_eq!(params, json!({"workspace": "shop", "from": "base", "to": "@", "paths": ["shop", "logo.png"]}));
    let nothing = json!({"from": BASE, "to": BASE, "files": [], "patch": "", "truncated": false});
    snapshot::check("diff-empty", &answering("checkpoint.diff", nothing), &["-w", "shop", "diff", "@~1"]);
}

#[test]
fn a_runs_short_id_in_a_checkpoints_name_is_made_whole() {
    let nothing = json!({"from": BASE, "to": BASE, "files": [], "patch": "", "truncated": false});
    let fake = Fake::start(&[
        ("run.list", vec![Step::Answer(json!({"runs": [run("succeeded")]}))]),
        ("checkpoint.diff", vec![Step::Answer(nothing)]),
    ]);
    assert!(vcodingctl::piped(&fake, &["-w", "shop", "diff", "run:4k2q9^", "run:@"]).status.success());
    let (_, params) = fake.calls().pop().unwrap();
    assert_eq!((&params["from"], &params["to"]), (&json!(format!("run:{RUN}^")), &json!(format!("run:{RUN}"))));
}

#[test]
fn rollback_names_the_way_back() {
    let result = json!({"checkpoint": checkpoint(HEAD, "rollback", &["@"]), "target": BASE, "before": "bb".repeat(20)});
    let fake = answering("checkpoint.rollback", result);
    snapshot::check("rollback", &fake, &["-w", "shop", "rollback", "base"]);
    snapshot::check("rollback-paths", &fake, &["-w", "shop", "rollback", "base", "--", "shop/cart.py"]);
}

#[test]
fn apply_warns_of_what_the_host_may_obey() {
    let result = json!({
        "branch": "vcoding/shop", "commit": HEAD, "parent": BASE, "checkpoint": HEAD,
        "added": 1, "changed": 2, "deleted": 0,
        "flagged": [
            {"path": ".github/workflows/ci.yml", "why": "runs in continuous integration"},
            {"path": "Makefile", "why": "runs when somebody types make"},
        ],
        "notes": ["2 files over 50 MiB were left out"],
    });
    let fake = answering("transfer.apply", result);
    snapshot::check("apply", &fake, &["-w", "shop", "apply"]);
    // A vendored directory: by reason, and cut.
    let many: Vec<_> =
        (0..400).map(|n| json!({"path": format!("vendor/{n}/Makefile"), "why": "is run by builds"})).collect();
    let many: Vec<_> = many.into_iter().chain([json!({"path": ".npmrc", "why": "is run by npm"})]).collect();
    let vendored = json!({
        "branch": "vcoding/shop", "commit": HEAD, "parent": BASE, "checkpoint": HEAD,
        "added": 9000, "changed": 0, "deleted": 0, "flagged": many, "flagged_total": 2000,
    });
    let ran = vcodingctl::piped(&answering("transfer.apply", vendored), &["-w", "shop", "apply"]);
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(said.lines().count() < 15, "{said}");
    for part in ["vendor/4/Makefile", "and 395 more, each is run by builds", ".npmrc", "and 1599 more"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let quiet = vcodingctl::piped(&fake, &["-q", "-w", "shop", "apply"]);
    assert!(String::from_utf8_lossy(&quiet.stderr).contains("Makefile"), "a warning is said even when quiet");
}

#[test]
fn apply_to_a_project_without_a_commit_says_what_works_there() {
    let result = json!({
        "branch": "vcoding/shop", "commit": HEAD, "checkpoint": HEAD, "added": 1, "changed": 0, "deleted": 0, "flagged": [],
    });
    snapshot::check("apply-first", &answering("transfer.apply", result), &["-w", "shop", "apply"]);
}

#[test]
fn consent_shows_what_is_asked_for_and_says_what_it_was_given_to() {
    let asked = |files: &[&str], wishes: &[(&str, &str, &str)], agreed: bool| {
        let wishes: Vec<_> = wishes
            .iter()
            .map(|(key, value, default)| json!({"key": key, "value": value, "default": default}))
            .collect();
        let secrets = json!([{"path": "deploy/.env", "why": "a file of environment variables"}]);
        let secrets = if agreed { json!([]) } else { secrets };
        json!({"hash": "c0ffee", "files": files, "wishes": wishes, "secrets": secrets, "agreed": agreed})
    };
    let wishes = [("[limits] memory", "64g", "4g"), ("[run] env", "A=\"b\"", "none")];
    let fake = |asked: &serde_json::Value| {
        Fake::start(&[
            ("consent.show", vec![Step::Answer(asked.clone())]),
            ("consent.set", vec![Step::Answer(asked.clone())]),
        ])
    };
    let waiting = asked(&["Dockerfile"], &wishes, false);
    snapshot::check("consent-agree", &fake(&waiting), &["--project", "/", "consent", "--agree"]);
    snapshot::check("consent-withdraw", &fake(&waiting), &["--project", "/", "consent", "--withdraw"]);
    snapshot::check("consent-given", &fake(&asked(&[], &wishes, true)), &["--project", "/", "consent"]);
    snapshot::check("consent-none", &fake(&asked(&[], &[], true)), &["--project", "/", "consent"]);
    let piped = vcodingctl::piped(&fake(&waiting), &["--project", "/", "consent"]);
    assert_eq!(piped.status.code(), Some(4), "without a terminal nobody is asked");
    let out = String::from_utf8_lossy(&piped.stdout).into_owned();
    assert!(out.contains("Dockerfile") && out.contains("64g"), "{out}");
}

#[test]
fn a_key_is_read_from_standard_input_and_never_shown() {
    let fake = answering("secret.set", json!({}));
    let mut child = vcodingctl::command(&fake, &["secret", "set", "ANTHROPIC_API_KEY"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"sk-secret\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"ANTHROPIC_API_KEY is kept on this computer, out of every guest\n");
    assert!(output.stderr.is_empty());
    assert_eq!(fake.calls()[0].1, json!({"name": "ANTHROPIC_API_KEY", "value": "sk-secret"}));
}

#[test]
fn keys_are_listed_by_name() {
    let list = json!({"secrets": [
        {"name": "ANTHROPIC_API_KEY", "source": "kept", "time": ago(185)},
        {"name": "OPENAI_API_KEY", "source": "environment"},
    ]});
    snapshot::check("secret-ls", &answering("secret.list", list), &["secret", "ls"]);
    snapshot::check("secret-rm", &answering("secret.remove", json!({})), &["secret", "rm", "ANTHROPIC_API_KEY"]);
}

#[test]
fn the_daemon_says_who_it_is() {
    let fake = Fake::start(&[]);
    let status = json!({
        "version": "0.1.0", "protocol": 1, "pid": 4711, "started": ago(185), "workspaces": 2, "running": 1,
        "state_dir": fake.directory.path(),
    });
    drop(fake);
    let fake = Fake::start(&[
        ("daemon.status", vec![Step::Answer(status)]),
        ("daemon.shutdown", vec![Step::Answer(json!({})), Step::HangUp]),
    ]);
    let seen = vcodingctl::piped(&fake, &["daemon", "status"]);
    let seen = String::from_utf8(seen.stdout).unwrap();
    assert!(seen.starts_with("vcodingd 0.1.0 (pid 4711), started 3 min ago\n"), "{seen}");
    let seen = vcodingctl::piped(&fake, &["daemon", "stop"]);
    assert_eq!(seen.stdout, b"vcodingd (pid 4711) ends; guests and runs go on, attached commands and shells end\n");
}

#[test]
fn the_daemons_log_is_shown_from_its_end() {
    let fake = Fake::start(&[]);
    std::fs::create_dir(fake.directory.path().join("log")).unwrap();
    std::fs::write(fake.directory.path().join("log/vcodingd.2026-11-28.log"), "one\ntwo\x1b[2J\nthree\n").unwrap();
    let seen = vcodingctl::piped(&fake, &["daemon", "logs", "-n", "2"]);
    assert_eq!(String::from_utf8(seen.stdout).unwrap(), "two\u{fffd}[2J\nthree\n");
}

#[test]
fn the_doctor_names_what_is_wrong_and_the_command_that_mends_it() {
    let status = json!({"version": "0.1.0", "protocol": 1, "pid": 4711, "started": ago(200), "state_dir": "/s",
        "workspaces": 1, "running": 1});
    let finding = |area: &str, severity: &str, message: &str, fix: Option<&str>| json!({"area": area, "severity": severity, "message": message, "fix": fix});
    let findings = [
        finding("host", "fine", "Linux 6.18", None),
        finding("engine", "fine", "docker 20.10.24, overlay2, cgroups 2", None),
        finding(
            "keys",
            "note",
            "there is no ANTHROPIC_API_KEY, which claude needs",
            Some("vcodingctl secret set ANTHROPIC_API_KEY"),
        ),
        finding("store", "fine", "every record can be read", None),
        finding("workspaces", "fine", "blog: ready", None),
        finding("workspaces", "error", "shop: the guest was lost\u{1b}[2J", Some("vcodingctl -w shop up")),
        finding("disk", "warning", "1 GiB free where /home/me/.local/state/vcoding is", Some("docker system df")),
    ];
    let fake = Fake::start(&[
        ("daemon.status", vec![Step::Answer(status)]),
        ("daemon.doctor", vec![Step::Answer(json!({"findings": findings}))]),
    ]);
    snapshot::check("doctor", &fake, &["doctor"]);
}

#[test]
fn collect_says_what_came_and_what_stayed_in_the_way() {
    let fake = answering(
        "transfer.collect",
        json!({"files": [{"path": "dist/shop.whl", "size": 1_234_567}, {"path": "dist/a\u{1b}b", "size": 12}],
            "total": 2, "bytes": 1_234_579, "same": 1, "in_the_way": ["dist/old.whl"], "in_the_way_total": 1,
            "skipped": [{"path": "dist/link", "why": "is a link"}], "skipped_total": 1}),
    );
    snapshot::check("collect", &fake, &["-w", "shop", "collect", "--to", "/tmp/out", "/work/dist/*", "a.txt"]);
    let (_, params) = &fake.calls()[0];
    assert_eq!((&params["patterns"], &params["to"]), (&json!(["dist/*", "a.txt"]), &json!("/tmp/out")));
}

#[test]
fn audit_shows_who_did_what() {
    let entry = |seconds, method: &str, target: Option<&str>, outcome: &str| {
        json!({"id": "01", "time": ago(seconds), "uid": 0, "pid": 4711, "method": method, "target": target,
            "outcome": outcome, "took_ms": 1234})
    };
    let entries = [
        entry(7200, "workspace.up", Some("/home/me/src/shop"), "ok"),
        entry(300, "secret.set", None, "ok"),
        entry(2, "workspace.destroy", Some("shop"), "unapplied-work"),
    ];
    let fake = answering("audit.search", json!({"entries": entries, "truncated": true}));
    snapshot::check("audit", &fake, &["-w", "shop", "audit", "--method", "workspace", "-n", "3"]);
    let (_, params) = &fake.calls()[0];
    assert_eq!(
        (&params["workspace"], &params["method"], &params["limit"]),
        (&json!("shop"), &json!("workspace"), &json!(3))
    );
}

#[test]
fn version_and_help() {
    let fake = Fake::start(&[]);
    snapshot::check("version", &fake, &["version"]);
    for command in ["", "run", "logs", "diff", "up", "secret"] {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let output = vcodingctl::piped(&fake, &args);
        assert!(output.status.success());
        let name = if command.is_empty() { "help".into() } else { format!("help-{command}") };
        snapshot::compare(&name, &String::from_utf8(output.stdout).unwrap());
    }
}

#[test]
fn shells_get_a_completion_script() {
    let fake = Fake::start(&[]);
    for shell in ["bash", "fish", "zsh"] {
        let output = vcodingctl::piped(&fake, &["completion", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && script.contains("rollback"), "{shell}");
    }
}

#[test]
fn colour_can_be_turned_off() {
    let fake = answering("workspace.list", json!({"workspaces": [workspace("ready")]}));
    let colourless = |args: &[&str], variable: &str, value: &str| {
        let mut command = vcodingctl::command(&fake, args);
        command.env(variable, value);
        !vcodingctl::command_on_terminal(command, 80).contains('␛')
    };
    assert!(colourless(&["ls"], "NO_COLOR", "1"));
    assert!(colourless(&["ls"], "TERM", "dumb"));
    assert!(colourless(&["ls", "--no-color"], "LANG", "C"));
    assert!(!colourless(&["ls"], "NO_COLOR", ""), "an empty variable is none");
}
