//! The one mouth: data to standard output, talk to standard error.

use std::cell::Cell;
use std::io::{self, ErrorKind, IsTerminal, Write};

use protocol::checkpoint::FileChange;
use protocol::{Error, Kind};
use serde::Serialize;

use crate::args::Global;
use crate::render::ink::{Ink, Style};
use crate::render::text::{clean, harmful, one_line, shortened, width};
use crate::{pager, terminal};

/// How to speak; decided once.
#[derive(Debug)]
pub struct Printer {
    pub json: bool,
    pub verbose: bool,
    quiet: bool,
    out: Ink,
    err: Ink,
    /// Standard output is a terminal: guest text is neutralised, long lines are wrapped.
    pub data_terminal: bool,
    /// Standard error is a terminal: progress may rewrite its line, hints are shown.
    pub talk_terminal: bool,
    /// How a command begins that means the same workspace: with `-w` and `--project` if they
    /// were typed.
    program: String,
    /// A line without its end is on the terminal.
    open_line: Cell<bool>,
}

impl Printer {
    pub fn new(global: &Global) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let plain = global.no_color || set("NO_COLOR") || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let data_terminal = io::stdout().is_terminal();
        let talk_terminal = io::stderr().is_terminal();
        Self {
            json: global.json,
            verbose: global.verbose,
            quiet: global.quiet,
            out: Ink(data_terminal && !plain),
            err: Ink(talk_terminal && !plain),
            data_terminal,
            talk_terminal,
            program: program(global),
            open_line: Cell::new(false),
        }
    }

    /// The colours of standard output.
    pub fn ink(&self) -> Ink {
        self.out
    }

    /// The colours of standard error.
    pub fn talk_ink(&self) -> Ink {
        self.err
    }

    /// The columns of the terminal that standard output is; nothing where it is none.
    pub fn columns(&self) -> Option<usize> {
        self.data_terminal.then(|| terminal::size(io::stdout()).map_or(80, |(columns, _)| usize::from(columns)))
    }

    /// Data: a line on standard output.
    pub fn line(&self, text: &str) {
        self.raw(format!("{text}\n").as_bytes());
    }

    /// Data as it is. A closed pipe ends the program quietly, as with other tools; a full disk
    /// does not.
    pub fn raw(&self, bytes: &[u8]) {
        self.close_line();
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(e) => self.unwritable(&e),
        }
    }

    /// The end of a program whose standard output takes no more.
    pub fn unwritable(&self, error: &io::Error) -> ! {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        self.to_stderr(&format!("{} standard output cannot be written: {error}", self.talk(Style::Red, "error:")));
        std::process::exit(1);
    }

    /// Data of many lines for a person, in a pager where it is longer than the terminal.
    pub fn paged(&self, text: &str) {
        self.close_line();
        if !pager::show(text.as_bytes()) {
            self.raw(text.as_bytes());
        }
    }

    /// Data as one JSON document on a line. What could drive a terminal is escaped, which in
    /// JSON changes nothing else.
    pub fn document(&self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(text) => self.line(&escaped(&text)),
            Err(error) => self.plain_failure(&Error::new(Kind::Internal, error.to_string())),
        }
    }

    /// A listing, as wide as the terminal allows.
    pub fn table(&self, header: &[&str], rows: &[Vec<crate::render::table::Cell>]) {
        for line in crate::render::table::table(header, rows, self.out, self.columns()) {
            self.line(&line);
        }
    }

    /// Talk: a line on standard error, unless quiet.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.to_stderr(text);
        }
    }

    /// Talk for people who look; on a terminal only.
    pub fn aside(&self, text: &str) {
        if self.talk_terminal && !self.json {
            self.say(&self.talk(Style::Dim, text));
        }
    }

    /// What to type next; on a terminal only.
    pub fn next(&self, text: &str) {
        self.aside(&format!("next: {}", self.typed(text)));
    }

    /// A command of ours, so that it means the workspace that was meant here.
    pub fn typed(&self, command: &str) -> String {
        match command.strip_prefix("vcodingctl ") {
            Some(rest) if !rest.starts_with("-w ") => format!("{} {rest}", self.program),
            _ => command.to_owned(),
        }
    }

    /// The same where there is a choice: commands, and what each is for.
    pub fn next_of(&self, choices: &[(&str, &str)]) {
        let commands: Vec<String> = choices.iter().map(|(command, _)| self.typed(command)).collect();
        let widest = commands.iter().map(|c| width(c)).max().unwrap_or(0);
        for (n, (command, (_, purpose))) in commands.iter().zip(choices).enumerate() {
            let head = if n == 0 { "next:" } else { "     " };
            let pad = " ".repeat(widest - width(command));
            self.aside(&format!("{head} {command}{pad}   {purpose}"));
        }
    }

    /// A last line, for people who look.
    pub fn closing(&self, text: &str) {
        if self.talk_terminal && !self.json {
            self.say(text);
        }
    }

    /// What must not be missed; even when quiet.
    pub fn warn(&self, text: &str) {
        self.to_stderr(&format!("{} {text}", self.talk(Style::Yellow, "warning:")));
    }

    /// A line that belongs to a warning.
    pub fn stress(&self, text: &str) {
        self.to_stderr(text);
    }

    /// A question; the answer is typed on its line.
    pub fn ask(&self, text: &str) {
        self.close_line();
        to_terminal(text);
    }

    /// Remarks of the daemon.
    pub fn notes(&self, notes: &[String]) {
        for note in notes {
            self.say(&format!("{} {}", self.talk(Style::Cyan, "note:"), one_line(note)));
        }
    }

    /// Remarks for who asked for all of them.
    pub fn asides(&self, asides: &[String]) {
        if self.verbose {
            self.notes(asides);
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
        self.plain_failure(error);
    }

    fn plain_failure(&self, error: &Error) {
        let label = self.talk(Style::Red, "error:");
        self.to_stderr(&format!("{label} {}", clean(&error.message).replace('\n', "\n  ")));
        for line in details(error) {
            self.to_stderr(&format!("  {line}"));
        }
        if let Some(hint) = &error.data.hint {
            let label = self.talk(Style::Cyan, "hint:");
            self.to_stderr(&format!("{label} {}", clean(hint).replace('\n', "\n      ")));
        }
    }

    /// Whether a line that is rewritten makes sense.
    pub fn live(&self) -> bool {
        self.talk_terminal && !self.quiet && !self.json
    }

    /// A line that the next one replaces; on a terminal only.
    pub fn status(&self, text: &str) {
        if self.live() {
            let columns = terminal::size(io::stderr()).map_or(80, |(columns, _)| usize::from(columns));
            let text = self.talk(Style::Dim, &shortened(text, columns.saturating_sub(1)));
            let start = if self.open_line.replace(true) { "\r\x1b[K" } else { "" };
            to_terminal(&format!("{start}{text}"));
        }
    }

    pub fn close_line(&self) {
        if self.open_line.replace(false) {
            to_terminal("\r\x1b[K");
        }
    }

    fn to_stderr(&self, text: &str) {
        self.close_line();
        to_terminal(&format!("{text}\n"));
    }

    /// Text for standard output, coloured if it is a terminal.
    pub fn data(&self, style: Style, text: &str) -> String {
        self.out.paint(style, text)
    }

    /// Text for standard error, coloured if it is a terminal.
    pub fn talk(&self, style: Style, text: &str) -> String {
        self.err.paint(style, text)
    }
}

fn program(global: &Global) -> String {
    let mut words = vec!["vcodingctl".to_owned()];
    if let Some(name) = &global.workspace {
        words.extend(["-w".into(), quoted(name)]);
    }
    if let Some(project) = &global.project {
        words.extend(["--project".into(), quoted(&project.to_string_lossy())]);
    }
    words.join(" ")
}

/// As a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ':' | '@');
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", one_line(word).replace('\'', "'\\''"))
}

/// What a daemon that was just started has to say; it is said once, and even when quiet.
pub fn of_the_daemon(notice: &str) {
    to_terminal(&format!("warning: {}\n", one_line(notice)));
}

/// Standard error; that nobody reads it is no reason to fail.
fn to_terminal(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// The parts of an error's details that are for people: the tail of a build's output, files.
fn details(error: &Error) -> Vec<String> {
    const MOST: usize = 40;
    let details = &error.data.details;
    let output = details.get("output").and_then(|o| o.as_array()).into_iter().flatten();
    let mut lines: Vec<String> = output.filter_map(|l| l.as_str()).map(one_line).collect();
    lines.drain(..lines.len().saturating_sub(MOST));
    let files: Vec<FileChange> =
        details.get("files").and_then(|f| serde_json::from_value(f.clone()).ok()).unwrap_or_default();
    lines.extend(files.iter().take(10).map(|f| format!("{} {}", f.status, one_line(&f.path.to_text()))));
    let total = details.get("total").and_then(serde_json::Value::as_u64).unwrap_or(files.len() as u64);
    if total > 10 {
        lines.push(format!("and {} more", total - 10));
    }
    lines
}

fn escaped(json: &str) -> String {
    if !json.contains(harmful) {
        return json.to_owned();
    }
    json.chars().map(|c| if harmful(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_nothing_that_drives_a_terminal_and_means_the_same() {
        let text = "a\u{9b}2J\u{202e}\x7f";
        let json = escaped(&serde_json::to_string(text).unwrap());
        assert_eq!(json, "\"a\\u009b2J\\u202e\\u007f\"");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn words_are_quoted_as_a_shell_takes_them() {
        assert_eq!(
            [quoted("my-app_2.x"), quoted("a b"), quoted("it's"), quoted("")],
            ["my-app_2.x", "'a b'", "'it'\\''s'", "''"]
        );
    }

    #[test]
    fn an_errors_details_are_bounded_and_harmless() {
        let output: Vec<String> = (0..100).map(|n| format!("{n}\x1b]x")).collect();
        let error = Error::new(Kind::ImageBuildFailed, "x").details(serde_json::json!({"output": output}));
        let lines = details(&error);
        assert_eq!((lines.len(), &*lines[0]), (40, "60\u{fffd}]x"));
    }
}
