//! What stands on a report's page: a run's events folded into steps, its patch cut into files. Text only; the template escapes it.

use protocol::event::{Event, EventBody, PlanState};
use protocol::run::{RunReport, RunState};
use protocol::{Timestamp, checkpoint::DiffResult};
use serde::Serialize;

use crate::render::events::dollars;
use crate::render::text::{between, brief, changes, clean, counted, short_checkpoint, short_run, word};

/// Of a tool's or a command's output so much is shown: the end.
const OUTPUT: usize = 32 << 10;
/// Lines of a patch.
const LINES: usize = 20_000;
/// A file with more lines than this is folded up.
const LONG: usize = 400;
/// Output of more lines than this is folded up.
const TALL: usize = 40;

#[derive(Debug, Serialize)]
pub struct Page {
    title: String,
    who: String,
    workspace: String,
    state: String,
    tone: &'static str,
    facts: Vec<String>,
    problem: Option<String>,
    prompt: Option<String>,
    items: Vec<Item>,
    files: Vec<FileChange>,
    nothing_changed: &'static str,
    notes: Vec<String>,
    checkpoints: Vec<Checkpoint>,
    undo: Option<String>,
    run: String,
    started: String,
}

/// A step of the timeline; what a kind has no use for is empty.
#[derive(Debug, Default, Serialize)]
struct Item {
    kind: &'static str,
    time: String,
    text: String,
    tone: &'static str,
    mark: &'static str,
    name: String,
    took: Option<String>,
    edits: Vec<Edit>,
    output: String,
    lines: String,
    open: bool,
    steps: Vec<Step>,
    #[serde(skip)]
    call: Option<(String, Timestamp)>,
}

#[derive(Debug, Serialize)]
struct Edit {
    path: String,
    added: u64,
    deleted: u64,
}

#[derive(Debug, Serialize)]
struct Step {
    text: String,
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct FileChange {
    path: String,
    status: char,
    counts: bool,
    added: u64,
    deleted: u64,
    open: bool,
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    text: String,
    tone: &'static str,
}

#[derive(Debug, Serialize)]
struct Checkpoint {
    id: String,
    time: String,
    cause: String,
    files: String,
}

impl Page {
    pub fn of(report: &RunReport, events: &[Event], more: bool) -> Self {
        let run = &report.run;
        let mut timeline = Timeline { started: run.started, items: Vec::new(), facts: Vec::new() };
        if more {
            timeline.note("warn", "The run said more before this.");
        }
        for event in events {
            timeline.event(event);
        }
        let mut facts = Vec::new();
        facts.extend(run.ended.map(|ended| brief(between(run.started, ended))));
        facts.extend(timeline.facts);
        facts.extend(run.cost_usd.map(dollars));
        if let (Some(status), None) = (run.status, &run.agent) {
            facts.push(format!("exit status {status}"));
        }
        let short = short_run(&run.id);
        let changed = report.changes.as_ref();
        let files = changed.map(files).unwrap_or_default();
        Self {
            title: clean(if run.title.is_empty() { "a run" } else { &run.title }).into_owned(),
            who: clean(run.agent.as_deref().unwrap_or("a command")).into_owned(),
            workspace: run.workspace_name.to_string(),
            state: word(run.state),
            tone: match run.state {
                RunState::Succeeded => "good",
                RunState::Starting | RunState::Running | RunState::Cancelled => "warn",
                _ => "bad",
            },
            facts,
            problem: run.problem.as_deref().map(|problem| clean(problem).into_owned()),
            prompt: report.prompt.as_deref().map(|prompt| clean(prompt.trim()).into_owned()),
            items: timeline.items,
            nothing_changed: if changed.is_some() {
                "No file was changed."
            } else {
                "What was changed is not known: there is no checkpoint of its end, or its workspace is gone."
            },
            notes: notes(changed),
            undo: (!files.is_empty()).then(|| format!("vcodingctl rollback run:{short}^")),
            files,
            checkpoints: report
                .checkpoints
                .iter()
                .map(|checkpoint| Checkpoint {
                    id: short_checkpoint(&checkpoint.id),
                    time: moment(checkpoint.time),
                    cause: clean(&checkpoint.cause).into_owned(),
                    files: changes(checkpoint.added, checkpoint.changed, checkpoint.deleted),
                })
                .collect(),
            run: short.to_owned(),
            started: moment(run.started),
        }
    }
}

struct Timeline {
    started: Timestamp,
    items: Vec<Item>,
    facts: Vec<String>,
}

impl Timeline {
    fn event(&mut self, event: &Event) {
        let time = self.time(event.time);
        match &event.body {
            EventBody::Session { model, version, .. } => {
                let facts = [model, version].into_iter().flatten().map(|fact| clean(fact).into_owned());
                self.facts.splice(0..0, facts);
            }
            EventBody::Text { text } => self.words("words", time, text),
            EventBody::Thinking { text } => self.words("thinking", time, text),
            EventBody::ToolCall { id, name, summary, .. } => self.items.push(Item {
                kind: "tool",
                time,
                name: clean(name).into_owned(),
                text: clean(inside(summary)).into_owned(),
                tone: "quiet",
                mark: "…",
                call: Some((id.clone(), event.time)),
                ..Item::default()
            }),
            EventBody::ToolResult { id, ok, output } => self.result(event.time, id, *ok, output),
            EventBody::Edit { path, added, deleted } => {
                let edit = Edit { path: clean(inside(&path.to_text())).into_owned(), added: *added, deleted: *deleted };
                match self.items.iter_mut().rev().find(|item| item.kind == "tool") {
                    Some(tool) => tool.edits.push(edit),
                    None => self.note("", &format!("{} +{} −{}", edit.path, edit.added, edit.deleted)),
                }
            }
            EventBody::Plan { steps } => {
                let step = |step: &protocol::event::PlanStep| Step {
                    text: clean(&step.text).into_owned(),
                    state: match step.state {
                        PlanState::Pending => "pending",
                        PlanState::InProgress => "in-progress",
                        PlanState::Done => "done",
                    },
                };
                let steps = steps.iter().map(step).collect();
                self.items.push(Item { kind: "plan", time, steps, ..Item::default() });
            }
            EventBody::Retry { attempt, of, why, .. } => {
                self.note_at(time, "warn", format!("a model request failed, {attempt} of {of}: {}", clean(why)));
            }
            EventBody::Output { text, .. } => self.output(time, &text.to_text()),
            EventBody::Finished { ok, text, turns, input_tokens, output_tokens, .. } => {
                self.facts.extend(turns.map(|turns| counted(turns, "turn")));
                if let (Some(input), Some(output)) = (input_tokens, output_tokens) {
                    self.facts.push(format!("{input} tokens in, {output} out"));
                }
                let said = self.items.iter().rev().any(|item| item.kind == "words" && item.text == clean(text.trim()));
                if !text.trim().is_empty() && !said {
                    let tone = if *ok { "" } else { "bad" };
                    self.note_at(time, tone, clean(text.trim()).into_owned());
                }
            }
            EventBody::Dropped { bytes } => {
                self.note_at(
                    time,
                    "warn",
                    format!("the log is full: {} of output were not kept", counted(*bytes, "byte")),
                );
            }
        }
    }

    /// Since the run's start.
    fn time(&self, at: Timestamp) -> String {
        let seconds = at.unix_ms().saturating_sub(self.started.unix_ms()).max(0) / 1000;
        match seconds / 3600 {
            0 => format!("{}:{:02}", seconds / 60, seconds % 60),
            hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
        }
    }

    fn words(&mut self, kind: &'static str, time: String, text: &str) {
        let text = clean(text.trim()).into_owned();
        if !text.is_empty() {
            self.items.push(Item { kind, time, text, ..Item::default() });
        }
    }

    fn result(&mut self, at: Timestamp, id: &str, ok: bool, output: &str) {
        let open = self.items.iter_mut().rev().find(|item| item.call.as_ref().is_some_and(|(call, _)| call == id));
        let Some(item) = open else { return };
        (item.tone, item.mark) = if ok { ("good", "✓") } else { ("bad", "✗") };
        if let Some((_, since)) = item.call.take() {
            item.took = Some(brief(between(since, at)));
        }
        let (text, cut) = end_of(output.trim_end());
        let lines = text.lines().count();
        item.lines = format!("{}{}", if cut { "the last " } else { "" }, counted(lines as u64, "line"));
        item.open = !ok && lines <= TALL;
        item.output = text;
    }

    fn output(&mut self, time: String, line: &str) {
        let line = clean(line.trim_end_matches(['\n', '\r'])).into_owned();
        match self.items.last_mut() {
            Some(last) if last.kind == "output" && last.text.len() < OUTPUT => {
                last.text.push('\n');
                last.text.push_str(&line);
            }
            _ => self.items.push(Item { kind: "output", time, text: line, ..Item::default() }),
        }
    }

    fn note(&mut self, tone: &'static str, text: &str) {
        self.note_at(String::new(), tone, text.to_owned());
    }

    fn note_at(&mut self, time: String, tone: &'static str, text: String) {
        self.items.push(Item { kind: "note", time, tone, text, ..Item::default() });
    }
}

/// A path as the project calls it.
fn inside(path: &str) -> &str {
    path.strip_prefix("/work/").unwrap_or(path)
}

/// The end of a long text, from the beginning of a line, and whether something is missing.
fn end_of(text: &str) -> (String, bool) {
    if text.len() <= OUTPUT {
        return (clean(text).into_owned(), false);
    }
    let mut from = text.len() - OUTPUT;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let end = &text[from..];
    (clean(end.split_once('\n').map_or(end, |(_, rest)| rest)).into_owned(), true)
}

/// The patch, a file at a time; a file that it has no lines of is named all the same.
fn files(diff: &DiffResult) -> Vec<FileChange> {
    let patch = diff.patch.to_text();
    let mut texts: Vec<Vec<Line>> = Vec::new();
    let mut left = (0, 0);
    for line in patch.lines().take(LINES) {
        let in_hunk = left != (0, 0);
        let tone = crate::render::patch::tone(line, &mut left);
        if !in_hunk && line.starts_with("diff --git ") {
            texts.push(Vec::new());
        } else if let Some(file) = texts.last_mut()
            && (in_hunk || tone == "hunk")
        {
            file.push(Line { text: clean(line).into_owned(), tone });
        }
    }
    let mut texts = texts.into_iter();
    diff.files
        .iter()
        .map(|file| {
            let lines = texts.next().unwrap_or_default();
            FileChange {
                path: clean(&file.path.to_text()).into_owned(),
                status: file.status,
                counts: file.added.is_some(),
                added: file.added.unwrap_or(0),
                deleted: file.deleted.unwrap_or(0),
                open: lines.len() <= LONG,
                lines,
            }
        })
        .collect()
}

fn notes(diff: Option<&DiffResult>) -> Vec<String> {
    let Some(diff) = diff else { return Vec::new() };
    let mut notes: Vec<String> = diff.notes.iter().map(|note| clean(note).into_owned()).collect();
    if diff.truncated || diff.patch.to_text().lines().nth(LINES).is_some() {
        notes.push("There is more than is shown here: vcodingctl diff has all of it.".to_owned());
    }
    notes
}

/// To the second, UTC.
fn moment(time: Timestamp) -> String {
    let text = time.to_string();
    format!("{} UTC", text.split('.').next().unwrap_or(&text).replace('T', " "))
}

#[cfg(test)]
mod tests {
    use protocol::Bytes;
    use protocol::event::OutputStream;
    use serde_json::json;

    use super::*;

    fn report() -> RunReport {
        let run = json!({"id": "01jd0000000000000000000001", "workspace": "01jd0000000000000000000000", "workspace_name": "shop",
            "agent": "claude", "title": "fix it", "state": "succeeded", "started": "2026-11-28T12:00:00.000Z",
            "ended": "2026-11-28T12:01:05.000Z"});
        let changes = json!({"from": "a", "to": "b", "truncated": false, "notes": [],
            "files": [{"path": "a.txt", "status": "M", "added": 1, "deleted": 1}, {"path": "new", "status": "A"}],
            "patch": "diff --git a/a.txt b/a.txt\n--- a/a.txt\n+++ b/a.txt\n@@ -1,2 +1,2 @@\n-diff --git x\n+two\n same\ndiff --git a/new b/new\n"});
        serde_json::from_value(json!({"run": run, "prompt": "fix <it>", "changes": changes, "checkpoints": []}))
            .unwrap()
    }

    fn event(second: i64, body: EventBody) -> Event {
        Event {
            seq: [0, 0],
            time: Timestamp::from_unix_ms(report().run.started.unix_ms() + second * 1000),
            workspace: "01jd0000000000000000000000".parse().unwrap(),
            run: "01jd0000000000000000000001".parse().unwrap(),
            body,
        }
    }

    fn page(events: &[Event]) -> serde_json::Value {
        serde_json::to_value(Page::of(&report(), events, false)).unwrap()
    }

    #[test]
    fn a_tool_and_what_came_of_it_are_one_step() {
        let call = |id: &str| EventBody::ToolCall {
            id: id.into(),
            name: "Bash".into(),
            summary: "make".into(),
            input: json!({}),
        };
        let result = |id: &str, ok| EventBody::ToolResult { id: id.into(), ok, output: "one\ntwo\n".into() };
        let edit = EventBody::Edit { path: Bytes(b"a.txt".to_vec()), added: 2, deleted: 1 };
        let page = page(&[
            event(1, call("a")),
            event(2, edit),
            event(2, call("b")),
            event(5, result("a", true)),
            event(65, result("b", false)),
        ]);
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), 2);
        assert_eq!(
            (&items[0]["mark"], &items[0]["took"], &items[0]["edits"][0]["added"]),
            (&json!("✓"), &json!("4.0 s"), &json!(2))
        );
        assert_eq!(
            (&items[1]["mark"], &items[1]["time"], &items[1]["open"]),
            (&json!("✗"), &json!("0:02"), &json!(true))
        );
        assert_eq!(items[1]["lines"], "2 lines");
    }

    #[test]
    fn a_patch_is_cut_into_its_files_by_its_hunks_and_not_by_what_stands_in_them() {
        let page = page(&[]);
        let files = page["files"].as_array().unwrap();
        let tones: Vec<_> = files[0]["lines"].as_array().unwrap().iter().map(|l| l["tone"].as_str().unwrap()).collect();
        assert_eq!(tones, ["hunk", "deleted", "added", ""]);
        assert_eq!((&files[1]["path"], files[1]["lines"].as_array().unwrap().len()), (&json!("new"), 0));
    }

    #[test]
    fn of_much_output_the_end_is_kept_and_lines_of_a_command_are_one_block() {
        let line =
            |text: &str| EventBody::Output { stream: OutputStream::Stdout, text: Bytes(text.as_bytes().to_vec()) };
        let page = page(&[event(0, line("a\n")), event(0, line("b\u{1b}[31mc"))]);
        assert_eq!((page["items"].as_array().unwrap().len(), &page["items"][0]["text"]), (1, &json!("a\nbc")));
        let (text, cut) = end_of(&"0123456789\n".repeat(10_000));
        assert!(cut && text.len() <= OUTPUT && text.starts_with('0'));
        assert_eq!(end_of("short"), ("short".to_owned(), false));
    }

    #[test]
    fn nothing_of_a_guests_is_markup() {
        let evil = "<script>alert(1)</script><img src=x onerror=alert(1)> {{ 7 * 7 }} \u{202e}";
        let events = [
            EventBody::Text { text: evil.into() },
            EventBody::Thinking { text: evil.into() },
            EventBody::ToolCall { id: evil.into(), name: evil.into(), summary: evil.into(), input: json!({}) },
            EventBody::ToolResult { id: evil.into(), ok: false, output: evil.into() },
            EventBody::Edit { path: Bytes(evil.as_bytes().to_vec()), added: 1, deleted: 1 },
            EventBody::Plan { steps: vec![protocol::event::PlanStep { text: evil.into(), state: PlanState::Done }] },
            EventBody::Retry { attempt: 1, of: 2, wait_ms: 3, why: evil.into() },
            EventBody::Output { stream: OutputStream::Stderr, text: Bytes(evil.as_bytes().to_vec()) },
            EventBody::Finished {
                ok: false,
                text: format!("end {evil}"),
                cost_usd: None,
                turns: None,
                input_tokens: None,
                output_tokens: None,
            },
        ];
        let events: Vec<Event> = events.into_iter().map(|body| event(0, body)).collect();
        let mut report = report();
        report.prompt = Some(evil.into());
        report.run.title = evil.into();
        report.run.problem = Some(evil.into());
        let html = templates::report(&Page::of(&report, &events, true)).unwrap();
        assert!(!html.contains("<script") && !html.contains("<img") && !html.contains('\u{202e}'), "{html}");
        assert!(html.contains("{{ 7 * 7 }}") && html.matches("&lt;script&gt;").count() > 10, "{html}");
        assert!(html.contains("default-src 'none'; style-src 'sha256-") && !html.contains("http:"), "{html}");
    }
}
