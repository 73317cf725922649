//! `ls --trash`, `gc`.

use protocol::Timestamp;
use protocol::daemon::NoParams;
use protocol::methods::{Gc, Trash};
use protocol::workspace::{FreedKind, GcParams};

use super::{Outcome, Session};
use crate::printer::Printer;
use crate::render::table::Cell;
use crate::render::text::{ago, bytes, counted, one_line};
use crate::wait;

pub fn ls(session: &Session, printer: &Printer) -> Outcome {
    let list = wait::call::<Trash>(&mut session.daemon()?, printer, "looking at the trash", &NoParams {})?;
    if printer.json {
        printer.document(&list);
        return Ok(0);
    }
    let now = Timestamp::now();
    let rows: Vec<Vec<Cell>> = list
        .trash
        .iter()
        .map(|kept| {
            let until: String = kept.kept_until.to_string().chars().take(10).collect();
            vec![
                Cell::new(kept.id.as_str()),
                Cell::new(kept.name.as_ref().map_or("?", |name| name.as_str())),
                Cell::new(ago(kept.destroyed, now)),
                Cell::new(until),
                Cell::new(bytes(kept.bytes)),
                Cell::new(kept.project.as_ref().map(|path| path.display().to_string()).unwrap_or_default()),
            ]
        })
        .collect();
    printer.table(&["ID", "NAME", "DESTROYED", "KEPT UNTIL", "SIZE", "PROJECT"], &rows);
    if !rows.is_empty() {
        printer.next_of(&[("vcodingctl up --from ID", "brings one back"), ("vcodingctl gc --trash", "ends them all")]);
    }
    Ok(0)
}

pub fn gc(trash: bool, dry_run: bool, session: &Session, printer: &Printer) -> Outcome {
    let params = GcParams { trash, dry_run };
    let result = wait::call::<Gc>(&mut session.daemon()?, printer, "looking for what nobody needs", &params)?;
    if printer.json {
        printer.document(&result);
        return Ok(0);
    }
    for freed in &result.freed {
        let kind = match freed.kind {
            FreedKind::Workspace => "workspace",
            FreedKind::Image => "image",
        };
        printer.line(&format!("{kind:<10}{:<10}{}", bytes(freed.bytes), one_line(&freed.name)));
    }
    let total: u64 = result.freed.iter().map(|freed| freed.bytes).sum();
    let done = if dry_run { "would be freed" } else { "freed" };
    match result.freed.len() as u64 {
        0 => printer.line("there is nothing that nobody needs"),
        count => printer.line(&format!("{} {done}, {} at most", counted(count, "thing"), bytes(total))),
    }
    if result.trashed > 0 {
        let kept = counted(result.trashed, "destroyed workspace");
        printer
            .aside(&format!("the trash keeps {kept}, {}: vcodingctl gc --trash ends them", bytes(result.trash_bytes)));
    }
    Ok(0)
}
