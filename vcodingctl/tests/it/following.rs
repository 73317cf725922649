//! Runs, followed: readable events, raw output, Ctrl-C, a daemon that goes away.

use std::io::{BufRead, BufReader};
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::fake::{Fake, Step};
use crate::samples::{RUN, command, event, run};
use crate::{snapshot, vcodingctl};

fn call(record: u64, second: u64, id: &str, name: &str, summary: &str) -> Value {
    event(record, second, &json!({"type": "tool-call", "id": id, "name": name, "summary": summary, "input": {}}))
}

fn result(record: u64, second: u64, id: &str, ok: bool, output: &str) -> Value {
    event(record, second, &json!({"type": "tool-result", "id": id, "ok": ok, "output": output}))
}

fn text(record: u64, second: u64, text: &str) -> Value {
    event(record, second, &json!({"type": "text", "text": text}))
}

/// A piece of a command's output.
fn output(seq: [u64; 2], next: [u64; 2], parts: &Value) -> Value {
    json!({"output": {"seq": seq, "next": next, "time": "2026-11-24T16:00:00.000Z", "parts": parts}})
}

/// A session with a bit of everything.
fn session() -> Vec<Value> {
    let plan = |first: &str, second: &str| {
        json!({"type": "plan", "steps": [
            {"text": "read the test", "state": first}, {"text": "mend the total", "state": second},
        ]})
    };
    let pytest = "\u{1b}[1m============ test session starts\u{1b}[0m\n\nE       assert 6 == 5\nE        +  where 6 = total([2, 3])\n\ntests/test_cart.py:5: AssertionError\n1 failed, 2 passed in 0.05s\nlast";
    vec![
        event(0, 1, &json!({"type": "session", "session": "s", "model": "claude-sonnet-4-5", "version": "2.1.0"})),
        event(1, 2, &json!({"type": "thinking", "text": "The test fails.\nPerhaps the total.\nOr the tax.\nOr not."})),
        text(
            2,
            3,
            "I'll look at the failing test first, and then at the code that it calls, which is in shop/cart.py as far as I can see.\n\n- one thing that is long enough to be wrapped at the end of a line of eighty columns\n- another",
        ),
        call(3, 4, "t1", "TodoWrite", "2 todos"),
        event(4, 4, &plan("in-progress", "pending")),
        result(5, 4, "t1", true, "ok"),
        call(
            6,
            5,
            "t2",
            "Bash",
            "python3 -m pytest -q --a-long-option-that-makes-the-line-longer-than-the-terminal-is-wide",
        ),
        result(7, 17, "t2", false, pytest),
        event(8, 18, &json!({"type": "retry", "attempt": 1, "of": 10, "wait_ms": 1500, "why": "429 overloaded"})),
        call(9, 20, "t3", "Read", "shop/cart.py"),
        call(10, 20, "t4", "Edit", "shop/cart.py"),
        result(11, 20, "t3", true, "contents"),
        result(12, 21, "t4", true, "edited"),
        event(13, 21, &json!({"type": "edit", "path": "shop/cart.py", "added": 3, "deleted": 1})),
        event(14, 22, &plan("done", "in-progress")),
        call(15, 23, "t5", "Write", "notes.md"),
        result(16, 23, "t5", true, "written"),
        event(17, 24, &json!({"type": "hologram", "text": "a type of tomorrow"})),
        text(
            18,
            25,
            "The total counted one item twice.\u{1b}]0;owned\u{7}\n\n```\nreturn sum   # a long line of code that must not be wrapped, since code is code, even when it is long\n```",
        ),
        text(19, 26, "Done: the test passes."),
        call(20, 27, "t6", "Bash", "sleep 100"),
        event(21, 28, &json!({"type": "output", "stream": "stderr", "text": "a warning of the CLI"})),
        event(22, 29, &json!({"type": "dropped", "bytes": 1024})),
        event(
            23,
            30,
            &json!({"type": "finished", "ok": true, "text": "Done: the test passes.", "cost_usd": 0.0412, "turns": 5}),
        ),
    ]
}

fn followed(start: Value, items: Vec<Value>, end: &Value) -> Fake {
    let mut script = vec![Step::Answer(json!(7))];
    script.extend(items.into_iter().map(Step::Item));
    script.push(Step::Item(json!({ "end": end })));
    Fake::start(&[
        ("run.start", vec![Step::Answer(start)]),
        ("run.show", vec![Step::Answer(end.clone())]),
        ("run.list", vec![Step::Answer(json!({"runs": [end]}))]),
        ("run.subscribe", script),
    ])
}

#[test]
fn an_agents_run_reads_like_a_story() {
    let fake = followed(run("running"), session(), &run("succeeded"));
    snapshot::check("run", &fake, &["-w", "shop", "run", "claude", "make the failing test pass"]);
    let started = &fake.calls()[0].1;
    assert_eq!(
        started,
        &json!({"workspace": "shop", "agent": "claude", "prompt": "make the failing test pass", "progress": true})
    );
    let wide = vcodingctl::on_terminal(&fake, &["-w", "shop", "logs"], 200);
    snapshot::compare("logs-200-columns", &wide);
    let loud = vcodingctl::piped(&fake, &["-v", "-w", "shop", "logs", "4k2q9"]);
    snapshot::compare("logs-verbose", &String::from_utf8(loud.stdout).unwrap());
}

#[test]
fn a_run_that_fails_says_why_and_ends_with_its_status() {
    let mut end = run("endpoint");
    end["problem"] = json!("the model endpoint answered 401: invalid x-api-key");
    end["exit"] = json!(6);
    let finished = event(1, 2, &json!({"type": "finished", "ok": false, "text": "Invalid API key"}));
    let fake = followed(run("running"), vec![finished], &end);
    snapshot::check("run-endpoint", &fake, &["-w", "shop", "run", "claude", "x"]);
}

#[test]
fn a_background_commands_output_is_its_own() {
    let items = vec![
        output([0, 0], [2, 0], &json!([{"stdout": "a\tb \u{1b}[32mgreen\u{1b}[0m\n"}, {"stdout": {"base64": "//4K"}}])),
        output([2, 0], [2, 4], &json!([{"stderr": "10 %"}])),
        output(
            [2, 4],
            [4, 0],
            &json!([{"stderr": "\r100 %\n"}, {"stdout": "not\u{1b}]0;owned\u{7}\n\u{0}no newline"}]),
        ),
    ];
    let mut end = command("failed", 3);
    end["problem"] = json!("it exited with status 3");
    let fake = followed(command("running", 0), items, &end);
    let args = ["-w", "shop", "run", "--", "make", "-j2"];
    let piped = vcodingctl::piped(&fake, &args);
    assert_eq!(piped.status.code(), Some(3));
    let bytes = b"a\tb \x1b[32mgreen\x1b[0m\n\xff\xfe\nnot\x1b]0;owned\x07\n\0no newline";
    assert_eq!(piped.stdout, bytes, "bytes as they are");
    assert_eq!(piped.stderr, b"10 %\r100 %\n", "and nothing of ours among them");
    let (_, params) = fake.calls().pop().unwrap();
    assert_eq!(params, json!({"run": RUN, "once": false, "bytes": true}));
    snapshot::compare("run-command-terminal", &vcodingctl::on_terminal(&fake, &args, 80));
    assert_eq!(vcodingctl::piped(&fake, &["logs", "--raw", RUN]).stdout, bytes);
}

#[test]
fn a_commands_output_goes_on_at_its_byte_where_the_daemon_went_away() {
    let fake = Fake::start(&[
        ("run.show", vec![Step::Answer(command("running", 0))]),
        (
            "run.subscribe",
            vec![
                Step::Answer(json!(7)),
                Step::Item(output([0, 0], [1, 3], &json!([{"stdout": "one\ntwo"}]))),
                Step::HangUp,
            ],
        ),
        (
            "run.subscribe",
            vec![
                Step::Answer(json!(7)),
                Step::Item(output([1, 3], [2, 0], &json!([{"stdout": "\n"}, {"dropped": 5}]))),
                Step::Item(json!({"end": command("succeeded", 0)})),
            ],
        ),
    ]);
    let piped = vcodingctl::piped(&fake, &["logs", "-f", RUN]);
    assert_eq!(piped.stdout, b"one\ntwo\n");
    let said = String::from_utf8(piped.stderr).unwrap();
    assert!(said.contains("the log is full: 5 bytes of output were not kept"), "{said}");
    let (_, params) = fake.calls().pop().unwrap();
    assert_eq!(params["from"], json!([1, 3]));
}

#[test]
fn detached_it_is_an_id() {
    let fake = followed(run("running"), vec![], &run("succeeded"));
    snapshot::check("run-detach", &fake, &["-w", "shop", "run", "--detach", "claude", "x"]);
}

#[test]
fn logs_of_a_run_under_way_ends_at_the_newest_event() {
    let fake = followed(run("running"), vec![text(0, 1, "So far.")], &run("running"));
    snapshot::check("logs-running", &fake, &["-w", "shop", "logs"]);
    let (_, params) = fake.calls().pop().unwrap();
    assert_eq!(params, json!({"run": RUN, "once": true}));
}

/// Reads standard output until a line holds `text`.
fn until(child: &mut Child, text: &str) -> BufReader<std::process::ChildStdout> {
    seen(child.stdout.take().unwrap(), text)
}

fn seen<R: std::io::Read>(stream: R, text: &str) -> BufReader<R> {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "ended before {text:?} was seen");
    }
    lines
}

fn interrupt(child: &Child) {
    tell(child, Signal::SIGINT);
}

fn tell(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
fn signals_are_heard_while_nobody_reads_the_output() {
    let much = json!([{ "stdout": "x".repeat(1 << 20) }]);
    let fake = Fake::start(&[
        ("run.start", vec![Step::Answer(command("running", 0))]),
        (
            "run.subscribe",
            vec![Step::Answer(json!(7)), Step::Item(output([0, 0], [0, 1 << 20], &much)), Step::Await("run.cancel")],
        ),
        ("run.cancel", vec![Step::Await("never")]),
    ]);
    let child = vcodingctl::spawned(&fake, &["-w", "shop", "run", "--", "yes"]);
    fake.called("run.subscribe");
    tell(&child, Signal::SIGTERM);
    fake.called("run.cancel");
    tell(&child, Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(output.stdout.len() < 1 << 20);
}

#[test]
fn term_cancels_the_run_and_the_second_stops_waiting() {
    let fake = Fake::start(&[
        ("run.start", vec![Step::Answer(run("running"))]),
        (
            "run.subscribe",
            vec![
                Step::Answer(json!(7)),
                Step::Item(text(0, 1, "Working.")),
                Step::Await("run.cancel"),
                Step::Item(text(1, 2, "It does not stop.")),
                Step::Await("never"),
            ],
        ),
        ("run.cancel", vec![]),
    ]);
    let mut child = vcodingctl::spawned(&fake, &["-w", "shop", "run", "claude", "x"]);
    let rest = until(&mut child, "Working.");
    tell(&child, Signal::SIGTERM);
    child.stdout = Some(rest.into_inner());
    let rest = until(&mut child, "It does not stop.");
    tell(&child, Signal::SIGTERM);
    drop(rest);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{stderr}");
    assert!(stderr.contains("was asked to end and may still be there"), "{stderr}");
}

#[test]
fn ctrl_c_cancels_the_run_and_waits_for_its_end() {
    let mut end = run("cancelled");
    end["exit"] = json!(130);
    let fake = Fake::start(&[
        ("run.start", vec![Step::Answer(run("running"))]),
        (
            "run.subscribe",
            vec![
                Step::Answer(json!(7)),
                Step::Item(text(0, 1, "Working.")),
                Step::Await("run.cancel"),
                Step::Item(text(1, 2, "Told to stop.")),
                Step::Item(json!({ "end": end })),
            ],
        ),
        ("run.cancel", vec![Step::Answer(end.clone())]),
    ]);
    let mut child = vcodingctl::spawned(&fake, &["-w", "shop", "run", "claude", "x"]);
    let mut rest = until(&mut child, "Working.");
    interrupt(&child);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut rest, &mut said).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(said.contains("Told to stop."), "{said}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("cancelling the run") && stderr.contains("■ cancelled"), "{stderr}");
}

#[test]
fn a_second_ctrl_c_stops_waiting_and_says_so() {
    let fake = Fake::start(&[
        ("run.start", vec![Step::Answer(run("running"))]),
        (
            "run.subscribe",
            vec![
                Step::Answer(json!(7)),
                Step::Item(text(0, 1, "Working.")),
                Step::Await("run.cancel"),
                Step::Item(text(1, 2, "It does not stop.")),
                Step::Await("never"),
            ],
        ),
        ("run.cancel", vec![]),
    ]);
    let mut child = vcodingctl::spawned(&fake, &["-w", "shop", "run", "claude", "x"]);
    let rest = until(&mut child, "Working.");
    interrupt(&child);
    child.stdout = Some(rest.into_inner());
    let rest = until(&mut child, "It does not stop.");
    interrupt(&child);
    drop(rest);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("was asked to end and may still be there"), "{stderr}");
    assert!(stderr.contains("hint: vcodingctl logs -f 07x4k2q9"), "{stderr}");
}

#[test]
fn ctrl_c_leaves_a_run_alone_whose_log_is_followed() {
    let fake = Fake::start(&[
        ("run.show", vec![Step::Answer(run("running"))]),
        ("run.subscribe", vec![Step::Answer(json!(7)), Step::Item(text(0, 1, "Working.")), Step::Await("never")]),
    ]);
    let mut child = vcodingctl::spawned(&fake, &["logs", "-f", RUN]);
    let rest = until(&mut child, "Working.");
    interrupt(&child);
    drop(rest);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8(output.stderr).unwrap().contains("goes on"));
    assert!(fake.calls().iter().all(|(method, _)| method != "run.cancel"));
}

#[test]
fn a_restart_of_the_daemon_is_followed_across_without_gap_or_repetition() {
    let fake = Fake::start(&[
        ("run.show", vec![Step::Answer(run("running"))]),
        ("run.subscribe", vec![Step::Answer(json!(7)), Step::Item(text(0, 1, "One.")), Step::HangUp]),
        (
            "run.subscribe",
            vec![
                Step::Answer(json!(7)),
                Step::Item(text(0, 1, "One.")),
                Step::Item(text(1, 2, "Two.")),
                Step::Item(json!({"end": run("succeeded")})),
            ],
        ),
    ]);
    let output = vcodingctl::piped(&fake, &["logs", "-f", RUN]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "│ One.\n\n│ Two.\n");
    assert!(String::from_utf8(output.stderr).unwrap().contains("the daemon went away"));
    let (_, params) = fake.calls().pop().unwrap();
    assert_eq!(params["from"], json!([0, 1]));
}

#[test]
fn ctrl_c_stops_waiting_for_a_long_operation_and_says_that_it_goes_on() {
    let started = json!({"step": "image", "state": "started"});
    let fake = Fake::start(&[("workspace.up", vec![Step::Progress(started), Step::Await("never")])]);
    let project = fake.directory.path().to_str().unwrap().to_owned();
    let mut child = vcodingctl::spawned(&fake, &["-v", "--project", &project, "up"]);
    let mut rest = seen(child.stderr.take().unwrap(), "image");
    interrupt(&child);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut rest, &mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let hint = format!("hint: vcodingctl --project {project} show\n");
    assert_eq!(said, format!("error: interrupted; the daemon goes on making the workspace\n{hint}"));
}

#[test]
fn ctrl_c_before_there_is_a_run_cancels_it_as_soon_as_there_is_one() {
    let mut end = run("cancelled");
    end["exit"] = json!(130);
    let fetching = json!({"step": "agent", "state": "started"});
    let fake = Fake::start(&[
        ("run.start", vec![Step::Progress(fetching), Step::Gate, Step::Answer(run("running"))]),
        ("run.subscribe", vec![Step::Answer(json!(7)), Step::Await("run.cancel"), Step::Item(json!({ "end": end }))]),
        ("run.cancel", vec![Step::Answer(end.clone())]),
    ]);
    let mut child = vcodingctl::spawned(&fake, &["-v", "-w", "shop", "run", "claude", "x"]);
    let stderr = seen(child.stderr.take().unwrap(), "agent");
    interrupt(&child);
    let stderr = seen(stderr, "cancelled as soon as it has started");
    fake.open_gate();
    drop(stderr);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(fake.calls().iter().any(|(method, _)| method == "run.cancel"));
}
