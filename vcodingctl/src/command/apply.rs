//! `apply`.

use protocol::methods::Apply;
use protocol::transfer::{ApplyParams, ApplyResult, Flagged};

use super::{Outcome, Session};
use crate::args::BesideRuns;
use crate::printer::Printer;
use crate::render::ink::Style;
use crate::render::text::{changes, one_line, short_checkpoint, width};
use crate::wait;

pub fn run(branch: Option<String>, runs: BesideRuns, session: &Session, printer: &Printer) -> Outcome {
    let params = ApplyParams { workspace: session.workspace()?, branch, while_running: runs.into() };
    let result = wait::call::<Apply>(&mut session.daemon()?, printer, "taking the work home", &params)?;
    if printer.json {
        printer.document(&result);
        return Ok(0);
    }
    let branch = one_line(&result.branch);
    let Some(commit) = &result.commit else {
        printer.line("nothing to take home: the work tree is as the project was copied in");
        printer.notes(&result.notes);
        return Ok(0);
    };
    printer.line(&format!(
        "branch {} is at {}: {}",
        printer.data(Style::Bold, &branch),
        printer.data(Style::Yellow, &short_checkpoint(commit)),
        changes(result.added, result.changed, result.deleted)
    ));
    flagged(
        &result.flagged,
        result.flagged_total,
        "programs on this computer may run or obey these; read them before you merge:",
        printer,
    );
    printer.notes(&result.notes);
    next(&result, &branch, printer);
    Ok(0)
}

/// Reasons that are shown.
const REASONS: usize = 30;
/// Files that are named for one reason.
const NAMED: usize = 5;

/// Files that something on this computer may run or obey, by reason, of `total` ones.
pub fn flagged(files: &[Flagged], total: u64, why: &str, printer: &Printer) {
    if files.is_empty() {
        return;
    }
    printer.warn(why);
    let mut reasons: Vec<(&str, Vec<&Flagged>)> = Vec::new();
    for file in files {
        match reasons.iter_mut().find(|(why, _)| *why == file.why) {
            Some((_, files)) => files.push(file),
            None => reasons.push((&file.why, vec![file])),
        }
    }
    let shown = || reasons.iter().flat_map(|(_, files)| files.iter().take(NAMED));
    let widest = shown().map(|f| width(&one_line(&f.path.to_text()))).max().unwrap_or(0);
    for (why, files) in reasons.iter().take(REASONS) {
        for file in files.iter().take(NAMED) {
            let path = one_line(&file.path.to_text());
            let pad = " ".repeat(widest - width(&path));
            printer.stress(&format!("  {path}{pad}  {}", one_line(why)));
        }
        if files.len() > NAMED {
            printer.stress(&format!("  and {} more, each {}", files.len() - NAMED, one_line(why)));
        }
    }
    let named: usize = reasons.iter().take(REASONS).map(|(_, files)| files.len()).sum();
    let more = total.max(files.len() as u64) - named as u64;
    if more > 0 {
        printer.stress(&format!("  and {more} more; --json names up to 1,000"));
    }
}

/// What works in the project as it is.
fn next(result: &ApplyResult, branch: &str, printer: &Printer) {
    let (look, merge) = (format!("git diff HEAD...{branch}"), format!("git merge {branch}"));
    if result.unborn {
        // There is nothing that it could be merged into.
        let (look, begin) = (format!("git log -p {branch}"), format!("git reset {branch}"));
        return printer
            .next_of(&[(&look, "look at it"), (&begin, "begin your history with it; your files stay as they are")]);
    }
    let (look, merge) = match result.parent {
        Some(_) => (look, merge),
        // It grew from nothing, and the project has commits by now.
        None => (format!("git log -p {branch}"), format!("git merge --allow-unrelated-histories {branch}")),
    };
    let commit = "git add -A && git commit";
    let mut choices = vec![(look.as_str(), "look at it")];
    if !result.in_the_way.is_empty() {
        let names: Vec<String> = result.in_the_way.iter().take(3).map(|path| one_line(&path.to_text())).collect();
        let more = if result.in_the_way.len() > 3 { ", …" } else { "" };
        printer.say(&format!(
            "{} not committed in your project, so that git will not merge over it: {}{more}",
            printer.talk(Style::Cyan, "note:"),
            names.join(", ")
        ));
        choices.push((commit, "what is yours first"));
    }
    choices.push((&merge, "make it yours"));
    printer.next_of(&choices);
}
