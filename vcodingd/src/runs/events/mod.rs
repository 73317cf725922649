//! From a log's records to events.
//!
//! Every reader replays the log from its first record through a parser of its own and shows what
//! it wants of it. So an event is the same for each reader and at each time, its number is the
//! record's, and a slow reader holds back nothing but its own memory of one batch.

mod output;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use futures_util::{Stream, StreamExt};
use guest::run;
use protocol::event::{Event, EventBody};
use protocol::{RunId, Timestamp, WorkspaceId};
use tokio::sync::watch;

use super::log::{Content, Ending, Error, Extent, Log, Reader, Record};
use crate::agents::{self, Format, Parser, Verdict};
pub use output::output;

/// So much of a log is parsed at once.
const BATCH: usize = 256 << 10;
/// Pieces of a line are put together up to this length; the rest of it is another line.
const MAX_JOINED: usize = 8 << 20;

/// Whose events they are.
#[derive(Debug, Clone)]
pub struct Origin {
    pub workspace: WorkspaceId,
    pub run: RunId,
}

/// The events of a log from `from` on (default: the first), live until the log is finished; with
/// `once`, to the newest that is there now. Must be polled within a runtime; the work is done on
/// its blocking threads.
///
/// An error is the last item.
pub fn subscribe(
    log: &Log,
    format: Format,
    origin: Origin,
    from: Option<[u64; 2]>,
    once: bool,
) -> impl Stream<Item = Result<Event, Error>> + Send + use<> {
    let watch = log.watch();
    let until = once.then(|| watch.borrow().records);
    let following = Following {
        replay: Some(Replay::new(log, format)),
        ready: VecDeque::new(),
        origin,
        from: from.unwrap_or_default(),
        until,
        watch,
    };
    let events = futures_util::stream::unfold(following, |mut following| async {
        let item = following.next().await?;
        Some((item, following))
    });
    events.fuse()
}

/// What the parser makes of all that is in the log.
///
/// # Errors
/// [`Error`].
pub async fn verdict(log: &Log, format: Format) -> Result<Verdict, Error> {
    // A command says nothing of itself, however much it says.
    if matches!(format, Format::Plain) {
        return Ok(Verdict::default());
    }
    let mut replay = Replay::new(log, format);
    blocking(move || {
        while !replay.batch()?.is_empty() {}
        Ok(replay.parser.verdict())
    })
    .await
    .unwrap_or_else(|| Ok(Verdict::default()))
}

struct Following {
    /// Away only while a batch is made.
    replay: Option<Replay>,
    ready: VecDeque<Event>,
    origin: Origin,
    from: [u64; 2],
    /// Ends before this record.
    until: Option<u64>,
    watch: watch::Receiver<Extent>,
}

impl Following {
    async fn next(&mut self) -> Option<Result<Event, Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let next = self.replay.as_ref()?.reader.next_number();
            let extent = *self.watch.borrow_and_update();
            if next < self.until.unwrap_or(extent.records) {
                if let Err(error) = self.batch().await? {
                    return Some(Err(error));
                }
            } else if self.until.is_some() || extent.finished {
                return None;
            } else {
                self.watch.changed().await.ok()?;
            }
        }
    }

    /// Makes the next batch ready; `None` if there is no more runtime to do it.
    async fn batch(&mut self) -> Option<Result<(), Error>> {
        let mut replay = self.replay.take()?;
        let (replay, batch) = blocking(move || {
            let batch = replay.batch();
            (replay, batch)
        })
        .await?;
        match batch {
            Ok(batch) => {
                self.replay = Some(replay);
                let wanted = batch.into_iter().filter(|(seq, ..)| *seq >= self.from);
                let until = self.until.unwrap_or(u64::MAX);
                let wanted = wanted.filter(|(seq, ..)| seq[0] < until);
                let Origin { workspace, run } = &self.origin;
                self.ready.extend(wanted.map(|(seq, time, body)| Event {
                    seq,
                    time,
                    workspace: workspace.clone(),
                    run: run.clone(),
                    body,
                }));
                Some(Ok(()))
            }
            // Without the replay there is no next item.
            Err(error) => Some(Err(error)),
        }
    }
}

/// Runs on a blocking thread; `None` if the runtime is going down.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Some(result),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}

/// A log under a parser.
struct Replay {
    reader: Reader,
    parser: Box<dyn Parser>,
    /// Pieces of a line whose end is not there yet, by stream.
    pieces: [Vec<u8>; 2],
}

impl Replay {
    fn new(log: &Log, format: Format) -> Self {
        Self { reader: log.reader(0), parser: agents::parser(format), pieces: Default::default() }
    }

    /// The events of the next records; none only at the newest record.
    fn batch(&mut self) -> Result<Vec<([u64; 2], Timestamp, EventBody)>, Error> {
        let mut events = Vec::new();
        // A stretch of records without events must not look like the end.
        while events.is_empty() {
            let records = self.reader.read(BATCH)?;
            if records.is_empty() {
                break;
            }
            for record in records {
                let (number, time) = (record.number, Timestamp::from_unix_ms(record.time_ms));
                let bodies = self.bodies(record);
                events.extend((0..).zip(bodies).map(|(sub, body)| ([number, sub], time, body)));
            }
        }
        Ok(events)
    }

    fn bodies(&mut self, record: Record) -> Vec<EventBody> {
        match record.content {
            Content::Line { stream, ending: Ending::Newline | Ending::Last, bytes } => self.line(stream, bytes),
            Content::Line { stream, ending: Ending::Cut, bytes } => self.piece(stream, bytes),
            Content::Dropped { bytes } => {
                // What comes now does not belong to a line from before.
                let mut bodies = self.flush(run::Stream::Out);
                bodies.extend(self.flush(run::Stream::Err));
                bodies.push(EventBody::Dropped { bytes });
                bodies
            }
        }
    }

    /// A line is whole with this.
    fn line(&mut self, stream: run::Stream, last: Vec<u8>) -> Vec<EventBody> {
        if self.pieces[at(stream)].is_empty() {
            return self.parser.line(stream, &last);
        }
        let mut bodies = self.piece(stream, last);
        bodies.extend(self.flush(stream));
        bodies
    }

    fn piece(&mut self, stream: run::Stream, piece: Vec<u8>) -> Vec<EventBody> {
        let full = self.pieces[at(stream)].len() + piece.len() > MAX_JOINED;
        let bodies = if full { self.flush(stream) } else { Vec::new() };
        let pieces = &mut self.pieces[at(stream)];
        if pieces.is_empty() {
            *pieces = piece;
        } else {
            pieces.extend_from_slice(&piece);
        }
        bodies
    }

    fn flush(&mut self, stream: run::Stream) -> Vec<EventBody> {
        let line = std::mem::take(&mut self.pieces[at(stream)]);
        if line.is_empty() { Vec::new() } else { self.parser.line(stream, &line) }
    }
}

fn at(stream: run::Stream) -> usize {
    match stream {
        run::Stream::Out => 0,
        run::Stream::Err => 1,
    }
}
