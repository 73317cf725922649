//! The parsers against real outputs and against a stranger's.

use guest::run::Stream;
use proptest::prelude::*;
use protocol::event::{EventBody, PlanState};
use serde_json::{Value, json};

use super::*;

/// Real outputs of Claude Code 2.1.329, without what no parser reads.
const OUTPUTS: &[(&str, &str)] = &[
    ("401", include_str!("testdata/claude-401.jsonl")),
    ("500-then-ok", include_str!("testdata/claude-500-then-ok.jsonl")),
    ("cut-always", include_str!("testdata/claude-cut-always.jsonl")),
    ("edit", include_str!("testdata/claude-edit.jsonl")),
    ("hook-deny", include_str!("testdata/claude-hook-deny.jsonl")),
    ("noperm", include_str!("testdata/claude-noperm.jsonl")),
    ("partial", include_str!("testdata/claude-partial.jsonl")),
    ("patch", include_str!("testdata/claude-patch.jsonl")),
    ("refused", include_str!("testdata/claude-refused.jsonl")),
    ("resume-unknown-id", include_str!("testdata/claude-resume-unknown-id.jsonl")),
    ("shellfix", include_str!("testdata/claude-shellfix.jsonl")),
    ("sigint-stream", include_str!("testdata/claude-sigint-stream.jsonl")),
    ("sigint-tool", include_str!("testdata/claude-sigint-tool.jsonl")),
    ("sigterm-tool", include_str!("testdata/claude-sigterm-tool.jsonl")),
];

fn output(name: &str) -> &'static str {
    OUTPUTS.iter().find(|(found, _)| *found == name).unwrap().1
}

fn parse(text: &str) -> (Vec<EventBody>, Verdict) {
    let mut parser = parser(Format::ClaudeStreamJson);
    let events = text.lines().flat_map(|line| parser.line(Stream::Out, line.as_bytes())).collect();
    (events, parser.verdict())
}

fn one(line: &Value) -> Vec<EventBody> {
    parser(Format::ClaudeStreamJson).line(Stream::Out, line.to_string().as_bytes())
}

/// With `VCODING_BLESS=1` the events are written anew, to be read before they are committed.
#[test]
fn real_outputs_become_the_events_that_were_read_and_found_right() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/agents/testdata");
    for (name, text) in OUTPUTS {
        let (events, verdict) = parse(text);
        let mut found: String = events.iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect();
        found.push_str(&format!("{verdict:?}\n"));
        let path = dir.join(format!("claude-{name}.events"));
        if std::env::var_os("VCODING_BLESS").is_some() {
            std::fs::write(&path, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_verdict_is_good_only_if_the_agent_said_so_and_names_the_endpoint_when_it_was_that() {
    let row = |name: &str| {
        let (_, verdict) = parse(output(name));
        (verdict.finished, verdict.endpoint_failed, verdict.interrupted)
    };
    for good in ["edit", "shellfix", "patch", "500-then-ok", "cut-always", "hook-deny", "noperm", "partial"] {
        assert_eq!(row(good), (Some(true), false, false), "{good}");
    }
    for endpoint in ["401", "refused"] {
        assert_eq!(row(endpoint), (Some(false), true, false), "{endpoint}");
    }
    for interrupted in ["sigint-stream", "sigint-tool"] {
        assert_eq!(row(interrupted), (Some(false), false, true), "{interrupted}");
    }
    assert_eq!(row("resume-unknown-id"), (Some(false), false, false));
    assert_eq!(row("sigterm-tool"), (None, false, false));
}

/// The stream ends while a bad key looks like thought.
#[test]
fn an_agent_that_ended_while_it_was_trying_again_failed_by_its_endpoint() {
    let text = output("401");
    let at = text.find(r#"{"type":"assistant""#).unwrap();
    let (events, verdict) = parse(&text[..at]);
    assert!(matches!(events.last(), Some(EventBody::Retry { attempt: 10, of: 10, .. })), "{events:?}");
    assert_eq!((verdict.finished, verdict.endpoint_failed), (None, true));
    assert!(verdict.session.is_some());

    // An answer came in the end, so it was not the endpoint that ended this one.
    let text = output("500-then-ok");
    let (_, verdict) = parse(&text[..text.find(r#"{"type":"user""#).unwrap()]);
    assert_eq!((verdict.finished, verdict.endpoint_failed), (None, false));
}

#[test]
fn a_result_that_does_not_say_that_all_is_well_is_not_well() {
    for result in [
        json!({"type": "result", "subtype": "success"}),
        json!({"type": "result", "subtype": "success", "is_error": "false"}),
        json!({"type": "result", "is_error": false}),
        json!({"type": "result", "subtype": "error_max_turns", "is_error": false}),
    ] {
        assert!(matches!(one(&result)[..], [EventBody::Finished { ok: false, .. }]), "{result}");
    }
}

#[test]
fn edits_are_counted_from_the_patch_and_a_new_file_by_its_lines() {
    let edits = |name: &str| -> Vec<(String, u64, u64)> {
        let events = parse(output(name)).0.into_iter();
        events
            .filter_map(|event| match event {
                EventBody::Edit { path, added, deleted } => Some((path.to_text().into_owned(), added, deleted)),
                _ => None,
            })
            .collect()
    };
    assert_eq!(edits("patch"), [("/work/shop/cart.py".into(), 1, 1), ("/work/shop/__init__.py".into(), 2, 1)]);
    assert_eq!(edits("edit"), [("/work-tree/new.txt".into(), 1, 0)]);
    assert_eq!(edits("noperm"), [], "what was denied was not edited");
}

#[test]
fn a_list_of_steps_is_a_plan_and_an_unknown_tool_shows_its_first_text() {
    let call = |name: &str, input: &Value| {
        one(&json!({"type": "assistant", "message": {"content": [
            {"type": "tool_use", "id": "t", "name": name, "input": input},
        ]}}))
    };
    let events = call(
        "TodoWrite",
        &json!({"todos": [
            {"content": "a\nb", "status": "completed"},
            {"content": "c", "status": "in_progress"},
            {"content": "d", "status": "?"},
        ]}),
    );
    let [EventBody::ToolCall { .. }, EventBody::Plan { steps }] = &events[..] else { panic!("{events:?}") };
    let steps: Vec<_> = steps.iter().map(|step| (step.text.as_str(), step.state)).collect();
    assert_eq!(steps, [("a", PlanState::Done), ("c", PlanState::InProgress), ("d", PlanState::Pending)]);
    for (name, input, expected) in [
        ("Bash", json!({"description": "say", "command": "echo 1\necho 2"}), "echo 1"),
        ("Grep", json!({"path": "src", "pattern": "a.b"}), "a.b"),
        ("Edit", json!({"file_path": "/work/x", "old_string": "y"}), "/work/x"),
        ("mcp__db__query", json!({"limit": 1, "sql": "select"}), "select"),
        ("Bash", json!(null), ""),
    ] {
        let events = call(name, &input);
        let [EventBody::ToolCall { summary, .. }] = &events[..] else { panic!("{events:?}") };
        assert_eq!(summary, expected, "{name}");
    }
}

#[test]
fn what_is_no_event_is_output_and_what_is_unknown_is_silence() {
    let mut parser = parser(Format::ClaudeStreamJson);
    let mut kinds = |stream: Stream, line: &[u8]| -> usize {
        let events = parser.line(stream, line);
        assert!(events.iter().all(|event| matches!(event, EventBody::Output { .. })), "{events:?}");
        events.len()
    };
    let deep = "[".repeat(100_000);
    let nested = format!(r#"{{"type":{}1{}}}"#, "[".repeat(300), "]".repeat(300));
    for line in
        [&b"Warning: x"[..], b"\xff", b"null", b"3", b"[]", b"{}", b"{\"type\":3}", deep.as_bytes(), nested.as_bytes()]
    {
        assert_eq!(kinds(Stream::Out, line), 1, "{}", String::from_utf8_lossy(&line[..line.len().min(40)]));
    }
    assert_eq!(kinds(Stream::Err, br#"{"type":"result","is_error":false,"subtype":"success"}"#), 1);
    assert_eq!(kinds(Stream::Out, br#"{"type":"of tomorrow"}"#), 0);
    assert_eq!(kinds(Stream::Out, b"  "), 0);
    let long = [br#"{"type":"result","result":""#, vec![b'x'; MAX_LINE].as_slice(), br#""}"#].concat();
    assert_eq!(kinds(Stream::Out, &long), 1);
    let [EventBody::Output { text, .. }] = &parser.line(Stream::Out, &long)[..] else { panic!("one line of output") };
    assert_eq!(text.0, long[..MAX_STRING]);
    assert_eq!(parser.verdict(), Verdict::default());
}

fn assert_bounds(events: &[EventBody]) {
    assert!(events.len() <= MAX_EVENTS);
    for event in events {
        match event {
            EventBody::Text { text } | EventBody::Thinking { text } | EventBody::Finished { text, .. } => {
                assert!(text.len() <= MAX_TEXT);
            }
            EventBody::ToolCall { id, name, summary, input } => {
                assert!(id.len().max(name.len()).max(summary.len()) <= 240);
                assert!(!summary.contains(char::is_control));
                assert_strings(input);
            }
            EventBody::ToolResult { id, output, .. } => assert!(id.len() <= 240 && output.len() <= MAX_OUTPUT),
            EventBody::Edit { path, .. } => assert!(path.0.len() <= 4096),
            EventBody::Plan { steps } => {
                assert!(steps.iter().all(|s| s.text.len() <= 240) && steps.len() <= MAX_EVENTS);
            }
            EventBody::Retry { why, .. } => assert!(why.len() <= 1024),
            EventBody::Output { text, .. } => assert!(text.0.len() <= MAX_TEXT),
            EventBody::Session { session, model, version } => {
                assert!([session, model, version].into_iter().flatten().all(|text| text.len() <= 240));
            }
            EventBody::Dropped { .. } => {}
        }
        serde_json::to_string(event).unwrap();
    }
}

fn assert_strings(value: &Value) {
    match value {
        Value::String(text) => assert!(text.len() <= MAX_STRING),
        Value::Array(items) => items.iter().for_each(assert_strings),
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            assert!(name.len() <= MAX_STRING);
            assert_strings(value);
        }),
        _ => {}
    }
}

#[test]
fn long_texts_and_many_blocks_are_cut_the_end_of_a_result_is_kept() {
    let long = "ä".repeat(400_000);
    let events = one(&json!({"type": "assistant", "message": {"content": [
        {"type": "text", "text": long},
        {"type": "tool_use", "id": "x".repeat(999), "name": "Bash".repeat(99), "input": {"command": "y".repeat(99_999)}},
    ]}}));
    assert_eq!(events.len(), 2);
    assert_bounds(&events);
    let text = format!("{}THE END", "z".repeat(200_000));
    let events = one(&json!({"type": "user", "message": {"content": [
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": text}, {"type": "image"}]},
    ]}}));
    assert_bounds(&events);
    let [EventBody::ToolResult { output, .. }] = &events[..] else { panic!("{events:?}") };
    assert!(output.ends_with("THE END\n[image]"));
    let blocks: Vec<Value> = (0..9999).map(|_| json!({"type": "text", "text": "x"})).collect();
    assert_bounds(&one(&json!({"type": "assistant", "message": {"content": blocks}})));
}

/// Any value, small, with the names and words that the parser looks for.
fn value() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "assistant",
        "user",
        "result",
        "system",
        "init",
        "api_retry",
        "success",
        "text",
        "tool_use",
        "tool_result",
        "thinking",
        "create",
        "Bash",
        "TodoWrite",
        "+",
        "-x",
        "\u{1b}[2J",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words.prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
    ];
    let names = prop::sample::select(vec![
        "type",
        "subtype",
        "message",
        "content",
        "tool_use_result",
        "structuredPatch",
        "lines",
        "filePath",
        "input",
        "todos",
        "text",
        "name",
        "id",
        "usage",
        "input_tokens",
        "is_error",
        "result",
        "errors",
        "retry_delay_ms",
        "session_id",
        "x",
    ]);
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..6)
                .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

/// A real line in which one value, somewhere, has become another.
fn swapped() -> impl Strategy<Value = Value> {
    let lines: Vec<Value> =
        OUTPUTS.iter().flat_map(|(_, text)| text.lines()).filter_map(|line| serde_json::from_str(line).ok()).collect();
    (prop::sample::select(lines), prop::collection::vec(any::<prop::sample::Index>(), 1..7), value()).prop_map(
        |(mut line, way, value)| {
            let mut at = &mut line;
            for step in way {
                let next = match at {
                    Value::Array(items) if !items.is_empty() => step.index(items.len()),
                    Value::Object(fields) if !fields.is_empty() => step.index(fields.len()),
                    _ => break,
                };
                at = match at {
                    Value::Array(items) => &mut items[next],
                    Value::Object(fields) => fields.values_mut().nth(next).unwrap(),
                    _ => unreachable!("looked at above"),
                };
            }
            *at = value;
            line
        },
    )
}

proptest! {
    #[test]
    fn any_bytes_give_bounded_events(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)) {
        let mut parser = parser(Format::ClaudeStreamJson);
        for line in lines {
            assert_bounds(&parser.line(Stream::Out, &line));
        }
        let _ = parser.verdict();
    }

    #[test]
    fn any_json_and_any_change_to_a_real_line_give_bounded_events_and_the_same_ones_again(
        lines in prop::collection::vec(prop_oneof![value(), swapped()], 1..12),
    ) {
        let (mut first, mut again) = (parser(Format::ClaudeStreamJson), parser(Format::ClaudeStreamJson));
        for line in lines {
            let line = line.to_string();
            let events = first.line(Stream::Out, line.as_bytes());
            assert_bounds(&events);
            prop_assert_eq!(events, again.line(Stream::Out, line.as_bytes()));
        }
        prop_assert_eq!(first.verdict(), again.verdict());
    }
}
