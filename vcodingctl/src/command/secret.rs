//! `secret set / ls / rm`.

use std::io::{IsTerminal, Read, stdin};
use std::os::fd::AsFd;

use protocol::daemon::NoParams;
use protocol::methods::{SecretListAll, SecretRemove, SecretSet};
use protocol::secret::{SecretRemoveParams, SecretSetParams, SecretSource, SecretValue};
use protocol::{Error, Kind, Timestamp};

use super::{Outcome, Session};
use crate::args::Secret;
use crate::printer::Printer;
use crate::render::table::Cell;
use crate::render::text::{ago, one_line};
use crate::terminal::Silent;
use crate::wait::Interrupts;

/// No key is longer.
const LONGEST: u64 = 64 * 1024;

pub fn run(command: &Secret, session: &Session, printer: &Printer) -> Outcome {
    match command {
        Secret::Set { name } => set(name, session, printer),
        Secret::Ls => ls(session, printer),
        Secret::Rm { name } => {
            let done = session.daemon()?.call::<SecretRemove>(&SecretRemoveParams { name: name.clone() })?;
            if printer.json {
                printer.document(&done);
            } else {
                printer.line(&format!("{} is forgotten", one_line(name)));
            }
            Ok(0)
        }
    }
}

fn set(name: &str, session: &Session, printer: &Printer) -> Outcome {
    let value = read(name, printer)?;
    let done = session.daemon()?.call::<SecretSet>(&SecretSetParams { name: name.to_owned(), value })?;
    if printer.json {
        printer.document(&done);
    } else {
        printer.line(&format!("{} is kept on this computer, out of every guest", one_line(name)));
    }
    Ok(0)
}

/// From standard input; a terminal is asked, and does not show what is typed.
fn read(name: &str, printer: &Printer) -> Result<SecretValue, Error> {
    let unreadable = |e: std::io::Error| Error::new(Kind::Usage, format!("standard input cannot be read: {e}"));
    let input = stdin();
    let mut text = String::new();
    if input.is_terminal() {
        printer.ask(&format!("{name} (not shown): "));
        let silent = Silent::enter(input.as_fd()).map_err(|e| unreadable(e.into()))?;
        // The terminal must show again what is typed, even if Ctrl-C ends this.
        let answered = Interrupts::new()?.or_readable(input.as_fd());
        if answered {
            input.read_line(&mut text).map_err(unreadable)?;
        }
        drop(silent);
        printer.ask("\n");
        if !answered {
            return Err(Error::new(Kind::Interrupted, "interrupted; nothing was kept"));
        }
    } else {
        input.lock().take(LONGEST + 1).read_to_string(&mut text).map_err(unreadable)?;
    }
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(
            Error::new(Kind::Usage, "the key is empty").hint(format!("printenv {name} | vcodingctl secret set {name}"))
        );
    }
    if text.len() as u64 > LONGEST {
        return Err(Error::new(Kind::Usage, format!("the key is longer than {LONGEST} bytes")));
    }
    Ok(SecretValue::new(text.to_owned()))
}

fn ls(session: &Session, printer: &Printer) -> Outcome {
    let list = session.daemon()?.call::<SecretListAll>(&NoParams {})?;
    if printer.json {
        printer.document(&list);
        return Ok(0);
    }
    let now = Timestamp::now();
    let rows: Vec<Vec<Cell>> = list
        .secrets
        .iter()
        .map(|s| {
            let source = match s.source {
                SecretSource::Kept => "kept here",
                SecretSource::Environment => "the daemon's environment",
            };
            vec![Cell::new(&s.name), Cell::new(s.time.map_or_else(|| "-".into(), |t| ago(t, now))), Cell::new(source)]
        })
        .collect();
    printer.table(&["NAME", "SET", "FROM"], &rows);
    if rows.is_empty() {
        printer.next("vcodingctl secret set ANTHROPIC_API_KEY");
    }
    Ok(0)
}
