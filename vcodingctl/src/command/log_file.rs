//! `daemon logs`: the daemon's log, a file a day (of a day that said too much two), a JSON document a line.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use protocol::{Error, Kind};

use super::Outcome;
use crate::printer::Printer;
use crate::render::text::{clean, one_line};
use crate::wait::{Interrupts, TICK};

/// Of a file no more than its end is read at a time.
const MOST: u64 = 1024 * 1024;

/// The last lines in `directory`, and, to `follow`, what is written until Ctrl-C.
pub fn show(directory: &Path, lines: usize, follow: bool, printer: &Printer) -> Outcome {
    let files = files(directory)?;
    let Some(newest) = files.last() else {
        let message = format!("there is no log in {} yet", directory.display());
        return Err(Error::new(Kind::DaemonUnreachable, message).hint("vcodingctl daemon start").into());
    };
    let mut tail = Tail::at_the_end_of(newest)?;
    let mut shown: Vec<String> = Vec::new();
    for file in files.iter().rev() {
        let end = if file == newest { tail.at } else { u64::MAX };
        let more = last_lines(file, end, lines - shown.len())?;
        shown.splice(0..0, more);
        if shown.len() >= lines {
            break;
        }
    }
    printer.aside(&format!("{}:", newest.display()));
    shown.iter().for_each(|line| print(line, printer));
    if !follow {
        return Ok(0);
    }
    let interrupts = Interrupts::new()?;
    while !interrupts.within(TICK) {
        tail.more(|line| print(line, printer))?;
        // A new day's file begins when the last one is complete.
        if let Some(next) = self::files(directory)?.into_iter().find(|file| *file > tail.path) {
            tail.more(|line| print(line, printer))?;
            tail = Tail { file: open(&next)?, path: next, at: 0, open_line: Vec::new() };
        }
    }
    Ok(0)
}

fn print(line: &str, printer: &Printer) {
    printer.line(&if printer.json { clean(line).into_owned() } else { for_people(line) });
}

/// Oldest first: their names are dates.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| unreadable(directory, &e))?,
    };
    let is_log = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        name.starts_with("vcodingd.") && name.ends_with(".log") && name != "vcodingd.log"
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_log).collect();
    files.sort_unstable();
    Ok(files)
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|e| unreadable(path, &e))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Kind::Internal, format!("the daemon's log {} cannot be read: {error}", path.display()))
        .hint(format!("ls -l {}", path.display()))
}

/// The last lines of a file before `end`.
fn last_lines(path: &Path, end: u64, most: usize) -> Result<Vec<String>, Error> {
    let failed = |e: std::io::Error| unreadable(path, &e);
    let mut file = open(path)?;
    let size = file.metadata().map_err(failed)?.len().min(end);
    let from = size.saturating_sub(MOST);
    file.seek(SeekFrom::Start(from)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(size - from).read_to_end(&mut bytes).map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole: Vec<&str> = text.lines().skip(usize::from(from > 0)).collect();
    Ok(whole[whole.len().saturating_sub(most)..].iter().map(|line| (*line).to_owned()).collect())
}

/// A file that grows.
struct Tail {
    file: File,
    path: PathBuf,
    at: u64,
    /// A line that is not complete yet.
    open_line: Vec<u8>,
}

impl Tail {
    fn at_the_end_of(path: &Path) -> Result<Self, Error> {
        let mut file = open(path)?;
        let at = file.seek(SeekFrom::End(0)).map_err(|e| unreadable(path, &e))?;
        Ok(Self { file, path: path.to_owned(), at, open_line: Vec::new() })
    }

    fn more(&mut self, mut line: impl FnMut(&str)) -> Result<(), Error> {
        loop {
            let mut bytes = Vec::new();
            let read = self.file.by_ref().take(MOST).read_to_end(&mut bytes).map_err(|e| unreadable(&self.path, &e))?;
            if read == 0 && !self.begins_anew()? {
                return Ok(());
            }
            self.at += read as u64;
            for part in bytes.split_inclusive(|b| *b == b'\n') {
                self.open_line.extend_from_slice(part);
                if let Some(whole) = self.open_line.strip_suffix(b"\n") {
                    line(&String::from_utf8_lossy(whole));
                    self.open_line.clear();
                }
            }
        }
    }
}

impl Tail {
    /// Whether the daemon emptied the file, which it does to a day's second one that is full; it is read from its beginning then.
    fn begins_anew(&mut self) -> Result<bool, Error> {
        let failed = |e: std::io::Error| unreadable(&self.path, &e);
        let shorter = self.file.metadata().map_err(failed)?.len() < self.at;
        if shorter {
            self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
            self.at = 0;
            self.open_line.clear();
        }
        Ok(shorter)
    }
}

/// A line of the log: when, how bad, what, and its fields. What is no JSON is shown as it is.
fn for_people(line: &str) -> String {
    let Ok(entry) = serde_json::from_str::<serde_json::Value>(line) else { return clean(line).into_owned() };
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let field = |name: &str| entry.get(name).map(text).unwrap_or_default();
    let fields = entry.get("fields").and_then(serde_json::Value::as_object);
    let message = fields.and_then(|fields| fields.get("message")).map(text).unwrap_or_default();
    let others = fields.into_iter().flatten().filter(|(name, _)| *name != "message");
    let others: Vec<String> = others.map(|(name, value)| format!("{name}={}", text(value))).collect();
    let time = field("timestamp");
    let time = time.split_once('.').map_or(time.as_str(), |(seconds, _)| seconds).replace('T', " ");
    one_line(format!("{time}  {:<5}  {message}  {}", field("level"), others.join(" ")).trim_end())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_line_of_the_log_is_shown_for_people() {
        let line = r#"{"timestamp":"2026-11-28T14:27:49.090597Z","level":"WARN","fields":{"message":"a run \u001b broke","run":"01jd","took_ms":3},"target":"x"}"#;
        assert_eq!(for_people(line), "2026-11-28 14:27:49  WARN   a run \u{fffd} broke  run=01jd took_ms=3");
        assert_eq!(for_people("torn {"), "torn {");
    }

    #[test]
    fn the_last_lines_may_begin_in_an_earlier_days_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(files(dir.path()).unwrap(), [] as [PathBuf; 0]);
        for (name, text) in [("vcodingd.2026-11-27.log", "a\nb\n"), ("vcodingd.2026-11-28.log", "c\n"), ("x.log", "")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let files = files(dir.path()).unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!(last_lines(&files[0], u64::MAX, 1).unwrap(), ["b"]);
        assert_eq!(last_lines(&files[1], 0, 5).unwrap(), [] as [&str; 0]);
    }

    #[test]
    fn a_line_that_grows_is_shown_once_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vcodingd.2026-11-28.log");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"before\n").unwrap();
        let mut tail = Tail::at_the_end_of(&path).unwrap();
        let mut seen = Vec::new();
        for part in ["one\ntw", "o\n", ""] {
            file.write_all(part.as_bytes()).unwrap();
            tail.more(|line| seen.push(line.to_owned())).unwrap();
        }
        assert_eq!(seen, ["one", "two"]);
    }

    #[test]
    fn a_file_that_begins_anew_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vcodingd.2026-11-28.more.log");
        std::fs::write(&path, "a long line from before\n").unwrap();
        let mut tail = Tail::at_the_end_of(&path).unwrap();
        let mut seen = Vec::new();
        let file = File::options().append(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        (&file).write_all(b"new\n").unwrap();
        tail.more(|line| seen.push(line.to_owned())).unwrap();
        assert_eq!(seen, ["new"]);
    }
}
