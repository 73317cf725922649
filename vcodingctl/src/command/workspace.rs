//! `ls`, …

use protocol::daemon::NoParams;
use protocol::methods::List;

use super::{Outcome, Session};
use crate::printer::{Printer, table};

pub fn ls(session: &Session, printer: &Printer) -> Outcome {
    let list = session.daemon()?.call::<List>(&NoParams {})?;
    if printer.json {
        printer.document(&list);
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = list
        .workspaces
        .iter()
        .map(|w| vec![w.name.to_string(), format!("{:?}", w.phase).to_lowercase(), w.project.display().to_string()])
        .collect();
    for line in table(&["NAME", "STATE", "PROJECT"], &rows) {
        printer.line(&line);
    }
    if rows.is_empty() {
        printer.next("vcodingctl up, in a project with a Dockerfile");
    }
    Ok(0)
}
