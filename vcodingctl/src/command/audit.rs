//! `audit`.

use protocol::Timestamp;
use protocol::audit::{AuditEntry, AuditSearchParams};
use protocol::methods::AuditSearch;

use super::{Outcome, Session};
use crate::args::Audit;
use crate::printer::Printer;
use crate::render::ink::Style;
use crate::render::table::Cell;
use crate::render::text::{ago, brief, one_line};

pub fn run(args: &Audit, session: &Session, printer: &Printer) -> Outcome {
    let params = AuditSearchParams {
        since: args.since,
        method: args.method.clone(),
        workspace: session.named().map(str::to_owned),
        failed: args.failed,
        limit: Some(args.limit),
        ..AuditSearchParams::default()
    };
    let list = session.daemon()?.call::<AuditSearch>(&params)?;
    if printer.json {
        printer.document(&list);
        return Ok(0);
    }
    let now = Timestamp::now();
    let rows: Vec<Vec<Cell>> = list.entries.iter().map(|entry| row(entry, now)).collect();
    printer.table(&["WHEN", "USER", "PID", "METHOD", "OUTCOME", "TOOK", "TARGET"], &rows);
    if list.truncated {
        printer.aside(&format!("the newest {}; -n shows more", list.entries.len()));
    }
    Ok(0)
}

fn row(entry: &AuditEntry, now: Timestamp) -> Vec<Cell> {
    let outcome = match entry.outcome.as_str() {
        "ok" => Cell::new("ok"),
        other => Cell::styled(one_line(other), Style::Red),
    };
    let user = nix::unistd::User::from_uid(entry.uid.into()).ok().flatten();
    vec![
        Cell::new(ago(entry.time, now)),
        Cell::new(user.map_or_else(|| entry.uid.to_string(), |user| user.name)),
        Cell::new(entry.pid.to_string()),
        Cell::new(one_line(&entry.method)),
        outcome,
        Cell::new(brief(entry.took_ms)),
        Cell::new(one_line(entry.target.as_deref().unwrap_or("-"))),
    ]
}
