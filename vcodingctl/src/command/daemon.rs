//! `daemon start / stop / status / logs`; `service` has the others.

use client::start;
use protocol::Timestamp;
use protocol::daemon::NoParams;
use protocol::methods::{Shutdown, Status};

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
        Daemon::Logs { lines, follow } => {
            super::log_file::show(&session.places.state.join("log"), lines, follow, printer)
        }
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
        printer.line(&format!(
            "vcodingd (pid {}) ends; guests and runs go on, attached commands and shells end",
            status.pid
        ));
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
    for notice in &status.notices {
        printer.warn(&one_line(notice));
    }
    Ok(0)
}
