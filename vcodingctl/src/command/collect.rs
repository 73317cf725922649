//! `collect`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use protocol::methods::Collect;
use protocol::transfer::{CollectParams, CollectResult};
use protocol::{Bytes, Error, Kind};

use super::{Outcome, Session};
use crate::printer::Printer;
use crate::render::text::{bytes, counted, one_line};
use crate::wait;

/// Files that are named.
const NAMED: usize = 20;
/// Something stayed as it was: a conflict.
const IN_THE_WAY: u8 = 5;

pub fn run(globs: &[OsString], to: Option<&Path>, force: bool, session: &Session, printer: &Printer) -> Outcome {
    let to = match to {
        Some(to) => std::path::absolute(to).map_err(|e| {
            Error::new(Kind::Usage, format!("{}: {e}", to.display())).hint("vcodingctl collect --to DIR")
        })?,
        None => home(session)?,
    };
    let patterns = globs.iter().map(|glob| pattern(glob, session)).collect::<Result<_, _>>()?;
    let params = CollectParams { workspace: session.workspace()?, patterns, to: to.clone(), force };
    let result = wait::call::<Collect>(&mut session.daemon()?, printer, "copying the files", &params)?;
    let status = if result.in_the_way_total > 0 { IN_THE_WAY } else { 0 };
    if printer.json {
        printer.document(&result);
        return Ok(status);
    }
    show(&result, &to, printer);
    Ok(status)
}

/// Where they go if nobody says: each to its own place in the project.
fn home(session: &Session) -> Result<PathBuf, Error> {
    session.project().map_err(|_| {
        Error::new(Kind::Usage, "outside of a project nobody knows where the files shall go")
            .hint("vcodingctl collect --to DIR GLOB")
    })
}

/// As the guest calls it, or relative to where it is typed.
fn pattern(glob: &OsString, session: &Session) -> Result<Bytes, Error> {
    let inside = Path::new(glob).strip_prefix("/work").map(|path| path.as_os_str().to_owned());
    match inside {
        Ok(inside) if !inside.is_empty() => Ok(Bytes::from(inside)),
        _ => Ok(session.paths(std::slice::from_ref(glob))?.remove(0)),
    }
}

fn show(result: &CollectResult, to: &Path, printer: &Printer) {
    for file in result.files.iter().take(NAMED) {
        printer.line(&format!("  {:>9}  {}", bytes(file.size), one_line(&file.path.to_text())));
    }
    if result.total > NAMED as u64 {
        printer.line(&format!("  and {} more", result.total - NAMED as u64));
    }
    let same = if result.same > 0 { format!(", {} there already", result.same) } else { String::new() };
    let place = one_line(&to.display().to_string());
    printer.line(&format!("{} ({}) in {place}{same}", counted(result.total, "file"), bytes(result.bytes)));
    super::apply::flagged(
        &result.flagged,
        result.flagged_total,
        "programs on this computer may run or obey these; read them first:",
        printer,
    );
    for path in result.in_the_way.iter().take(NAMED) {
        printer.warn(&format!("{} is there and differs; it stays as it is", one_line(&path.to_text())));
    }
    if result.in_the_way_total > 0 {
        printer.next_of(&[
            ("vcodingctl collect --force GLOB", "replace what is there"),
            ("vcodingctl collect --to DIR GLOB", "put them elsewhere"),
        ]);
    }
    for left in result.skipped.iter().take(NAMED) {
        printer.say(&format!("left out: {} ({})", one_line(&left.path.to_text()), one_line(&left.why)));
    }
}
