//! A run's events, for people: words as paragraphs behind a bar, a tool's use as one line with its
//! outcome, a failure with the end of what it said.
//!
//! What an agent says stands behind a bar on every line, with colour or without: whatever its words
//! are, they do not look like a line of ours, also where a terminal would have broken one.

use std::collections::VecDeque;
use std::time::Instant;

use protocol::event::{Event, EventBody, PlanState, PlanStep};
use protocol::run::{RunState, RunView};
use protocol::{Bytes, Timestamp};

use super::ink::{Ink, Style};
use super::text::{between, brief, broken, clean, counted, delta, one_line, output_line, shortened, width, wrapped};

/// What is to be done with a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A line for standard output.
    Line(String),
    /// A state that passes.
    Status(String),
}

/// Lines longer than this are hard to read, however wide the terminal.
const WIDEST: usize = 100;
/// Before each line of what an agent says.
const BAR: &str = "│ ";
/// A tool's name, in columns.
const NAME: usize = 24;
/// More of them are no figure but a lie.
const MOST_TURNS: u64 = 1_000_000;
/// And as much money.
const MOST_DOLLARS: f64 = 1e6;
/// So many calls may be open at once; older ones are forgotten.
const MOST_CALLS: usize = 64;
/// Lines of a failed tool's output.
const TAIL: usize = 6;
const LONG_TAIL: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Words,
    Tools,
}

#[derive(Debug)]
struct Call {
    id: String,
    name: String,
    summary: String,
    time: Timestamp,
    since: Instant,
    /// An [`EventBody::Edit`] or [`EventBody::Plan`] has told what it did.
    told: bool,
}

/// Turns events into pieces. Knows which calls are open, and what was said last.
#[derive(Debug)]
pub struct Renderer {
    ink: Ink,
    /// Of the terminal; without one nothing is wrapped or cut.
    columns: Option<usize>,
    verbose: bool,
    calls: VecDeque<Call>,
    /// The line of a tool that another event may tell better.
    held: Option<String>,
    last: Last,
    last_words: String,
    plan: Vec<PlanStep>,
    cost: Option<f64>,
    turns: Option<u64>,
    out: Vec<Piece>,
}

impl Renderer {
    pub fn new(ink: Ink, columns: Option<usize>, verbose: bool) -> Self {
        Self {
            ink,
            columns,
            verbose,
            calls: VecDeque::new(),
            held: None,
            last: Last::Nothing,
            last_words: String::new(),
            plan: Vec::new(),
            cost: None,
            turns: None,
            out: Vec::new(),
        }
    }

    /// The terminal has another size.
    pub fn resize(&mut self, columns: Option<usize>) {
        self.columns = columns;
    }

    /// What the event looks like.
    pub fn event(&mut self, event: &Event) -> Vec<Piece> {
        match &event.body {
            EventBody::Session { model, version, .. } => self.session(model.as_deref(), version.as_deref()),
            EventBody::Text { text } => self.words(text),
            EventBody::Thinking { text } => self.thinking(text),
            EventBody::ToolCall { id, name, summary, .. } => self.call(event.time, id, name, summary),
            EventBody::ToolResult { id, ok, output } => self.result(event.time, id, *ok, output),
            EventBody::Edit { path, added, deleted } => self.edit(path, *added, *deleted),
            EventBody::Plan { steps } => self.steps(steps),
            EventBody::Retry { attempt, of, wait_ms, why } => self.retry(*attempt, *of, *wait_ms, why),
            EventBody::Output { text, .. } => self.output(text),
            EventBody::Finished { ok, text, cost_usd, turns, .. } => {
                self.cost = cost_usd.or(self.cost);
                self.turns = turns.or(self.turns);
                self.finished(*ok, text);
            }
            EventBody::Dropped { bytes } => {
                let text = format!("  ! the log is full: {} of output were not kept", counted(*bytes, "byte"));
                let text = self.ink.paint(Style::Yellow, &text);
                self.tool_line(text);
            }
        }
        std::mem::take(&mut self.out)
    }

    /// No further event is at hand: what was held back is shown.
    pub fn idle(&mut self) -> Vec<Piece> {
        if let Some(line) = self.held.take() {
            self.tool_line(line);
        }
        std::mem::take(&mut self.out)
    }

    /// What is going on right now.
    pub fn status(&self) -> Option<String> {
        let call = self.calls.back()?;
        let passed = call.since.elapsed().as_secs();
        let passed = if passed == 0 { String::new() } else { format!(" … {passed} s") };
        let others = if self.calls.len() > 1 { format!(" (and {} more)", self.calls.len() - 1) } else { String::new() };
        let room = self.columns.unwrap_or(80).saturating_sub(width(&passed) + width(&others) + 3);
        Some(format!("  {}{others}{passed}", shortened(&format!("{}: {}", call.name, call.summary), room)))
    }

    /// The last line: how it ended, how long it took, what it cost.
    pub fn end(&mut self, run: &RunView, ink: Ink) -> String {
        let (mark, style, words) = match run.state {
            RunState::Starting | RunState::Running => ("…", Style::Dim, "still running"),
            RunState::Succeeded => ("✓", Style::Green, "succeeded"),
            RunState::Failed => ("✗", Style::Red, "failed"),
            RunState::Cancelled => ("■", Style::Yellow, "cancelled"),
            RunState::TimedOut => ("✗", Style::Red, "ended at its time limit"),
            RunState::Endpoint => ("✗", Style::Red, "failed at the model endpoint"),
            RunState::Budget => ("✗", Style::Red, "ended at its budget"),
            RunState::Lost => ("✗", Style::Red, "lost"),
            RunState::Tampered => ("✗", Style::Red, "tampered with"),
        };
        let mut facts = Vec::new();
        if let (RunState::Failed, Some(status), None) = (run.state, run.status, &run.agent) {
            facts.push(format!("exit status {status}"));
        }
        if let Some(ended) = run.ended {
            facts.push(brief(between(run.started, ended)));
        }
        if let Some(turns) = self.turns.filter(|turns| *turns <= MOST_TURNS) {
            facts.push(counted(turns, "turn"));
        }
        facts.extend(run.cost_usd.or(self.cost).map(dollars));
        let facts = if facts.is_empty() { String::new() } else { format!("  {}", facts.join(" · ")) };
        format!("{} {}{}", ink.paint(style, mark), ink.paint(style, words), ink.paint(Style::Dim, &facts))
    }

    fn session(&mut self, model: Option<&str>, version: Option<&str>) {
        let version = version.map(|v| format!("version {v}"));
        let facts: Vec<String> = [model, version.as_deref()].into_iter().flatten().map(one_line).collect();
        if !facts.is_empty() {
            let text = self.ink.paint(Style::Dim, &self.fit(&format!("  · {}", facts.join(" · "))));
            self.tool_line(text);
        }
    }

    fn words(&mut self, text: &str) {
        self.last_words = text.trim().to_owned();
        for line in self.paragraph(text, width(BAR)) {
            self.put_words(None, &line);
        }
    }

    fn thinking(&mut self, text: &str) {
        let most = if self.verbose { usize::MAX } else { 3 };
        // The mark takes four columns.
        let lines = self.paragraph(text, 4);
        let cut = lines.len() > most;
        for (n, line) in lines.into_iter().take(most).enumerate() {
            let more = if cut && n + 1 == most { " …" } else { "" };
            let line = self.ink.paint(Style::Dim, &format!("  ~ {line}{more}"));
            self.put(Last::Words, line);
        }
    }

    /// Cleaned and wrapped; code between fences is broken only where the terminal would.
    fn paragraph(&mut self, text: &str, margin: usize) -> Vec<String> {
        if self.last == Last::Words && !text.trim().is_empty() {
            self.out.push(Piece::Line(String::new()));
        }
        let text = text.trim_matches(['\n', '\r']).replace("\r\n", "\n");
        let text = clean(&text);
        let mut lines = Vec::new();
        let mut code = false;
        for line in text.lines() {
            let line = line.trim_end();
            let fence = line.trim_start().starts_with("```");
            code ^= fence;
            match self.columns {
                Some(columns) if !code && !fence => {
                    lines.extend(wrapped(line, columns.min(WIDEST).saturating_sub(margin)));
                }
                _ => lines.push(line.to_owned()),
            }
        }
        let room = self.columns.map_or(usize::MAX, |columns| columns.saturating_sub(margin));
        lines.iter().flat_map(|line| broken(line, room)).collect()
    }

    /// At most as wide as the terminal.
    fn fit(&self, text: &str) -> String {
        self.columns.map_or_else(|| text.to_owned(), |columns| shortened(text, columns))
    }

    fn call(&mut self, time: Timestamp, id: &str, name: &str, summary: &str) {
        if let Some(line) = self.held.take() {
            self.tool_line(line);
        }
        if self.calls.len() == MOST_CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(Call {
            id: id.to_owned(),
            name: shortened(&one_line(name), NAME),
            summary: if name == "Bash" { one_line(summary) } else { in_work(&one_line(summary)).to_owned() },
            time,
            since: Instant::now(),
            told: false,
        });
    }

    fn result(&mut self, time: Timestamp, id: &str, ok: bool, output: &str) {
        let at = self.calls.iter().position(|c| c.id == id);
        let call = at.and_then(|at| self.calls.remove(at));
        if ok && call.as_ref().is_some_and(|c| c.told) {
            return;
        }
        let line = self.call_line(call.as_ref(), ok, call.as_ref().map(|c| between(c.time, time)));
        if ok && call.is_some_and(|c| told_by_another_event(&c.name)) {
            if let Some(earlier) = self.held.replace(line) {
                self.tool_line_unheld(earlier);
            }
            return;
        }
        self.tool_line(line);
        let most = match (ok, self.verbose) {
            (_, true) => LONG_TAIL,
            (false, false) => TAIL,
            (true, false) => 0,
        };
        self.tail(output, most);
    }

    fn call_line(&self, call: Option<&Call>, ok: bool, took: Option<u64>) -> String {
        let (name, summary) = call.map_or(("tool", ""), |c| (&c.name, &c.summary));
        let took = took.filter(|ms| *ms >= 1000).map(|ms| format!("  {}", brief(ms))).unwrap_or_default();
        let head = format!("{name:<5} ");
        let summary = match self.columns {
            Some(columns) => {
                shortened(summary, columns.min(WIDEST + 20).saturating_sub(5 + width(&head) + width(&took)))
            }
            None => summary.to_owned(),
        };
        let mark = self.mark(ok);
        format!("  {mark} {}", self.ink.paint(Style::Dim, format!("{head} {summary}{took}").trim_end()))
    }

    fn mark(&self, ok: bool) -> String {
        if ok { self.ink.paint(Style::Green, "✓") } else { self.ink.paint(Style::Red, "✗") }
    }

    /// The end of a tool's output.
    fn tail(&mut self, output: &str, most: usize) {
        let lines: Vec<&str> = output.lines().filter(|l| !l.trim().is_empty()).collect();
        for line in &lines[lines.len().saturating_sub(most)..] {
            let line = output_line(line);
            let line = self.columns.map_or(line.clone(), |columns| shortened(&line, columns.saturating_sub(6)));
            let line = self.ink.paint(Style::Dim, &format!("    │ {line}"));
            self.tool_line(line);
        }
    }

    fn edit(&mut self, path: &Bytes, added: u64, deleted: u64) {
        self.told();
        let mark = self.mark(true);
        let plus = self.ink.paint(Style::Green, &format!("+{added}"));
        let minus = self.ink.paint(Style::Red, &format!("−{deleted}"));
        let counts = if self.ink.0 { format!("{plus} {minus}") } else { delta(added, deleted) };
        let path = one_line(&path.to_text());
        let path = in_work(&path);
        let room =
            self.columns.map_or(usize::MAX, |columns| columns.saturating_sub(12 + width(&delta(added, deleted))));
        self.tool_line_unheld(format!("  {mark} Edit   {} {counts}", shortened(path, room)));
    }

    /// This event tells what a tool did: the tool's own line is not needed.
    fn told(&mut self) {
        if self.held.take().is_none()
            && let Some(call) = self.calls.iter_mut().find(|c| told_by_another_event(&c.name))
        {
            call.told = true;
        }
    }

    fn steps(&mut self, steps: &[PlanStep]) {
        self.told();
        let same = self.plan.len() == steps.len() && self.plan.iter().zip(steps).all(|(a, b)| a.text == b.text);
        self.plan = steps.to_vec();
        if same {
            let done = steps.iter().filter(|s| s.state == PlanState::Done).count();
            let now =
                steps.iter().find(|s| s.state == PlanState::InProgress).map(|s| format!("  ▸ {}", one_line(&s.text)));
            let text = format!("  · Plan   {done} of {} done{}", steps.len(), now.unwrap_or_default());
            let text = self.ink.paint(Style::Dim, &self.fit(&text));
            return self.tool_line_unheld(text);
        }
        for (n, step) in steps.iter().enumerate() {
            let head = if n == 0 { "  · Plan  " } else { "         " };
            let (mark, style) = match step.state {
                PlanState::Done => ("✓", Style::Green),
                PlanState::InProgress => ("▸", Style::Cyan),
                PlanState::Pending => ("·", Style::Dim),
            };
            let line = format!(
                "{} {} {}",
                self.ink.paint(Style::Dim, head),
                self.ink.paint(style, mark),
                shortened(&one_line(&step.text), self.columns.map_or(usize::MAX, |columns| columns.saturating_sub(12)))
            );
            self.tool_line_unheld(line);
        }
    }

    fn retry(&mut self, attempt: u64, of: u64, wait_ms: u64, why: &str) {
        let text = self.fit(&format!("  ↻ {}; attempt {attempt} of {of} in {}", one_line(why), brief(wait_ms)));
        if self.columns.is_some() {
            self.out.push(Piece::Status(text));
        } else {
            self.tool_line(text);
        }
    }

    fn output(&mut self, text: &Bytes) {
        let text = output_line(&text.to_text());
        for line in broken(&text, self.columns.map_or(usize::MAX, |columns| columns.saturating_sub(4))) {
            let line = self.ink.paint(Style::Dim, &format!("  │ {line}"));
            self.tool_line(line);
        }
    }

    fn finished(&mut self, ok: bool, text: &str) {
        for call in std::mem::take(&mut self.calls) {
            let room = self.columns.map_or(usize::MAX, |columns| columns.saturating_sub(13));
            let line = shortened(&format!("  · {:<5}  {}", call.name, call.summary), room);
            let line = self.ink.paint(Style::Dim, &format!("{line}  (no result)"));
            self.tool_line(line);
        }
        if !text.trim().is_empty() && text.trim() != self.last_words {
            let style = if ok { None } else { Some(Style::Red) };
            for line in self.paragraph(text, width(BAR)) {
                self.put_words(style, &line);
            }
        }
    }

    /// A line of the agent's own words.
    fn put_words(&mut self, style: Option<Style>, line: &str) {
        let bar = self.ink.paint(Style::Dim, if line.is_empty() { BAR.trim_end() } else { BAR });
        let line = style.map_or(line.to_owned(), |style| self.ink.paint(style, line));
        self.put(Last::Words, format!("{bar}{line}"));
    }

    fn tool_line(&mut self, line: String) {
        if let Some(held) = self.held.take() {
            self.put(Last::Tools, held);
        }
        self.put(Last::Tools, line);
    }

    fn tool_line_unheld(&mut self, line: String) {
        self.put(Last::Tools, line);
    }

    /// A blank line parts words from tools.
    fn put(&mut self, kind: Last, line: String) {
        if kind == Last::Words
            && let Some(held) = self.held.take()
        {
            self.put(Last::Tools, held);
        }
        if self.last != Last::Nothing && self.last != kind {
            self.out.push(Piece::Line(String::new()));
        }
        self.last = kind;
        self.out.push(Piece::Line(line));
    }
}

/// Tools of which an [`EventBody::Edit`] or [`EventBody::Plan`] says more than their own line.
fn told_by_another_event(tool: &str) -> bool {
    matches!(tool, "Edit" | "MultiEdit" | "Write" | "NotebookEdit" | "TodoWrite")
}

/// A path as the project knows it: the work tree is at `/work` in the guest.
fn in_work(path: &str) -> &str {
    path.strip_prefix("/work/").filter(|rest| !rest.is_empty()).unwrap_or(path)
}

/// What an agent says that it cost; `$?` where that cannot be.
pub fn dollars(cost: f64) -> String {
    if !(0.0..=MOST_DOLLARS).contains(&cost) {
        return "$?".into();
    }
    // Not -0.
    let cost = cost.abs();
    if cost >= 0.1 { format!("${cost:.2}") } else { format!("${cost:.4}") }
}

#[cfg(test)]
mod tests;
