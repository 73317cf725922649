//! The one mouth: data to standard output, talk to standard error.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::{IsTerminal, Write};

use protocol::Error;
use protocol::workspace::{Progress, StepState};
use serde::Serialize;

use crate::args::Global;

/// How to speak; decided once.
#[derive(Debug)]
pub struct Printer {
    pub json: bool,
    quiet: bool,
    colour_out: bool,
    colour_err: bool,
    /// Standard error is a terminal: progress may rewrite its line, hints are shown.
    pub talk_terminal: bool,
    /// A line without its end is on the terminal.
    open_line: Cell<bool>,
}

/// The few colours there are; never the only signal.
#[derive(Debug, Clone, Copy)]
pub enum Style {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Printer {
    pub fn new(global: &Global) -> Self {
        let colour = |terminal: bool| {
            terminal && !global.no_color && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
        };
        let talk_terminal = std::io::stderr().is_terminal();
        Self {
            json: global.json,
            quiet: global.quiet,
            colour_out: colour(std::io::stdout().is_terminal()),
            colour_err: colour(talk_terminal),
            talk_terminal,
            open_line: Cell::new(false),
        }
    }

    /// Data: a line on standard output. A closed pipe ends it quietly, as with other tools.
    pub fn line(&self, text: &str) {
        self.raw(format!("{text}\n").as_bytes());
    }

    pub fn raw(&self, bytes: &[u8]) {
        self.close_line();
        let mut out = std::io::stdout().lock();
        if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    }

    /// Data as one JSON document.
    pub fn document(&self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(text) => self.line(&text),
            Err(error) => self.failure(&Error::new(protocol::Kind::Internal, error.to_string())),
        }
    }

    /// Talk: a line on standard error, unless quiet.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.to_stderr(text);
        }
    }

    /// What to type next; on a terminal only.
    pub fn next(&self, text: &str) {
        if self.talk_terminal && !self.quiet && !self.json {
            let text = self.talk(Style::Dim, &format!("next: {text}"));
            self.to_stderr(&text);
        }
    }

    pub fn failure(&self, error: &Error) {
        if self.json {
            #[derive(Serialize)]
            struct Document<'a> {
                error: &'a Error,
            }
            self.document(&Document { error });
        }
        let label = self.talk(Style::Red, "error:");
        self.to_stderr(&format!("{label} {}", clean(&error.message)));
        if let Some(lines) = error.data.details.get("output").and_then(|o| o.as_array()) {
            for line in lines.iter().filter_map(|l| l.as_str()) {
                self.to_stderr(&format!("  {}", clean(line)));
            }
        }
        if let Some(hint) = &error.data.hint {
            let label = self.talk(Style::Cyan, "hint:");
            self.to_stderr(&format!("{label} {}", clean(hint)));
        }
    }

    /// A step of a long operation: on a terminal a line that its end completes, else a line at
    /// each end.
    pub fn progress(&self, progress: &Progress) {
        if self.quiet || self.json {
            return;
        }
        let step = clean(&progress.step);
        let text = progress.text.as_deref().map(clean).unwrap_or_default();
        match progress.state {
            StepState::Started if self.talk_terminal => {
                self.close_line();
                let mut err = std::io::stderr().lock();
                drop(write!(err, "  {} {}", self.talk(Style::Dim, "…"), shortened(&step, 70)));
                drop(err.flush());
                self.open_line.set(true);
            }
            StepState::Started | StepState::Output => {}
            StepState::Done | StepState::Cached => {
                let mark = self.talk(Style::Green, "✓");
                let took = match (progress.state, progress.took_ms) {
                    (StepState::Cached, _) => "cached".into(),
                    (_, Some(ms)) => brief(ms),
                    _ => String::new(),
                };
                let tail = [took, text.into_owned()].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(", ");
                self.rewrite(&format!("  {mark} {:<14} {}", shortened(&step, 60), self.talk(Style::Dim, &tail)));
            }
            StepState::Failed => {
                let mark = self.talk(Style::Red, "✗");
                self.rewrite(&format!("  {mark} {} {text}", shortened(&step, 70)));
            }
        }
    }

    fn rewrite(&self, text: &str) {
        let mut err = std::io::stderr().lock();
        let start = if self.open_line.replace(false) { "\r\x1b[K" } else { "" };
        drop(writeln!(err, "{start}{}", text.trim_end()));
    }

    /// A line that the next one replaces; on a terminal only.
    pub fn status(&self, text: &str) {
        if self.talk_terminal && !self.quiet && !self.json {
            let mut err = std::io::stderr().lock();
            let start = if self.open_line.replace(true) { "\r\x1b[K" } else { "" };
            drop(write!(err, "{start}{text}"));
            drop(err.flush());
        }
    }

    pub fn close_line(&self) {
        if self.open_line.replace(false) {
            let mut err = std::io::stderr().lock();
            drop(write!(err, "\r\x1b[K"));
            drop(err.flush());
        }
    }

    fn to_stderr(&self, text: &str) {
        self.close_line();
        let mut err = std::io::stderr().lock();
        drop(writeln!(err, "{text}"));
    }

    /// Text for standard output, coloured if it is a terminal.
    pub fn data(&self, style: Style, text: &str) -> String {
        if self.colour_out { paint(style, text) } else { text.to_owned() }
    }

    /// Text for standard error, coloured if it is a terminal.
    pub fn talk(&self, style: Style, text: &str) -> String {
        if self.colour_err { paint(style, text) } else { text.to_owned() }
    }
}

fn paint(style: Style, text: &str) -> String {
    let code = match style {
        Style::Bold => "1",
        Style::Dim => "2",
        Style::Red => "31",
        Style::Green => "32",
        Style::Yellow => "33",
        Style::Cyan => "36",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Text from a stranger, made harmless for a terminal: control characters (C0 but newline and
/// tab, DEL, C1) and bidirectional controls become U+FFFD.
pub fn clean(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}')
    };
    if text.contains(harmful) {
        Cow::Owned(text.chars().map(|c| if harmful(c) { '\u{fffd}' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// At most `width` characters, the rest as `…`.
pub fn shortened(text: &str, width: usize) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(width).collect();
    if chars.next().is_none() { start } else { start.chars().take(width.saturating_sub(1)).chain(['…']).collect() }
}

/// A duration as people say it.
pub fn brief(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// Rows as columns, each as wide as its widest cell; the last is not padded.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let render = |cells: Vec<&str>| {
        let mut line = String::new();
        for (n, cell) in cells.iter().enumerate() {
            line.push_str(cell);
            if n + 1 < cells.len() {
                let pad = widths[n].saturating_sub(cell.chars().count()) + 2;
                line.extend(std::iter::repeat_n(' ', pad));
            }
        }
        line.trim_end().to_owned()
    };
    let mut lines = vec![render(header.to_vec())];
    lines.extend(rows.iter().map(|row| render(row.iter().map(String::as_str).collect())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_cannot_drive_the_terminal() {
        assert_eq!(clean("a\x1b]52;c;x\x07b\u{9b}2J\u{202e}c\td"), "a\u{fffd}]52;c;x\u{fffd}b\u{fffd}2J\u{fffd}c\td");
        assert!(matches!(clean("plain – text"), Cow::Borrowed(_)));
    }

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let rows = [vec!["a".into(), "long".into(), String::new()], vec!["bcd".into(), "x".into(), "y".into()]];
        assert_eq!(table(&["N", "M", "O"], &rows), ["N    M     O", "a    long", "bcd  x     y"]);
    }

    #[test]
    fn durations_read_like_speech() {
        assert_eq!([brief(7), brief(1234), brief(61_000), brief(3_700_000)], ["7 ms", "1.2 s", "1 min 1 s", "1 h 1 min"]);
    }
}
