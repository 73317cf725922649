//! Failures: message, hint, exit status; on a terminal, in a pipe, as JSON.

use std::io::Read;

use protocol::{Error, Kind};
use serde_json::json;

use crate::fake::{Fake, Step};
use crate::{snapshot, vcodingctl};

fn refusing(method: &'static str, error: Error) -> Fake {
    Fake::start(&[(method, vec![Step::Refuse(error)])])
}

#[test]
fn a_workspace_that_does_not_exist() {
    let error = Error::new(Kind::WorkspaceNotFound, "no workspace \"shp\u{1b}[2J\"").hint("vcodingctl ls");
    snapshot::check("error-workspace-not-found", &refusing("workspace.show", error), &["-w", "shp", "show"]);
}

#[test]
fn a_build_that_fails_shows_the_end_of_its_output() {
    let error = Error::new(Kind::ImageBuildFailed, "the Dockerfile did not build: step 2 ended with status 100")
        .hint("mend the Dockerfile, then vcodingctl up")
        .details(
            json!({"output": ["Reading package lists…", "\u{1b}[31mE: Unable to locate package pyhton3\u{1b}[0m"]}),
        );
    let fake = refusing("workspace.up", error);
    let project = fake.directory.path().to_str().unwrap().to_owned();
    snapshot::check("error-image-build-failed", &fake, &["--project", &project, "up"]);
}

#[test]
fn a_refusal_to_destroy_lists_the_work_and_what_can_be_done() {
    let error = Error::new(Kind::UnappliedWork, "workspace shop holds work that was never applied").details(
        json!({"files": [{"path": "shop/cart.py", "status": "M", "added": 1, "deleted": 1}, {"path": "b", "status": "A"}]}),
    );
    snapshot::check("error-unapplied-work", &refusing("workspace.destroy", error), &["-w", "shop", "destroy"]);
}

#[test]
fn each_kind_ends_with_its_own_status() {
    // A method that this client calls and its daemon does not know is a daemon of another version.
    for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::UnknownMethod) {
        let fake = refusing("workspace.start", Error::new(*kind, "it did not work").hint("try this"));
        let output = vcodingctl::piped(&fake, &["-w", "x", "start"]);
        assert_eq!(output.status.code(), Some(i32::from(kind.exit())), "{kind}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: it did not work\nhint: try this\n", "{kind}");
    }
}

#[test]
fn a_daemon_that_does_not_know_a_method_is_of_another_version() {
    let fake = refusing("workspace.start", Error::new(Kind::UnknownMethod, "no such method"));
    let output = vcodingctl::piped(&fake, &["-w", "x", "start"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("does not know workspace.start") && said.contains("hint: vcodingctl daemon stop"), "{said}");
}

#[test]
fn no_daemon_is_status_7_with_the_way_to_one() {
    let fake = Fake::start(&[]);
    let missing = fake.directory.path().join("none.sock");
    let output = vcodingctl::piped(&fake, &["--socket", missing.to_str().unwrap(), "ls"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(
        said.starts_with("error: no daemon answers at ")
            && said.ends_with("hint: vcodingctl daemon start, without --socket and VCODING_SOCKET\n"),
        "{said}"
    );
}

#[test]
fn a_daemon_that_hangs_up_is_status_7() {
    let fake = Fake::start(&[("workspace.list", vec![Step::HangUp])]);
    let output = vcodingctl::piped(&fake, &["ls"]);
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn an_older_daemon_is_said_to_be_one() {
    let fake = Fake::start(&[("workspace.list", vec![Step::Answer(json!({"guests": []}))])]);
    let output = vcodingctl::piped(&fake, &["ls"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("not understood") && said.contains("hint: vcodingctl daemon stop"), "{said}");
}

#[test]
fn a_mistyped_command_gets_the_nearest_one_and_status_2() {
    let fake = Fake::start(&[]);
    let output = vcodingctl::piped(&fake, &["rolback", "base"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("'rollback'"), "{said}");
}

#[test]
fn wrong_usage_is_json_too_where_json_was_asked() {
    let fake = Fake::start(&[]);
    let output = vcodingctl::piped(&fake, &["--json", "rolback", "base"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &document["error"]["data"]["kind"]), (Some(2), &json!("usage")));
    let output = vcodingctl::piped(&fake, &["exec", "--bad", "--", "--json"]);
    assert!(output.stdout.is_empty(), "what stands after -- is the command's");
}

#[test]
fn a_directory_that_is_no_project_says_what_to_do() {
    let fake = Fake::start(&[]);
    let empty = fake.directory.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let output = vcodingctl::command(&fake, &["up"]).current_dir(&empty).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("is no project") && said.contains("hint: cd to your project"), "{said}");
}

#[test]
fn a_run_that_is_asked_nothing_never_reaches_the_daemon() {
    let fake = Fake::start(&[]);
    for args in [&["-w", "x", "run", "claude"][..], &["-w", "x", "run", "claude", "-"], &["-w", "x", "run"]] {
        let output = vcodingctl::piped(&fake, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    assert!(fake.calls().is_empty());
}

#[test]
fn a_runs_name_must_be_long_enough_and_fit_one_run() {
    let mut other = crate::samples::run("succeeded");
    other["id"] = json!("01kavw3r5m0000000007x4kzzz");
    let list = json!({"runs": [crate::samples::run("succeeded"), other]});
    let fake = Fake::start(&[("run.list", vec![Step::Answer(list)])]);
    for (name, status, said) in
        [("2q9", 2, "too short"), ("01kavw3r5m", 2, "fits several runs"), ("nothere", 3, "no run \"nothere\"")]
    {
        let output = vcodingctl::piped(&fake, &["-w", "x", "cancel", name]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
    assert!(fake.calls().iter().all(|(method, _)| method == "run.list"), "nothing was cancelled by guess");
}

#[test]
fn a_closed_pipe_is_quiet() {
    let files = json!([{"path": "x", "status": "M", "added": 1, "deleted": 1}]);
    let patch = "+x\n".repeat(1_000_000);
    let fake = Fake::start(&[(
        "checkpoint.diff",
        vec![Step::Answer(json!({"from": "a", "to": "b", "files": files, "patch": patch, "truncated": false}))],
    )]);
    let mut child = vcodingctl::spawned(&fake, &["-w", "x", "diff"]);
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[test]
fn a_full_disk_is_not_quiet() {
    let fake = Fake::start(&[]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = vcodingctl::command(&fake, &["version"]).stdout(full).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: standard output cannot be written"), "{said}");
}

#[test]
fn what_people_type_who_know_other_tools_is_answered_with_what_they_meant() {
    let fake = Fake::start(&[]);
    for (args, hint) in [
        (&["stop", "shop"][..], "hint: a workspace is named by -w: vcodingctl -w shop stop"),
        (&["destroy", "shop"], "hint: a workspace is named by -w: vcodingctl -w shop destroy"),
        (&["run", "claude", "make", "it", "pass"], "hint: a prompt is one word to the shell"),
        (&["run", "hello"], "hint: vcodingctl run claude \"hello\""),
    ] {
        let output = vcodingctl::piped(&fake, args);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && err.contains(hint), "{args:?}: {err}");
    }
    let json = vcodingctl::piped(&fake, &["--json", "exec"]);
    let said: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(said["error"]["message"].as_str().unwrap().contains("<CMD>"), "{said}");
}
