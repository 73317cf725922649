//! `apply`.

use protocol::methods::Apply;
use protocol::transfer::ApplyParams;

use super::{Outcome, Session};
use crate::printer::Printer;
use crate::render::ink::Style;
use crate::render::text::{changes, one_line, short_checkpoint, width};
use crate::wait;

pub fn run(branch: Option<String>, session: &Session, printer: &Printer) -> Outcome {
    let params = ApplyParams { workspace: session.workspace()?, branch };
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
    if !result.flagged.is_empty() {
        printer.warn("programs on this computer may run or obey these; read them before you merge:");
        let widest = result.flagged.iter().map(|f| width(&one_line(&f.path.to_text()))).max().unwrap_or(0);
        for file in &result.flagged {
            let path = one_line(&file.path.to_text());
            let pad = " ".repeat(widest - width(&path));
            printer.stress(&format!("  {path}{pad}  {}", one_line(&file.why)));
        }
    }
    printer.notes(&result.notes);
    if result.parent.is_some() {
        printer.next_of(&[
            (&format!("git diff HEAD...{branch}"), "look at it"),
            (&format!("git merge {branch}"), "make it yours"),
        ]);
    } else {
        // There is nothing that it could be merged into.
        printer.next_of(&[
            (&format!("git log -p {branch}"), "look at it"),
            (&format!("git reset {branch}"), "begin your history with it; your files stay as they are"),
        ]);
    }
    Ok(0)
}
