//! Following a run: its events as they come, from the first on, across a restart of the daemon,
//! to its record.

use std::io::Write;
use std::time::{Duration, Instant};

use client::{Client, start};
use protocol::event::{Event, OutputStream};
use protocol::message::{Incoming, Subscribed};
use protocol::methods::{RunCancel, RunSubscribe};
use protocol::run::{RunParams, RunState, RunSubscribeParams, RunView};
use protocol::{Error, Kind, RunId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Session;
use crate::printer::Printer;
use crate::render::events::{Piece, Renderer};
use crate::render::ink::Style;
use crate::render::text::{clean, one_line, short_run};
use crate::wait::{Interrupts, TICK, Woken};

/// So long a daemon may be away while it is replaced.
const AWAY: Duration = Duration::from_secs(15);

/// What Ctrl-C means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInterrupt {
    /// Cancel the run and wait for its end; the second time, stop waiting.
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
) -> Result<RunView, Error> {
    let columns = printer.columns();
    let renderer = Renderer::new(printer.ink(), columns, printer.verbose, wanted.command || wanted.raw);
    let mut follower =
        Follower { client, interrupts, wanted, session, printer, renderer, next: None, call: 0, cancel: None };
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
    /// The first `seq` that was not printed yet.
    next: Option<[u64; 2]>,
    /// The subscription's call.
    call: u64,
    /// The cancelling call.
    cancel: Option<u64>,
}

impl Follower<'_> {
    fn subscribe(&mut self) -> Result<(), Error> {
        let (run, from, once, raw) = (self.wanted.run.clone(), self.next, self.wanted.once, self.wanted.raw);
        let params = RunSubscribeParams { run, from, once, raw };
        self.call = self.client.send::<RunSubscribe>(&params, &[])?;
        Ok(())
    }

    fn cancel(&mut self) -> Result<(), Error> {
        self.cancel = Some(self.client.send::<RunCancel>(&RunParams { run: self.wanted.run.clone() }, &[])?);
        Ok(())
    }

    fn until_its_end(&mut self) -> Result<RunView, Error> {
        loop {
            match self.interrupts.or_message(&mut self.client) {
                Ok(Woken::Message(message)) => {
                    if let Some(view) = self.message(message)? {
                        return Ok(view);
                    }
                }
                Ok(Woken::Interrupted) => self.interrupted()?,
                Ok(Woken::Tick) => self.tick(),
                Err(e) if e.kind() == Kind::DaemonUnreachable => self.reconnect(e)?,
                Err(e) => return Err(e),
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

    fn interrupted(&mut self) -> Result<(), Error> {
        let run = short_run(self.wanted.run);
        match (self.wanted.on_interrupt, self.cancel) {
            (OnInterrupt::Leave, _) => {
                Err(Error::new(Kind::Interrupted, format!("no longer following; run {run} goes on"))
                    .hint(format!("vcodingctl logs -f {run}")))
            }
            (OnInterrupt::Cancel, None) => {
                self.printer.say("cancelling the run; Ctrl-C again stops waiting for its end");
                self.cancel()
            }
            (OnInterrupt::Cancel, Some(_)) => Err(Error::new(
                Kind::Interrupted,
                format!("no longer waiting; run {run} was asked to end and may still be there"),
            )
            .hint(format!("vcodingctl logs -f {run}"))),
        }
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
            self.printer.stress(&format!("{} {}", self.printer.talk(Style::Red, "error:"), one_line(problem)));
        }
    }

    fn print(&self, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Line(line) => self.printer.line(&line),
                Piece::Output(stream, text) => self.output(stream, text.as_slice()),
                Piece::Status(text) => self.printer.status(&text),
            }
        }
    }

    /// A line of a background command, on the stream it came from: as it is, unless a terminal
    /// would obey it.
    fn output(&self, stream: OutputStream, bytes: &[u8]) {
        let terminal = match stream {
            OutputStream::Stdout => self.printer.data_terminal,
            OutputStream::Stderr => self.printer.talk_terminal,
        };
        let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let mut line = if terminal { shown(body).into_bytes() } else { body.to_vec() };
        line.push(b'\n');
        match stream {
            OutputStream::Stdout => self.printer.raw(&line),
            OutputStream::Stderr => {
                self.printer.close_line();
                let _ = std::io::stderr().write_all(&line);
            }
        }
    }
}

/// What a terminal would show of a line, and nothing that it would obey.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches('\r');
    let text = text.rsplit_once('\r').map_or(text, |(_, last)| last);
    clean(text).into_owned()
}
