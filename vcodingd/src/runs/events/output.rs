//! The output of a run as it was written, for readers that want the bytes and not the events.

use futures_util::{Stream, StreamExt};
use tokio::sync::watch;

use super::blocking;
use crate::runs::log::{Error, Extent, Log, Output, OutputReader};

/// So much is sent at once: a client that does not read has some dozens of these waiting, and control characters are
/// six times as long in JSON.
const PIECE: usize = 64 << 10;

/// The output from byte `from[1]` of record `from[0]` on (default: the first), live until the log is finished; with
/// `once`, to the newest that is there now. Must be polled within a runtime; the work is done on its blocking threads.
///
/// An error is the last item.
pub fn output(
    log: &Log,
    from: Option<[u64; 2]>,
    once: bool,
) -> impl Stream<Item = Result<Output, Error>> + Send + use<> {
    let watch = log.watch();
    let until = once.then(|| watch.borrow().records);
    let reading = Reading { reader: Some(log.output(from.unwrap_or_default())), until, watch };
    let pieces = futures_util::stream::unfold(reading, |mut reading| async {
        let piece = reading.next().await?;
        Some((piece, reading))
    });
    pieces.fuse()
}

struct Reading {
    /// Away only while a piece is read.
    reader: Option<OutputReader>,
    /// Ends before this record.
    until: Option<u64>,
    watch: watch::Receiver<Extent>,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Output, Error>> {
        loop {
            let extent = *self.watch.borrow_and_update();
            let until = self.until.unwrap_or(extent.records);
            let mut reader = self.reader.take()?;
            if reader.next_number() < until {
                let (reader, piece) = blocking(move || {
                    let piece = reader.read(PIECE, until);
                    (reader, piece)
                })
                .await?;
                match piece {
                    Ok(Some(piece)) => {
                        self.reader = Some(reader);
                        return Some(Ok(piece));
                    }
                    // Nothing where something was said to be: a record that is beyond the file.
                    Ok(None) => return None,
                    // Without the reader there is no next item.
                    Err(error) => return Some(Err(error)),
                }
            }
            self.reader = Some(reader);
            if self.until.is_some() || extent.finished {
                return None;
            }
            self.watch.changed().await.ok()?;
        }
    }
}
