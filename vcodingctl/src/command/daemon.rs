//! `daemon start / stop / status / logs`; `service` has the others.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use client::start;
use protocol::daemon::NoParams;
use protocol::methods::{Shutdown, Status};
use protocol::{Error, Kind, Timestamp};

use super::{Outcome, Session};
use crate::args::Daemon;
use crate::printer::Printer;
use crate::render::text::{ago, clean, one_line};

pub fn run(command: Daemon, session: &Session, printer: &Printer) -> Outcome {
    match command {
        Daemon::Start => status(&mut session.daemon()?, session, printer),
        Daemon::Status => status(&mut start::connect(&session.places)?, session, printer),
        Daemon::Stop => stop(session, printer),
        Daemon::Install => super::service::install(session, printer),
        Daemon::Uninstall => super::service::uninstall(printer),
        Daemon::Logs { lines } => logs(&session.places.state.join("log/vcodingd.log"), lines, printer),
    }
}

fn stop(session: &Session, printer: &Printer) -> Outcome {
    let mut daemon = start::connect(&session.places)?;
    let status = daemon.call::<Status>(&NoParams {})?;
    daemon.call::<Shutdown>(&NoParams {})?;
    // The end of the connection is the daemon's last act but the flush.
    while daemon.receive().is_ok() {}
    if printer.json {
        printer.document(&status);
    } else {
        printer.line(&format!("vcodingd (pid {}) ends; guests and runs go on", status.pid));
    }
    Ok(0)
}

/// The end of the log, which holds a JSON document a line. Reads no more than the last MiB.
fn logs(path: &Path, lines: usize, printer: &Printer) -> Outcome {
    const MOST: u64 = 1024 * 1024;
    let unreadable = |e: std::io::Error| {
        let message = format!("the daemon's log {} cannot be read: {e}", path.display());
        match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(Kind::DaemonUnreachable, message).hint("vcodingctl daemon start")
            }
            _ => Error::new(Kind::Internal, message).hint(format!("ls -l {}", path.display())),
        }
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let size = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
    file.seek(SeekFrom::Start(size.saturating_sub(MOST))).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).map_err(unreadable)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole: Vec<&str> = text.lines().skip(usize::from(size > MOST)).collect();
    printer.aside(&format!("{}:", path.display()));
    for line in &whole[whole.len().saturating_sub(lines)..] {
        printer.line(&if printer.json { clean(line).into_owned() } else { for_people(line) });
    }
    Ok(0)
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

fn status(daemon: &mut client::Client, session: &Session, printer: &Printer) -> Outcome {
    let status = daemon.call::<Status>(&NoParams {})?;
    if printer.json {
        printer.document(&status);
        return Ok(0);
    }
    let started = ago(status.started, Timestamp::now());
    printer.line(&format!("vcodingd {} (pid {}), started {started}", clean(&status.version), status.pid));
    printer.line(&format!("socket      {}", start::socket(&session.places).display()));
    printer.line(&format!("state       {}", status.state_dir.display()));
    printer.line(&format!("workspaces  {}, {} running", status.workspaces, status.running));
    for notice in &status.notices {
        printer.warn(&one_line(notice));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_shown_for_people() {
        let line = r#"{"timestamp":"2026-11-28T14:27:49.090597Z","level":"WARN","fields":{"message":"a run \u001b broke","run":"01jd","took_ms":3},"target":"x"}"#;
        assert_eq!(for_people(line), "2026-11-28 14:27:49  WARN   a run \u{fffd} broke  run=01jd took_ms=3");
        assert_eq!(for_people("torn {"), "torn {");
    }
}
