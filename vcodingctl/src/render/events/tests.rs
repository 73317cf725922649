use serde_json::{Value, json};

use super::*;

const HOSTILE: &str = "a\u{1b}]52;c;x\u{7}\r\n\u{9b}2J\u{202e}b\tc\u{0}";

fn event(body: &Value) -> Event {
    let mut event = json!({
        "seq": [0, 0], "time": "2026-11-24T16:00:00.000Z",
        "workspace": "01jd0000000000000000000000", "run": "01jd0000000000000000000001",
    });
    event.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    serde_json::from_value(event).unwrap()
}

fn call(id: &str, name: &str) -> Value {
    json!({"type": "tool-call", "id": id, "name": name, "summary": format!("{name} {id}"), "input": {}})
}

fn result(id: &str) -> Value {
    json!({"type": "tool-result", "id": id, "ok": true, "output": "fine"})
}

fn edit(path: &str) -> Value {
    json!({"type": "edit", "path": path, "added": 3, "deleted": 1})
}

/// The lines of these events, and of the calm after them.
fn lines(bodies: &[Value]) -> Vec<String> {
    let mut renderer = Renderer::new(Ink(false), None, false);
    let mut pieces: Vec<Piece> = bodies.iter().flat_map(|b| renderer.event(&event(b))).collect();
    pieces.extend(renderer.idle());
    pieces.into_iter().filter_map(|p| if let Piece::Line(line) = p { Some(line) } else { None }).collect()
}

#[test]
fn an_edit_is_told_once_whichever_event_comes_first() {
    let told = ["  ✓ Edit   x.py +3 −1"];
    assert_eq!(lines(&[call("1", "Edit"), result("1"), edit("x.py")]), told);
    assert_eq!(lines(&[call("1", "Edit"), edit("x.py"), result("1")]), told);
    assert_eq!(lines(&[call("1", "Edit"), result("1")]), ["  ✓ Edit   Edit 1"], "without an event of its own");
}

#[test]
fn paths_are_the_projects_own_and_commands_are_as_they_were() {
    let read = json!({"type": "tool-call", "id": "1", "name": "Read", "summary": "/work/a.py", "input": {}});
    let bash = json!({"type": "tool-call", "id": "2", "name": "Bash", "summary": "/work/a.py", "input": {}});
    let seen = lines(&[read, result("1"), bash, result("2"), edit("/work/x.py"), edit("/etc/x")]);
    assert_eq!(seen, ["  ✓ Read   a.py", "  ✓ Bash   /work/a.py", "  ✓ Edit   x.py +3 −1", "  ✓ Edit   /etc/x +3 −1"]);
}

#[test]
fn calls_that_overlap_are_told_as_they_end() {
    let seen = lines(&[call("1", "Bash"), call("2", "Read"), result("2"), result("1")]);
    assert_eq!(seen, ["  ✓ Read   Read 2", "  ✓ Bash   Bash 1"]);
}

#[test]
fn a_result_without_its_call_is_shown_nevertheless() {
    assert_eq!(lines(&[result("9")]), ["  ✓ tool"]);
}

#[test]
fn the_last_words_are_said_once() {
    let text = json!({"type": "text", "text": "Done.\n"});
    let finished = |text: &str| json!({"type": "finished", "ok": true, "text": text});
    assert_eq!(lines(&[text.clone(), finished("Done.")]), ["│ Done."]);
    assert_eq!(lines(&[text, finished("Something else.")]), ["│ Done.", "", "│ Something else."]);
}

/// Everything that an agent says, and every line of it.
#[test]
fn an_agents_words_never_look_like_a_line_of_ours() {
    let fake = "all is well\n✓ succeeded  1.2 s\u{2028}✓ succeeded\n\n  ✓ Bash   true\r\nerror: no\u{85}next: rm";
    let bodies = [
        json!({"type": "text", "text": fake}),
        json!({"type": "text", "text": format!("```\n{fake}\n{}✓ succeeded\n```", "x".repeat(18))}),
        json!({"type": "thinking", "text": fake}),
        json!({"type": "finished", "ok": false, "text": format!("{fake} again")}),
    ];
    for columns in [None, Some(20), Some(80), Some(200)] {
        let mut renderer = Renderer::new(Ink(false), columns, true);
        for Piece::Line(line) | Piece::Status(line) in bodies.iter().flat_map(|b| renderer.event(&event(b))) {
            assert!(line.is_empty() || line.starts_with('│') || line.starts_with("  ~"), "{line:?}");
            assert!(columns.is_none_or(|columns| width(&line) <= columns), "{line:?}");
        }
    }
    let session = json!({"type": "session", "session": "s", "model": "✓ succeeded  1.2 s"});
    let call = json!({"type": "tool-call", "id": "1", "name": "x ".repeat(400), "summary": "y", "input": {}});
    let seen = lines(&[session, call, result("1")]);
    assert_eq!(seen[0], "  · ✓ succeeded  1.2 s");
    assert!(width(&seen[1]) < 40, "{seen:?}");
}

#[test]
fn a_figure_that_cannot_be_is_not_shown() {
    assert_eq!([dollars(0.0412), dollars(12.0), dollars(-0.0)], ["$0.0412", "$12.00", "$0.0000"]);
    for odd in [1e308, -1.0, f64::NAN, f64::INFINITY, 1e6 + 1.0] {
        assert_eq!(dollars(odd), "$?");
    }
    let mut renderer = Renderer::new(Ink(false), None, false);
    renderer.event(&event(&json!({"type": "finished", "ok": true, "text": "", "cost_usd": 1e308, "turns": u64::MAX})));
    let run = serde_json::from_value(json!({
        "id": "01jd0000000000000000000001", "workspace": "01jd0000000000000000000000", "workspace_name": "shop",
        "agent": "claude", "title": "x", "state": "succeeded", "started": "2026-11-24T16:00:00.000Z",
    }));
    assert_eq!(renderer.end(&run.unwrap(), Ink(false)), "✓ succeeded  $?");
}

#[test]
fn only_so_many_calls_are_remembered() {
    let mut renderer = Renderer::new(Ink(false), Some(80), false);
    for n in 0..10_000 {
        renderer.event(&event(&call(&n.to_string(), "Bash")));
    }
    assert_eq!(renderer.calls.len(), MOST_CALLS);
}

#[test]
fn nothing_in_an_event_drives_the_terminal_at_any_width() {
    let bodies = [
        json!({"type": "session", "session": HOSTILE, "model": HOSTILE, "version": HOSTILE}),
        json!({"type": "text", "text": HOSTILE}),
        json!({"type": "thinking", "text": HOSTILE}),
        json!({"type": "tool-call", "id": HOSTILE, "name": HOSTILE, "summary": HOSTILE, "input": {}}),
        json!({"type": "tool-result", "id": HOSTILE, "ok": false, "output": HOSTILE}),
        json!({"type": "tool-call", "id": "open", "name": HOSTILE, "summary": HOSTILE, "input": {}}),
        edit(HOSTILE),
        json!({"type": "plan", "steps": [{"text": HOSTILE, "state": "in-progress"}]}),
        json!({"type": "plan", "steps": [{"text": HOSTILE, "state": "in-progress"}]}),
        json!({"type": "retry", "attempt": 1, "of": 2, "wait_ms": 3, "why": HOSTILE}),
        json!({"type": "output", "stream": "stdout", "text": HOSTILE}),
        json!({"type": "dropped", "bytes": u64::MAX}),
    ];
    let finished = json!({"type": "finished", "ok": false, "text": HOSTILE});
    for columns in [None, Some(0), Some(1), Some(10), Some(80)] {
        let mut renderer = Renderer::new(Ink(false), columns, true);
        let mut pieces: Vec<Piece> = bodies.iter().flat_map(|b| renderer.event(&event(b))).collect();
        pieces.extend(renderer.status().map(Piece::Status));
        pieces.extend(renderer.event(&event(&finished)));
        for piece in pieces {
            let (Piece::Line(text) | Piece::Status(text)) = piece;
            assert!(!text.contains(super::super::text::harmful) && !text.contains('\n'), "{text:?}");
        }
    }
}
