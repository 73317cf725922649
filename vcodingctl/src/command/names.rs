//! Names as people type them: short ids of runs, `@` for the newest, `run:…` in checkpoint names.

use client::Client;
use protocol::methods::RunList;
use protocol::run::{RunListParams, RunView};
use protocol::{Error, Kind, RunId};

use super::Session;
use crate::render::text::short_run;

/// Fewer digits are more likely a slip than a name.
const FEWEST: usize = 4;

/// The run that is meant: a whole id; `@`, the newest of the workspace; or digits that only one
/// run's id begins or ends with, or that begin what listings show of it.
///
/// # Errors
/// [`Kind::RunNotFound`]; [`Kind::Usage`] where several fit.
pub fn run(client: &mut Client, session: &Session, text: &str) -> Result<RunId, Error> {
    let typed = text.trim().to_ascii_lowercase();
    if let Ok(id) = typed.parse() {
        return Ok(id);
    }
    let workspace = if typed == "@" { Some(session.workspace()?) } else { None };
    let runs = client.call::<RunList>(&RunListParams { workspace })?.runs;
    match &*typed {
        "@" => runs.into_iter().max_by_key(|r| r.id.clone()).map(|r| r.id).ok_or_else(|| {
            Error::new(Kind::RunNotFound, "this workspace had no run yet").hint("vcodingctl run claude \"…\"")
        }),
        digits if digits.len() < FEWEST => {
            Err(Error::new(Kind::Usage, format!("{text:?} is too short for a run's id: type at least {FEWEST} digits"))
                .hint("vcodingctl runs"))
        }
        digits => only(&runs, digits),
    }
}

fn only(runs: &[RunView], digits: &str) -> Result<RunId, Error> {
    let shown = |id: &RunId| short_run(id).starts_with(digits);
    let fits = |id: &RunId| id.as_str().starts_with(digits) || id.as_str().ends_with(digits) || shown(id);
    let mut fitting = runs.iter().map(|r| &r.id).filter(|id| fits(id));
    match (fitting.next(), fitting.next()) {
        (Some(id), None) => Ok(id.clone()),
        (None, _) => Err(Error::new(Kind::RunNotFound, format!("no run {digits:?}")).hint("vcodingctl runs --all")),
        (Some(one), Some(other)) => {
            Err(Error::new(Kind::Usage, format!("{digits:?} fits several runs, {one} and {other} among them"))
                .hint("type more digits of one of them"))
        }
    }
}

/// A checkpoint's name for the daemon: in `run:ID` and `run:ID^` the id is made whole.
///
/// # Errors
/// As [`run`].
pub fn checkpoint(client: &mut Client, session: &Session, name: &str) -> Result<String, Error> {
    let Some(rest) = name.strip_prefix("run:") else { return Ok(name.to_owned()) };
    let (id, start) = rest.strip_suffix('^').map_or((rest, ""), |id| (id, "^"));
    Ok(format!("run:{}{start}", run(client, session, id)?))
}

/// An unknown checkpoint that is a path was meant as one.
pub fn meant_as_path(error: Error, names: &[&str], command: &str) -> Error {
    let path = names.iter().find(|name| name.contains('/') || std::path::Path::new(name).exists());
    match path.filter(|_| error.kind() == Kind::CheckpointNotFound) {
        Some(path) => error.hint(format!("paths come after --: {command} -- {path}")),
        None => error,
    }
}
