//! `daemon start / stop / status`.

use client::start;
use protocol::daemon::NoParams;
use protocol::methods::{Shutdown, Status};

use super::{Outcome, Session};
use crate::args::Daemon;
use crate::printer::Printer;

pub fn run(command: Daemon, session: &Session, printer: &Printer) -> Outcome {
    match command {
        Daemon::Start => status(&mut session.daemon()?, printer),
        Daemon::Status => status(&mut start::connect(&session.places)?, printer),
        Daemon::Stop => {
            let mut daemon = start::connect(&session.places)?;
            let pid = daemon.call::<Status>(&NoParams {})?.pid;
            daemon.call::<Shutdown>(&NoParams {})?;
            // The end of the connection is the daemon's last act but the flush.
            while daemon.receive().is_ok() {}
            printer.say(&format!("vcodingd (pid {pid}) ends; guests and runs go on"));
            Ok(0)
        }
    }
}

fn status(daemon: &mut client::Client, printer: &Printer) -> Outcome {
    let status = daemon.call::<Status>(&NoParams {})?;
    if printer.json {
        printer.document(&status);
        return Ok(0);
    }
    printer.line(&format!("vcodingd {} (pid {}), since {}", status.version, status.pid, status.started));
    printer.line(&format!("state       {}", status.state_dir.display()));
    printer.line(&format!("workspaces  {}, {} running", status.workspaces, status.running));
    Ok(0)
}
