//! From lines of an agent's output to events. The lines are a stranger's: whatever they hold, a parser
//! gives a bounded number of bounded events, and never fails.
//!
//! A parser gives the same events for the same lines, always: events are not stored, they are
//! made anew from the log whenever somebody asks.

use guest::run::Stream;
use protocol::Bytes;
use protocol::event::{EventBody, OutputStream};
use serde_json::Value;

use super::claude::Claude;
use super::manifest::Format;

/// A longer line is no event; its beginning is shown as output.
pub const MAX_LINE: usize = 1 << 20;
/// A line makes at most so many events.
pub const MAX_EVENTS: usize = 256;
/// A text of an agent is cut here, and a line of output.
pub const MAX_TEXT: usize = 256 << 10;
/// A tool's result keeps so much of its end.
pub const MAX_OUTPUT: usize = 64 << 10;
/// A string in a tool's input is cut here.
pub const MAX_STRING: usize = 16 << 10;
/// Names, ids, a tool call's one line.
pub(super) const MAX_WORD: usize = 240;

/// Reads one run's output.
pub trait Parser: Send {
    /// The events of a line, without its end.
    fn line(&mut self, stream: Stream, line: &[u8]) -> Vec<EventBody>;
    /// What the agent said of its work so far. Only a part of a run's outcome: it counts beside the exit status.
    fn verdict(&self) -> Verdict;
}

/// What an agent's own words say about how it went.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// Whether it said that it has finished, and then whether well. An agent that never says so has not.
    pub finished: Option<bool>,
    /// It did not go well because the model endpoint refused or failed.
    pub endpoint_failed: bool,
    /// It was interrupted, and said so.
    pub interrupted: bool,
    pub cost_usd: Option<f64>,
    /// By which it can be gone on with.
    pub session: Option<String>,
    /// Its last words, or why it failed.
    pub text: Option<String>,
}

/// The parser for a format.
pub fn parser(format: Format) -> Box<dyn Parser> {
    match format {
        Format::ClaudeStreamJson => Box::new(Claude::default()),
        Format::Plain => Box::new(Plain),
    }
}

/// A command that says nothing about itself: its exit status is all there is.
struct Plain;

impl Parser for Plain {
    fn line(&mut self, stream: Stream, line: &[u8]) -> Vec<EventBody> {
        vec![output(stream, line)]
    }

    fn verdict(&self) -> Verdict {
        Verdict::default()
    }
}

/// A line as it is.
pub(super) fn output(stream: Stream, line: &[u8]) -> EventBody {
    let stream = match stream {
        Stream::Out => OutputStream::Stdout,
        Stream::Err => OutputStream::Stderr,
    };
    EventBody::Output { stream, text: Bytes(line[..line.len().min(MAX_TEXT)].to_vec()) }
}

/// The beginning of a text.
pub(super) fn head(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(max - "…".len())])
}

/// The end of a text.
pub(super) fn tail(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("…{}", &text[text.ceil_char_boundary(text.len() - (max - "…".len()))..])
}

/// The first line of a text that has anything in it, short and without control characters.
pub(super) fn one_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line: String = line.chars().take(MAX_WORD).map(|c| if c.is_control() { ' ' } else { c }).collect();
    head(&line, MAX_WORD)
}

/// Cuts every string in a value, keys too.
pub(super) fn cut_strings(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > MAX_STRING => *text = head(text, MAX_STRING),
        Value::Array(items) => items.iter_mut().for_each(cut_strings),
        Value::Object(fields) => {
            fields.retain(|name, _| name.len() <= MAX_STRING);
            fields.values_mut().for_each(cut_strings);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_commands_lines_stay_as_they_are() {
        let mut plain = parser(Format::Plain);
        let events = plain.line(Stream::Err, b"{\"type\":\"result\"}\xff");
        let expected =
            EventBody::Output { stream: OutputStream::Stderr, text: Bytes(b"{\"type\":\"result\"}\xff".to_vec()) };
        assert_eq!(events, [expected]);
        assert_eq!(plain.verdict(), Verdict::default());
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(head("äöü", 6), "äöü");
        assert_eq!(head("äöüä", 6), "ä…");
        assert_eq!(tail("äöüä", 6), "…ä");
        assert_eq!(one_line("\n\n  a\tb\u{1b}[0m \nc"), "a b [0m");
        assert!(one_line(&"ä".repeat(4000)).len() <= MAX_WORD);
    }
}
