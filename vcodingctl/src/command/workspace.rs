//! `up`, `ls`, `show`, `start`, `stop`, `destroy`.

use std::path::PathBuf;

use protocol::daemon::NoParams;
use protocol::methods::{Destroy, List, Show, Start, Stop, Up};
use protocol::workspace::{
    DestroyParams, LeftOut, Limits, Phase, StopParams, UpParams, UpResult, Waiting, Wall, WhileRunning,
    WorkspaceParams, WorkspaceView,
};
use protocol::{Error, Kind, Timestamp};

use super::{Outcome, Session, consent};
use crate::args::BesideRuns;
use crate::init;
use crate::printer::Printer;
use crate::render::ink::Style;
use crate::render::table::Cell;
use crate::render::text::{ago, bytes, counted, one_line, short_checkpoint, word};
use crate::render::wall;
use crate::wait;

pub fn up((rebuild, no_cache): (bool, bool), from: Option<String>, session: &Session, printer: &Printer) -> Outcome {
    let project = match session.project() {
        Err(error) if error.kind() == Kind::NoProject && init::offered(&error, session, printer)? => session.project(),
        // A workspace that is there is named from anywhere.
        Err(error) if error.kind() == Kind::NoProject => match named(session)? {
            Some(project) => Ok(project),
            None => Err(error),
        },
        other => other,
    }?;
    let params = UpParams { project, name: session.name()?, rebuild, no_cache, from, progress: !printer.json };
    let make = || wait::call::<Up>(&mut session.daemon()?, printer, "making the workspace", &params);
    let result = match make() {
        Err(error) if error.kind() == Kind::ConsentNeeded && consent::given(session, printer)? => make(),
        Err(error) if error.kind() == Kind::NoDockerfile && init::offered(&error, session, printer)? => make(),
        other => other,
    }?;
    if printer.json {
        printer.document(&result);
        return Ok(0);
    }
    arrived(&result, printer);
    if result.created {
        printer.next_of(&[
            ("vcodingctl run claude \"…\"", "let an agent work in it"),
            ("vcodingctl exec -- CMD", "run a command in it"),
        ]);
    }
    Ok(0)
}

/// The project of the workspace that `-w` names, if there is such a one.
fn named(session: &Session) -> Result<Option<PathBuf>, Error> {
    let Some(name) = session.name()? else { return Ok(None) };
    let all = session.daemon()?.call::<List>(&NoParams {})?.workspaces;
    Ok(all.into_iter().find(|workspace| workspace.name == name).map(|workspace| workspace.project))
}

/// What it is, what isolates it, what is not in it.
fn arrived(result: &UpResult, printer: &Printer) {
    let view = &result.workspace;
    let name = printer.data(Style::Bold, view.name.as_str());
    let copied = if result.created && result.files > 0 {
        format!(": {} copied in", counted(result.files, "file"))
    } else {
        String::new()
    };
    printer.line(&format!("{name} is {}{copied}", word(view.phase)));
    if let Some(wall) = &result.wall {
        let [first, second] = wall::brief(wall, printer.ink());
        printer.line(&format!("  wall: {first}"));
        printer.line(&format!("        {second}"));
    }
    left_out(&result.left_out, result.left_out_total, printer);
    printer.notes(&result.notes);
}

/// A short list, grouped by the reason.
fn left_out(listed: &[LeftOut], total: u64, printer: &Printer) {
    const MOST: usize = 6;
    if listed.is_empty() {
        return;
    }
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for file in listed.iter().take(MOST) {
        let path = one_line(&file.path.to_text());
        match groups.iter_mut().find(|(why, _)| *why == file.why) {
            Some((_, paths)) => paths.push(path),
            None => groups.push((&file.why, vec![path])),
        }
    }
    let groups: Vec<String> =
        groups.iter().map(|(why, paths)| format!("{} ({})", paths.join(", "), one_line(why))).collect();
    let more = total.max(listed.len() as u64) - listed.len().min(MOST) as u64;
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    printer.say(&format!("{} {}{more}", printer.talk(Style::Cyan, "left out:"), groups.join(", ")));
}

pub fn ls(session: &Session, printer: &Printer) -> Outcome {
    let list = session.daemon()?.call::<List>(&NoParams {})?;
    if printer.json {
        printer.document(&list);
        return Ok(0);
    }
    let now = Timestamp::now();
    let rows: Vec<Vec<Cell>> = list
        .workspaces
        .iter()
        .map(|w| {
            vec![
                Cell::new(w.name.as_str()),
                phase(w.phase),
                Cell::new(ago(w.created, now)),
                Cell::new(w.runs.to_string()),
                match (w.unapplied, w.unrecorded) {
                    (true, _) => Cell::styled("yes", Style::Yellow),
                    (false, true) => Cell::styled("maybe", Style::Yellow),
                    (false, false) => Cell::new("no"),
                },
                Cell::new(w.project.display().to_string()),
            ]
        })
        .collect();
    printer.table(&["NAME", "STATE", "CREATED", "RUNNING", "UNAPPLIED", "PROJECT"], &rows);
    for broken in list.workspaces.iter().filter(|w| w.phase == Phase::Broken) {
        problem(broken, printer);
    }
    waiting(&list.workspaces, now, printer);
    list.workspaces.iter().for_each(|view| warned(view, printer));
    if rows.is_empty() {
        printer.next("vcodingctl up, in a project with a Dockerfile");
    }
    Ok(0)
}

fn phase(phase: Phase) -> Cell {
    match phase {
        Phase::Ready => Cell::styled(word(phase), Style::Green),
        Phase::Stopped => Cell::styled(word(phase), Style::Dim),
        Phase::Broken => Cell::styled(word(phase), Style::Red),
        Phase::Creating | Phase::Starting | Phase::Stopping | Phase::Destroying => {
            Cell::styled(word(phase), Style::Yellow)
        }
    }
}

/// What each is at that is on its way, and since when.
fn waiting(all: &[WorkspaceView], now: Timestamp, printer: &Printer) {
    const MOST: usize = 10;
    let mut waits = all.iter().filter_map(|view| Some((view, view.waiting.as_ref()?)));
    for (view, waiting) in waits.by_ref().take(MOST) {
        printer.aside(&format!("{}: {}", view.name, waits_for(waiting, now)));
    }
    match waits.count() {
        0 => {}
        more => printer.aside(&format!("and {more} more are on their way")),
    }
}

fn waits_for(waiting: &Waiting, now: Timestamp) -> String {
    format!("waits for {} (since {})", one_line(&waiting.what), ago(waiting.since, now))
}

fn warned(view: &WorkspaceView, printer: &Printer) {
    if let Some(warning) = &view.warning {
        printer.warn(&format!("{}: {}", view.name, one_line(warning)));
    }
}

fn problem(view: &WorkspaceView, printer: &Printer) {
    if let Some(problem) = &view.problem {
        printer.warn(&format!("{}: {}", view.name, one_line(problem)));
        printer.next(&format!("vcodingctl -w {} start", view.name));
    }
}

pub fn show(session: &Session, printer: &Printer) -> Outcome {
    let result = session.daemon()?.call::<Show>(&WorkspaceParams { workspace: session.workspace()? })?;
    if printer.json {
        printer.document(&result);
        return Ok(0);
    }
    let view = &result.workspace;
    printer.line(&format!("{} is {}", printer.data(Style::Bold, view.name.as_str()), word(view.phase)));
    for (name, fact) in facts(view) {
        printer.line(&format!("  {name:<14}{fact}"));
    }
    for (name, fact) in result.limits.iter().flat_map(|limits| bounds(limits, &result.in_memory)) {
        printer.line(&format!("  {name:<14}{fact}"));
    }
    match &result.wall {
        Some(wall) => isolation(wall, printer),
        None => printer.aside("what isolates it is read from the kernel while it runs"),
    }
    problem(view, printer);
    warned(view, printer);
    if view.unapplied {
        printer.next_of(&[("vcodingctl diff", "what was done"), ("vcodingctl apply", "take it home")]);
    }
    Ok(0)
}

fn facts(view: &WorkspaceView) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("id", view.id.to_string()),
        ("project", one_line(&view.project.display().to_string())),
        ("created", ago(view.created, Timestamp::now())),
    ];
    facts.extend(view.image.as_deref().map(|image| ("image", one_line(image))));
    facts.extend(view.base.as_deref().map(|base| ("base", short_checkpoint(base))));
    let unapplied = if view.unapplied { "  (not applied)" } else { "" };
    facts.extend(view.head.as_deref().map(|head| ("newest", format!("{}{unapplied}", short_checkpoint(head)))));
    facts.push(("runs", if view.runs == 0 { "none under way".into() } else { format!("{} under way", view.runs) }));
    facts
}

/// What it may use, and what of it does not outlive its guest.
fn bounds(limits: &Limits, in_memory: &[String]) -> Vec<(&'static str, String)> {
    let text = format!(
        "{} of memory, {} of disk, {} processors, {} processes, {} open files",
        bytes(limits.memory),
        bytes(limits.disk),
        f64::from(u32::try_from(limits.milli_cpus).unwrap_or(u32::MAX)) / 1000.0,
        limits.pids,
        limits.open_files
    );
    let mut bounds = vec![("limits", text)];
    if let Some(asked) = limits.open_files_asked {
        bounds.push(("", format!("{asked} open files were asked for; this computer gives no more")));
    }
    if !in_memory.is_empty() {
        bounds.push(("in memory", format!("{} (ends with the guest)", one_line(&in_memory.join(", ")))));
    }
    bounds
}

fn isolation(wall: &Wall, printer: &Printer) {
    printer.line("what isolates it, as the kernel and the engine report it:");
    for (name, fact) in wall::full(wall, printer.ink()) {
        printer.line(&format!("  {name:<14}{fact}"));
    }
}

pub fn start(session: &Session, printer: &Printer) -> Outcome {
    let params = WorkspaceParams { workspace: session.workspace()? };
    let result = wait::call::<Start>(&mut session.daemon()?, printer, "starting the guest", &params)?;
    if printer.json {
        printer.document(&result);
    } else {
        printer.line(&format!("{} is {}", result.workspace.name, word(result.workspace.phase)));
    }
    Ok(0)
}

pub fn stop(runs: BesideRuns, session: &Session, printer: &Printer) -> Outcome {
    let workspace = session.workspace()?;
    let params = StopParams { workspace: workspace.clone(), while_running: runs.into() };
    let mut daemon = session.daemon()?;
    let runs = daemon.call::<Show>(&WorkspaceParams { workspace })?.workspace.runs;
    let result = wait::call::<Stop>(&mut daemon, printer, "stopping the guest", &params)?;
    if printer.json {
        printer.document(&result);
        return Ok(0);
    }
    let view = &result.workspace;
    let ended = if runs > 0 && params.while_running == WhileRunning::Force {
        format!(", and {} with it", counted(u64::from(runs), "run"))
    } else {
        String::new()
    };
    printer.line(&format!("{} is {}{ended}; its files and its history stay", view.name, word(view.phase)));
    if !result.in_memory.is_empty() {
        printer.warn(&format!("what was in {} is gone: it lay in memory", one_line(&result.in_memory.join(", "))));
    }
    printer.next("vcodingctl start");
    Ok(0)
}

pub fn destroy(force: bool, purge: bool, session: &Session, printer: &Printer) -> Outcome {
    let params = DestroyParams { workspace: session.workspace()?, force, purge };
    let result = wait::call::<Destroy>(&mut session.daemon()?, printer, "ending the workspace", &params)
        .map_err(|error| refused(error, printer))?;
    if printer.json {
        printer.document(&result);
        return Ok(0);
    }
    match result.kept_until {
        Some(until) => {
            let day: String = until.to_string().chars().take(10).collect();
            let what = "its work tree, its home and its history are kept";
            printer.line(&format!("{} is gone; {what} until {day}", result.name));
            printer.notes(&result.notes);
            printer.next_of(&[(&format!("vcodingctl up --from {}", result.id), "brings it back")]);
        }
        None => {
            printer.line(&format!("{} is gone, and nothing of it is kept", result.name));
            printer.notes(&result.notes);
        }
    }
    Ok(0)
}

/// A refusal to destroy says what can be done instead, whether the daemon did or not.
fn refused(error: Error, printer: &Printer) -> Error {
    if error.kind() != Kind::UnappliedWork || error.data.hint.is_some() {
        return error;
    }
    let ways = [
        ("diff             ", "look at it"),
        ("apply            ", "take it home"),
        ("destroy --force  ", "give it up"),
    ];
    let ways = ways.map(|(way, purpose)| format!("{} {purpose}", printer.typed(&format!("vcodingctl {way}"))));
    error.hint(ways.join("\n"))
}
