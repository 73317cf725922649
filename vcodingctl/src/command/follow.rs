//! Following a run: its events as they come, from the first on, across a restart of the daemon,
//! to its record.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use client::{Client, start};
use nix::sys::signal::Signal;
use protocol::event::Event;
use protocol::message::{Incoming, Subscribed};
use protocol::methods::{RunCancel, RunSubscribe};
use protocol::run::{RunOutput, RunParams, RunState, RunSubscribeParams, RunView};
use protocol::{Error, Kind, RunId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::output::{Outputs, Pipe};
use super::{Failure, Session};
use crate::printer::Printer;
use crate::render::events::{Piece, Renderer};
use crate::render::ink::Style;
use crate::render::text::{one_line, short_run};
use crate::wait::{GRACE, Interrupts, TICK, Woken};

/// So long a daemon may be away while it is replaced.
const AWAY: Duration = Duration::from_secs(15);

/// What Ctrl-C means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInterrupt {
    /// Cancel the run and wait for its end; the second time, and some time after TERM, stop waiting.
    Cancel,
    /// Stop following; the run goes on.
    Leave,
}

/// What to follow, and how.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub run: &'a RunId,
    /// A background command: its output is printed as it is.
    pub command: bool,
    /// An agent's output, too, in the agent's own format.
    pub raw: bool,
    /// End at the newest event.
    pub once: bool,
    pub on_interrupt: OnInterrupt,
    /// Ctrl-C came before there was a run to cancel.
    pub cancel_now: bool,
}

/// A `run.event` notification's `result`; the event stays as it came, so that types which this
/// program does not know pass through `--json`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Item<'a> {
    #[serde(borrow)]
    Event(&'a RawValue),
    Output(RunOutput),
    End(Box<RunView>),
}

#[derive(Deserialize)]
struct Numbered {
    seq: [u64; 2],
}

/// Prints events until the run's record comes, and returns that.
///
/// # Errors
/// What the daemon answered; [`Kind::Interrupted`] when Ctrl-C ended the following.
pub fn follow(
    client: Client,
    interrupts: &Interrupts,
    wanted: &Wanted<'_>,
    session: &Session,
    printer: &Printer,
) -> Result<RunView, Failure> {
    let mut follower = Follower {
        client,
        interrupts,
        wanted,
        session,
        printer,
        renderer: Renderer::new(printer.ink(), printer.columns(), printer.verbose),
        outputs: Outputs::new(printer),
        next: None,
        call: 0,
        cancel: None,
        patience: None,
        ended: None,
        lost: None,
        pipe: None,
    };
    follower.subscribe()?;
    if wanted.cancel_now {
        follower.cancel()?;
    }
    let view = follower.until_its_end()?;
    follower.last_words(&view);
    Ok(view)
}

struct Follower<'a> {
    client: Client,
    interrupts: &'a Interrupts,
    wanted: &'a Wanted<'a>,
    session: &'a Session,
    printer: &'a Printer,
    renderer: Renderer,
    outputs: Outputs<'a>,
    /// The first `seq` that was not printed yet.
    next: Option<[u64; 2]>,
    /// The subscription's call.
    call: u64,
    /// The cancelling call.
    cancel: Option<u64>,
    /// How long the end of a run that was cancelled by TERM is waited for.
    patience: Option<Instant>,
    /// Its record, last of all.
    ended: Option<RunView>,
    /// The daemon went away; what it had sent comes first.
    lost: Option<Error>,
    pipe: Option<Pipe>,
}

impl Follower<'_> {
    fn subscribe(&mut self) -> Result<(), Error> {
        let Wanted { run, command, once, raw, .. } = *self.wanted;
        // Programs that read JSON get the events.
        let bytes = (command || raw) && !self.printer.json;
        let params = RunSubscribeParams { run: run.clone(), from: self.next, once, raw: raw && !bytes, bytes };
        let (pipe, writing) = if bytes { Pipe::new() } else { None }.unzip();
        self.pipe = pipe;
        let descriptors: Vec<_> = writing.iter().map(AsFd::as_fd).collect();
        self.call = self.client.send::<RunSubscribe>(&params, &descriptors)?;
        Ok(())
    }

    fn cancel(&mut self) -> Result<(), Error> {
        self.cancel = Some(self.client.send::<RunCancel>(&RunParams { run: self.wanted.run.clone() }, &[])?);
        Ok(())
    }

    fn until_its_end(&mut self) -> Result<RunView, Failure> {
        loop {
            if self.patience.is_some_and(|patience| Instant::now() >= patience) {
                return Err(self.no_longer_waiting(Signal::SIGTERM));
            }
            if !self.outputs.flush(self.interrupts) {
                if let Some(signal) = self.interrupts.come() {
                    self.interrupted(signal)?;
                }
                continue;
            }
            // Its output is whole when the daemon has closed the pipe.
            if self.pipe.is_none()
                && let Some(error) = self.lost.take()
            {
                self.reconnect(error)?;
            }
            if self.pipe.is_none()
                && let Some(view) = self.ended.take()
            {
                self.outputs.close();
                if !self.outputs.is_empty() {
                    self.ended = Some(view);
                    continue;
                }
                return Ok(view);
            }
            if self.ended.is_some() || self.lost.is_some() {
                self.pour()?;
                continue;
            }
            let pipe = self.pipe.as_ref().map(Pipe::as_fd);
            match self.interrupts.or_message_or(&mut self.client, pipe) {
                Ok(Woken::Readable) => self.pour()?,
                Ok(Woken::Message(message)) => {
                    self.ended = self.message(message)?;
                }
                Ok(Woken::Interrupted(signal)) => self.interrupted(signal)?,
                Ok(Woken::Tick) => self.tick(),
                Err(e) if e.kind() == Kind::DaemonUnreachable => self.lost = Some(e),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn message(&mut self, message: Incoming) -> Result<Option<RunView>, Error> {
        if message.method.as_deref() != Some("run.event") {
            return self.reply(message).map(|()| None);
        }
        let item = message.params.as_ref().and_then(|p| serde_json::from_str::<Subscribed<&RawValue>>(p.get()).ok());
        // What is not understood is newer than this program.
        match item.and_then(|s| serde_json::from_str::<Item<'_>>(s.result.get()).ok()) {
            Some(Item::End(view)) => {
                let pieces = self.renderer.idle();
                self.print(pieces);
                Ok(Some(*view))
            }
            Some(Item::Output(output)) => {
                self.output(&output);
                Ok(None)
            }
            Some(Item::Event(raw)) => {
                self.event(raw);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn event(&mut self, raw: &RawValue) {
        let Ok(Numbered { seq }) = serde_json::from_str(raw.get()) else { return };
        if self.next.is_some_and(|next| seq < next) {
            return;
        }
        self.next = Some([seq[0], seq[1].saturating_add(1)]);
        if self.printer.json {
            return self.printer.document(&raw);
        }
        if let Ok(event) = serde_json::from_str::<Event>(raw.get()) {
            self.renderer.resize(self.printer.columns());
            let pieces = self.renderer.event(&event);
            self.print(pieces);
            if let Some(status) = self.renderer.status() {
                self.printer.status(&status);
            }
        }
    }

    /// What came through the pipe.
    fn pour(&mut self) -> Result<(), Error> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let (pieces, more) = pipe.read()?;
        if !more {
            self.pipe = None;
        }
        pieces.iter().for_each(|piece| self.output(piece));
        Ok(())
    }

    fn output(&mut self, output: &RunOutput) {
        if self.next.is_some_and(|next| output.seq < next) {
            return;
        }
        self.next = Some(output.next);
        output.parts.iter().for_each(|part| self.outputs.write(part));
    }

    /// The answer to the subscribing or the cancelling call; only a refusal matters, since the
    /// run's record comes as the last item.
    fn reply(&mut self, message: Incoming) -> Result<(), Error> {
        let cancelling = self.cancel.is_some_and(|id| message.id == Some(id.into()));
        let Some(error) = message.error else { return Ok(()) };
        let error = Error::from(error);
        if cancelling {
            self.printer.warn(&format!("the run could not be cancelled: {}", one_line(&error.message)));
            self.cancel = None;
            return Ok(());
        }
        Err(error)
    }

    fn interrupted(&mut self, signal: Signal) -> Result<(), Failure> {
        let run = short_run(self.wanted.run);
        match (self.wanted.on_interrupt, self.cancel) {
            (OnInterrupt::Leave, _) => {
                Err(Error::new(Kind::Interrupted, format!("no longer following; run {run} goes on"))
                    .hint(format!("vcodingctl logs -f {run}"))
                    .into())
            }
            (OnInterrupt::Cancel, None) => {
                self.printer.say("cancelling the run; Ctrl-C again stops waiting for its end");
                self.patience = (signal == Signal::SIGTERM).then(|| Instant::now() + GRACE);
                Ok(self.cancel()?)
            }
            (OnInterrupt::Cancel, Some(_)) => Err(self.no_longer_waiting(signal)),
        }
    }

    fn no_longer_waiting(&self, signal: Signal) -> Failure {
        let run = short_run(self.wanted.run);
        let message = format!("no longer waiting; run {run} was asked to end and may still be there");
        let error = Error::new(Kind::Interrupted, message).hint(format!("vcodingctl logs -f {run}"));
        Failure { error, status: Some(128 + u8::try_from(signal as i32).unwrap_or(0)) }
    }

    fn tick(&mut self) {
        if self.printer.json {
            return;
        }
        let pieces = self.renderer.idle();
        self.print(pieces);
        if let Some(status) = self.renderer.status() {
            self.printer.status(&status);
        }
    }

    /// A run does not end with the daemon: the next daemon goes on with it.
    fn reconnect(&mut self, lost: Error) -> Result<(), Error> {
        let deadline = Instant::now() + AWAY;
        self.printer.say("the daemon went away; waiting for it to come back");
        while Instant::now() < deadline {
            if self.interrupts.within(TICK) {
                break;
            }
            if let Ok(client) = start::connect(&self.session.places) {
                self.client = client;
                self.subscribe()?;
                return if self.cancel.is_some() { self.cancel() } else { Ok(()) };
            }
        }
        Err(lost.hint(format!("vcodingctl daemon start, then vcodingctl logs -f {}", short_run(self.wanted.run))))
    }

    /// How it ended; a background command's own words are enough where nobody looks.
    fn last_words(&mut self, view: &RunView) {
        self.printer.close_line();
        if self.printer.json {
            return;
        }
        let line = self.renderer.end(view, self.printer.talk_ink());
        if self.wanted.command || self.wanted.raw {
            self.printer.closing(&line);
        } else {
            self.printer.closing("");
            self.printer.say(&line);
        }
        if let Some(problem) = view.problem.as_deref().filter(|_| view.state != RunState::Succeeded) {
            let line = format!("{} {}", self.printer.talk(Style::Red, "error:"), one_line(problem));
            // A command that failed by itself is told by its status; what it wrote stays as it was.
            if self.wanted.command && view.state == RunState::Failed && view.memory_limit.is_none() {
                self.printer.closing(&line);
            } else {
                self.printer.stress(&line);
            }
        }
    }

    fn print(&self, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Line(line) => self.printer.line(&line),
                Piece::Status(text) => self.printer.status(&text),
            }
        }
    }
}
