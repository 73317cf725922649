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
use crate::render::text::{ago, clean};

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
        printer.line(&clean(line));
    }
    Ok(0)
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
    Ok(0)
}
