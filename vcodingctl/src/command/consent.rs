//! `consent`: what a project asks for that only its user may grant.

use protocol::consent::{Consent, ConsentSetParams, ConsentShowParams};
use protocol::methods::{ConsentSet, ConsentShow};
use protocol::{Error, Kind};

use super::{Outcome, Session};
use crate::args::Answer;
use crate::ask;
use crate::printer::Printer;
use crate::render::ink::Style;
use crate::render::text::{one_line, width};

/// Files that are named on a terminal.
const SECRETS: usize = 20;

pub fn run(answer: Answer, session: &Session, printer: &Printer) -> Outcome {
    let asked = show(session)?;
    let waits = !asked.agreed;
    let answered = match answer {
        Answer { agree: true, .. } => Some(true),
        Answer { withdraw: true, .. } => Some(false),
        Answer { .. } if waits && ask::possible(printer) => {
            list(&asked, printer);
            ask::yes(printer, "Do you agree?")?.then_some(true)
        }
        Answer { .. } => None,
    };
    match answered {
        Some(agree) => set(&asked, agree, session, printer),
        None if printer.json && !waits => {
            printer.document(&asked);
            Ok(0)
        }
        None if waits => {
            if !printer.json && !ask::possible(printer) {
                list(&asked, printer);
            }
            let error = Error::new(Kind::ConsentNeeded, "nobody has agreed to this yet")
                .details(serde_json::to_value(&asked).unwrap_or_default());
            Err(error.hint(printer.typed("vcodingctl consent --agree")).into())
        }
        None => {
            list(&asked, printer);
            if asked.wishes.is_empty() && asked.secrets.is_empty() {
                printer.line("there is nothing that waits for your consent");
            } else {
                printer.line("you have agreed to this");
                printer.next("vcodingctl consent --withdraw");
            }
            Ok(0)
        }
    }
}

/// Asks for it in the middle of a command that needs it; whether it was given. Nobody is asked
/// where nobody is.
pub fn given(session: &Session, printer: &Printer) -> Result<bool, Error> {
    if !ask::possible(printer) {
        return Ok(false);
    }
    let asked = show(session)?;
    list(&asked, printer);
    if !ask::yes(printer, "Do you agree?")? {
        return Ok(false);
    }
    send(&asked, true, session)?;
    Ok(true)
}

fn show(session: &Session) -> Result<Consent, Error> {
    session.daemon()?.call::<ConsentShow>(&ConsentShowParams { project: session.project()? })
}

fn send(asked: &Consent, agree: bool, session: &Session) -> Result<Consent, Error> {
    let params = ConsentSetParams { project: session.project()?, hash: asked.hash.clone(), agree };
    session.daemon()?.call::<ConsentSet>(&params)
}

fn set(asked: &Consent, agree: bool, session: &Session, printer: &Printer) -> Outcome {
    let now = send(asked, agree, session)?;
    if printer.json {
        printer.document(&now);
        return Ok(0);
    }
    let mut what: Vec<String> = asked.wishes.iter().map(|wish| one_line(&wish.key)).collect();
    what.extend(asked.secrets.iter().take(SECRETS).map(|secret| one_line(&secret.path.to_text())));
    if asked.secrets.len() > SECRETS {
        what.push(format!("{} more", asked.secrets.len() - SECRETS));
    }
    if agree {
        what.splice(0..0, asked.files.iter().map(|file| one_line(file)));
    }
    if what.is_empty() {
        printer.line("there is nothing that waits for your consent");
        return Ok(0);
    }
    let verb = if agree { "agreed to" } else { "taken back:" };
    printer.line(&format!("{verb} {} as it is now", what.join(", ")));
    printer.next("vcodingctl up --rebuild");
    Ok(0)
}

fn list(asked: &Consent, printer: &Printer) {
    if !asked.files.is_empty() {
        printer.line("decides how a guest is made, and is not what you agreed to before an agent's work came home; read it first:");
        for file in &asked.files {
            printer.line(&format!("  {}", printer.data(Style::Bold, &one_line(file))));
        }
    }
    if !asked.secrets.is_empty() {
        printer.line("looks like a secret, and would be copied into the guest, since .vcodinginclude names it:");
        for secret in asked.secrets.iter().take(SECRETS) {
            let path = printer.data(Style::Bold, &one_line(&secret.path.to_text()));
            printer.line(&format!("  {path}  {}", one_line(&secret.why)));
        }
        if asked.secrets.len() > SECRETS {
            printer.line(&format!("  and {} more; --json names all", asked.secrets.len() - SECRETS));
        }
    }
    if asked.wishes.is_empty() {
        return;
    }
    printer.line("vcoding.toml asks for more than a repository may decide alone:");
    let cells: Vec<[String; 3]> =
        asked.wishes.iter().map(|w| [&w.key, &w.value, &w.default].map(|text| one_line(text))).collect();
    let widest = |column: usize| cells.iter().map(|cells| width(&cells[column])).max().unwrap_or(0);
    let (keys, values) = (widest(0), widest(1).min(40));
    for [key, value, default] in &cells {
        let (pad, gap) = (" ".repeat(keys - width(key)), " ".repeat(values.saturating_sub(width(value))));
        let value = printer.data(Style::Bold, value);
        printer.line(&format!("  {key}{pad}  {value}{gap}  (without consent: {default})"));
    }
}
