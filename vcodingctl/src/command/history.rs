//! `checkpoint`, `log`, `diff`, `rollback`.

use std::ffi::OsString;

use protocol::Timestamp;
use protocol::checkpoint::{
    CheckpointCreateParams, CheckpointListParams, CheckpointView, DiffParams, DiffResult, FileChange, RollbackParams,
};
use protocol::methods::{CheckpointCreate, CheckpointDiff, CheckpointList, CheckpointRollback};

use super::{Outcome, Session, names};
use crate::args::BesideRuns;
use crate::printer::Printer;
use crate::render::ink::Style;
use crate::render::patch;
use crate::render::table::Cell;
use crate::render::text::{ago, changes, counted, delta, one_line, short_checkpoint, short_run};
use crate::wait;

pub fn checkpoint(label: Option<String>, session: &Session, printer: &Printer) -> Outcome {
    let params = CheckpointCreateParams { workspace: session.workspace()?, label };
    let result = wait::call::<CheckpointCreate>(&mut session.daemon()?, printer, "recording the work tree", &params)?;
    if printer.json {
        printer.document(&result);
        return Ok(0);
    }
    let checkpoint = &result.checkpoint;
    let id = short_checkpoint(&checkpoint.id);
    if result.created {
        printer.line(&format!(
            "checkpoint {}: {}",
            printer.data(Style::Yellow, &id),
            changes(checkpoint.added, checkpoint.changed, checkpoint.deleted)
        ));
    } else {
        let made = ago(checkpoint.time, Timestamp::now());
        printer.line(&format!("nothing changed since checkpoint {} ({made})", printer.data(Style::Yellow, &id)));
    }
    printer.notes(&result.notes);
    printer.asides(&result.asides);
    Ok(0)
}

pub fn log(limit: u32, session: &Session, printer: &Printer) -> Outcome {
    let params = CheckpointListParams { workspace: session.workspace()?, limit: Some(limit) };
    let list = session.daemon()?.call::<CheckpointList>(&params)?;
    if printer.json {
        printer.document(&list);
        return Ok(0);
    }
    let now = Timestamp::now();
    // Of several with one label the newest is meant.
    let mut labels = std::collections::HashSet::new();
    let rows: Vec<Vec<Cell>> = list
        .checkpoints
        .iter()
        .map(|c| row(c, c.label.as_deref().filter(|label| labels.insert(label.to_owned())), now))
        .collect();
    printer.table(&["CHECKPOINT", "WHEN", "CAUSE", "FILES", "NAMES"], &rows);
    if rows.len() > 1 {
        printer.next_of(&[
            ("vcodingctl diff @~1 @", "what the newest changed"),
            ("vcodingctl rollback NAME", "go back to one"),
        ]);
    }
    Ok(0)
}

fn row(c: &CheckpointView, label: Option<&str>, now: Timestamp) -> Vec<Cell> {
    // Short names first: a long label would push them out of sight.
    let mut names: Vec<String> = Vec::new();
    names.extend(c.names.iter().filter(|n| c.label.as_ref() != Some(*n)).map(|n| short_name(n)));
    if let Some(run) = c.run.as_ref().filter(|_| !c.names.iter().any(|n| n.starts_with("run:"))) {
        names.push(format!("run:{}", short_run(run)));
    }
    names.extend(label.map(str::to_owned));
    vec![
        Cell::styled(short_checkpoint(&c.id), Style::Yellow),
        Cell::new(ago(c.time, now)),
        Cell::new(&c.cause),
        Cell::new(format!("+{} ~{} −{}", c.added, c.changed, c.deleted)),
        Cell::styled(names.join(" "), Style::Cyan),
    ]
}

/// `run:ID` and `run:ID^` with the id's last digits, which is how it may be typed.
fn short_name(name: &str) -> String {
    let Some(rest) = name.strip_prefix("run:") else { return name.to_owned() };
    let (id, start) = rest.strip_suffix('^').map_or((rest, ""), |id| (id, "^"));
    id.parse().map_or_else(|_| name.to_owned(), |id| format!("run:{}{start}", short_run(&id)))
}

/// What `diff` was asked.
#[derive(Debug)]
pub struct Compare<'a> {
    pub from: Option<&'a str>,
    pub to: Option<&'a str>,
    pub stat: bool,
    pub paths: &'a [OsString],
}

pub fn diff(compare: &Compare<'_>, session: &Session, printer: &Printer) -> Outcome {
    let workspace = session.workspace()?;
    let mut daemon = session.daemon()?;
    let mut name = |n: Option<&str>| n.map(|n| names::checkpoint(&mut daemon, session, n)).transpose();
    let (from, to) = (name(compare.from)?, name(compare.to)?);
    let params = DiffParams { workspace, from, to, paths: session.paths(compare.paths)? };
    let typed: Vec<&str> = compare.from.into_iter().chain(compare.to).collect();
    let result = wait::call::<CheckpointDiff>(&mut daemon, printer, "comparing", &params)
        .map_err(|error| names::meant_as_path(error, &typed, "vcodingctl diff"))?;
    if printer.json {
        printer.document(&result);
        return Ok(0);
    }
    let between = format!(
        "{}..{}",
        compare.from.map_or_else(|| "base".into(), one_line),
        compare.to.map_or_else(|| "now".into(), one_line)
    );
    printer.notes(&result.notes);
    printer.asides(&result.asides);
    if result.files.is_empty() {
        printer.aside(&format!("{between}: nothing changed"));
        return Ok(0);
    }
    printer.aside(&format!("{between}: {}", sum(&result)));
    if compare.stat {
        printer.table(&["CHANGE", "LINES", "FILE"], &result.files.iter().map(stat_row).collect::<Vec<_>>());
    } else if printer.data_terminal {
        printer.paged(&patch::for_terminal(result.patch.as_slice(), printer.ink()));
    } else {
        printer.raw(result.patch.as_slice());
    }
    if result.truncated && !compare.stat {
        printer.warn("the patch is cut, it was too long; name paths after -- to see them whole");
    }
    Ok(0)
}

fn sum(diff: &DiffResult) -> String {
    let added = diff.files.iter().filter_map(|f| f.added).sum();
    let deleted = diff.files.iter().filter_map(|f| f.deleted).sum();
    format!("{} changed, {}", counted(diff.files.len() as u64, "file"), delta(added, deleted))
}

fn stat_row(file: &FileChange) -> Vec<Cell> {
    let style = match file.status {
        'A' => Style::Green,
        'D' => Style::Red,
        _ => Style::Yellow,
    };
    let lines = match (file.added, file.deleted) {
        (None, None) => "binary".into(),
        (added, deleted) => delta(added.unwrap_or(0), deleted.unwrap_or(0)),
    };
    let path = file.path.to_text();
    let path = match &file.old_path {
        Some(old) => format!("{} → {path}", old.to_text()),
        None => path.into_owned(),
    };
    vec![Cell::styled(file.status.to_string(), style), Cell::new(lines), Cell::new(path)]
}

pub fn rollback(
    to: &str,
    (clean, runs): (bool, BesideRuns),
    paths: &[OsString],
    session: &Session,
    printer: &Printer,
) -> Outcome {
    let workspace = session.workspace()?;
    let mut daemon = session.daemon()?;
    let name = names::checkpoint(&mut daemon, session, to)?;
    let params =
        RollbackParams { workspace, to: name, paths: session.paths(paths)?, clean, while_running: runs.into() };
    let result = wait::call::<CheckpointRollback>(&mut daemon, printer, "going back", &params)
        .map_err(|error| names::meant_as_path(error, &[to], "vcodingctl rollback NAME"))?;
    if printer.json {
        printer.document(&result);
        return Ok(0);
    }
    let what = if paths.is_empty() {
        "the work tree is".into()
    } else {
        format!("{} back", counted(paths.len() as u64, "path"))
    };
    let target = short_checkpoint(&result.target);
    let target = printer.data(Style::Yellow, &target);
    let c = &result.checkpoint;
    let counts = changes(c.added, c.changed, c.deleted);
    printer.line(&format!("{what} as it was at {} ({target}): {counts}", one_line(to)));
    printer.notes(&result.notes);
    printer.asides(&result.asides);
    printer.next_of(&[("vcodingctl rollback @~1", "the way back")]);
    Ok(0)
}
