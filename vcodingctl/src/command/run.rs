//! `run`, `runs`, `logs`, `cancel`.

use std::io::{Read, stdin};

use client::Client;
use protocol::methods::{RunCancel, RunList, RunShow, RunStart};
use protocol::run::{RunListParams, RunParams, RunStartParams, RunState, RunView};
use protocol::{Bytes, Error, Kind, Timestamp};

use super::follow::{OnInterrupt, Wanted, follow};
use super::{Outcome, Session, names};
use crate::args::Run;
use crate::printer::Printer;
use crate::progress::Steps;
use crate::render::events::dollars;
use crate::render::ink::Style;
use crate::render::table::Cell;
use crate::render::text::{ago, between, brief, one_line, short_run, word};
use crate::wait::{self, Interrupts, Woken};

/// The longest prompt.
const PROMPT_MAX: u64 = 1024 * 1024;

pub fn run(args: &Run, session: &Session, printer: &Printer) -> Outcome {
    let prompt = prompt(args)?;
    let workspace = session.workspace()?;
    let mut daemon = session.daemon()?;
    let resume = args.resume.as_deref().map(|r| names::run(&mut daemon, session, r)).transpose()?;
    let params = RunStartParams {
        workspace,
        agent: args.agent.first().filter(|first| args.agent.len() > 1 || prompt.as_ref() != Some(first)).cloned(),
        prompt,
        argv: args.argv.iter().cloned().map(Bytes::from).collect(),
        model: args.model.clone(),
        resume,
        timeout_ms: args.timeout,
        max_requests: args.max_requests,
        progress: !printer.json,
    };
    if args.detach {
        let view = wait::call::<RunStart>(&mut daemon, printer, "starting the run", &params)?;
        return Ok(detached(&view, printer));
    }
    let interrupts = Interrupts::and_term()?;
    let (view, cancel_now) = start(&mut daemon, &interrupts, &params, printer)?;
    let id = view.id.clone();
    printer.aside(&format!("run {} in {}; Ctrl-C cancels it", short_run(&id), view.workspace_name));
    let command = params.agent.is_none();
    let wanted =
        Wanted { run: &id, command, raw: args.raw, once: false, on_interrupt: OnInterrupt::Cancel, cancel_now };
    let view = follow(daemon, &interrupts, &wanted, session, printer)?;
    Ok(ended(&view, printer))
}

/// What the agent is asked.
fn prompt(args: &Run) -> Result<Option<String>, Error> {
    let Some(agent) = args.agent.first() else { return Ok(None) };
    // One word is an agent that was asked nothing; more are a prompt for the agent that vcoding.toml names.
    if args.agent.len() == 1 && (agent.contains(char::is_whitespace) || agent == "-") {
        return Ok(Some(if agent == "-" { from_stdin()? } else { agent.clone() }));
    }
    let text = match args.agent.get(1).map(String::as_str) {
        Some("-") => from_stdin()?,
        Some(text) => text.to_owned(),
        None => String::new(),
    };
    let known = templates::AGENTS.iter().any(|(name, _)| name == agent);
    if args.agent.len() == 1 && !known && !agent.contains(char::is_whitespace) {
        return Err(Error::new(Kind::Usage, "an agent and what it is asked are needed")
            .hint(format!("vcodingctl run claude {:?}", one_line(agent))));
    }
    if agent.contains(char::is_whitespace) {
        return Err(Error::new(Kind::Usage, format!("{:?} is no agent's name", one_line(agent)))
            .hint(format!("vcodingctl run claude {:?}", one_line(agent))));
    }
    if text.trim().is_empty() {
        return Err(Error::new(Kind::Usage, format!("{} was asked nothing", one_line(agent)))
            .hint(format!("vcodingctl run {} \"make the failing test pass\"", one_line(agent))));
    }
    Ok(Some(text))
}

fn from_stdin() -> Result<String, Error> {
    let wrong = |what: String| Error::new(Kind::Usage, format!("the prompt on standard input {what}"));
    let mut text = String::new();
    stdin().lock().take(PROMPT_MAX + 1).read_to_string(&mut text).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    if text.len() as u64 > PROMPT_MAX {
        return Err(wrong(format!("is longer than {PROMPT_MAX} bytes")));
    }
    Ok(text)
}

/// Starts it; Ctrl-C before it has an id is remembered, a second one gives up.
fn start(
    daemon: &mut Client,
    interrupts: &Interrupts,
    params: &RunStartParams,
    printer: &Printer,
) -> Result<(RunView, bool), Error> {
    let mut steps = Steps::new(printer, "starting the run");
    let call = daemon.send::<RunStart>(params, &[])?;
    let mut cancel = false;
    loop {
        match interrupts.or_message(daemon)? {
            Woken::Tick | Woken::Readable => steps.tick(),
            Woken::Interrupted(_) if cancel => {
                return Err(
                    Error::new(Kind::Interrupted, "no longer waiting; the run may still start").hint("vcodingctl runs")
                );
            }
            Woken::Interrupted(_) => {
                cancel = true;
                printer.say("the run is cancelled as soon as it has started; Ctrl-C again stops waiting");
            }
            Woken::Message(message) => {
                if let Some(progress) = wait::progress(&message) {
                    steps.show(&progress);
                }
                if let Some(view) = Client::answer_to::<RunStart>(call, message) {
                    printer.close_line();
                    return view.map(|view| (view, cancel));
                }
            }
        }
    }
}

fn detached(view: &RunView, printer: &Printer) -> u8 {
    if printer.json {
        printer.document(view);
    } else {
        printer.line(view.id.as_str());
        printer.next(&format!("vcodingctl logs -f {}", short_run(&view.id)));
    }
    0
}

/// The last words about a run that is over; the exit status.
fn ended(view: &RunView, printer: &Printer) -> u8 {
    let exit = exit(view);
    if printer.json {
        printer.document(view);
        return exit;
    }
    let run = short_run(&view.id);
    if view.agent.is_some() {
        match (&view.before, &view.after) {
            (Some(before), Some(after)) if before == after => printer.aside("no file changed"),
            (Some(_), Some(_)) => printer.next_of(&[
                (&format!("vcodingctl diff run:{run}^ run:{run}"), "what it changed"),
                (&format!("vcodingctl rollback run:{run}^"), "undo it"),
            ]),
            _ => {}
        }
    }
    exit
}

/// The daemon's word, else what the state means.
fn exit(view: &RunView) -> u8 {
    view.exit.unwrap_or(match view.state {
        RunState::Succeeded | RunState::Starting | RunState::Running => 0,
        RunState::Failed | RunState::Lost | RunState::Tampered => 1,
        RunState::Cancelled => 130,
        RunState::TimedOut => 124,
        RunState::Endpoint => 6,
        RunState::Budget => 4,
    })
}

pub fn runs(all: bool, session: &Session, printer: &Printer) -> Outcome {
    let workspace = if all { None } else { Some(session.workspace()?) };
    let list = session.daemon()?.call::<RunList>(&RunListParams { workspace })?;
    if printer.json {
        printer.document(&list);
        return Ok(0);
    }
    let now = Timestamp::now();
    let rows: Vec<Vec<Cell>> = list.runs.iter().map(|r| row(r, all, now)).collect();
    if all {
        printer.table(&["RUN", "STATE", "WORKSPACE", "AGENT", "STARTED", "TOOK", "COST", "TITLE"], &rows);
    } else {
        printer.table(&["RUN", "STATE", "AGENT", "STARTED", "TOOK", "COST", "TITLE"], &rows);
    }
    if rows.is_empty() {
        printer.next("vcodingctl run claude \"…\"");
    }
    Ok(0)
}

fn row(run: &RunView, all: bool, now: Timestamp) -> Vec<Cell> {
    let took = run.ended.map_or_else(|| "-".into(), |ended| brief(between(run.started, ended)));
    let cost = run.cost_usd.map_or_else(|| "-".into(), dollars);
    let mut cells = vec![Cell::new(short_run(&run.id)), state(run.state)];
    if all {
        cells.push(Cell::new(run.workspace_name.as_str()));
    }
    cells.extend([
        Cell::new(run.agent.as_deref().unwrap_or("-")),
        Cell::new(ago(run.started, now)),
        Cell::new(took),
        Cell::new(cost),
        Cell::new(&run.title),
    ]);
    cells
}

fn state(state: RunState) -> Cell {
    let style = match state {
        RunState::Succeeded => Style::Green,
        RunState::Starting | RunState::Running => Style::Cyan,
        RunState::Cancelled => Style::Yellow,
        RunState::Failed
        | RunState::TimedOut
        | RunState::Endpoint
        | RunState::Budget
        | RunState::Lost
        | RunState::Tampered => Style::Red,
    };
    Cell::styled(word(state), style)
}

pub fn logs(run: &str, (stay, raw): (bool, bool), session: &Session, printer: &Printer) -> Outcome {
    let mut daemon = session.daemon()?;
    let id = names::run(&mut daemon, session, run)?;
    let view = daemon.call::<RunShow>(&RunParams { run: id.clone() })?;
    let interrupts = Interrupts::new()?;
    let wanted = Wanted {
        run: &id,
        command: view.agent.is_none(),
        raw,
        once: !stay,
        on_interrupt: OnInterrupt::Leave,
        cancel_now: false,
    };
    let view = follow(daemon, &interrupts, &wanted, session, printer)?;
    if printer.json {
        printer.document(&view);
    } else if !view.state.is_over() {
        printer.next(&format!("vcodingctl logs -f {}", short_run(&id)));
    }
    Ok(0)
}

pub fn cancel(run: &str, session: &Session, printer: &Printer) -> Outcome {
    let mut daemon = session.daemon()?;
    let id = names::run(&mut daemon, session, run)?;
    let view = wait::call::<RunCancel>(&mut daemon, printer, "ending the run", &RunParams { run: id })?;
    if printer.json {
        printer.document(&view);
    } else {
        printer.line(&format!("run {} is over: {}", short_run(&view.id), word(view.state)));
    }
    Ok(0)
}
