//! From the guest's run directory into the host's log.
//!
//! The directory is written by our supervisor, and by anybody else in the guest. So nothing in it
//! is followed, waited for or believed: a segment is opened once (beneath the directory, not
//! blocking), must be a regular file with one name, stays open until it was read whole, and is
//! checked against its name and its length before each read. What does not fit ends the run as
//! tampered with. What was read is the guest's word in any case; what these checks give is that
//! the host reads each byte once and is never stuck.
//!
//! A segment is removed when all of it is durable in the log. The supervisor stops reading the
//! command's output while too many segments wait, so a slow host makes the command wait and
//! nothing is lost.

mod lines;
mod segments;
mod watch;

#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs::Root;
use guest::places::RUNS;
use guest::run::{END, End, MAX_END, SEGMENT, Stream};
use protocol::RunId;
use tokio_util::sync::CancellationToken;

use super::log::{self, Log, Writer};
use segments::{Segments, open_file, read_at};
use watch::Watch;

/// Why the tail ended without the run's end.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// It was asked to; another may go on where it was.
    #[error("the run is no longer followed")]
    Stopped,
    /// The run's directory is not there.
    #[error("the run's directory {} is missing", path.display())]
    Missing { path: PathBuf },
    /// What is there is not what our supervisor writes.
    #[error("the run's files were tampered with: {what}")]
    Tampered { what: String },
    /// The log was finished without an end: nobody waits for one any more.
    #[error("the run is over, and how it ended is not known")]
    Over,
    /// Another tail of this run is at work.
    #[error("the run is being followed already")]
    Busy,
    #[error("the run's file {name} cannot be read")]
    Read { name: String, source: io::Error },
    #[error("the run's directory cannot be used")]
    Directory(#[from] fs::Error),
    #[error(transparent)]
    Log(#[from] log::Error),
}

/// Reads a run's output into its log until the run has ended and all its output is there; then
/// the log is finished, and durable. `run_dir` is the guest's run directory as the host sees it
/// (`workspaces/<id>/run`).
///
/// It can be stopped, or killed, at any point and begun again: nothing is lost and nothing is
/// twice. A log that was finished with an end returns it again.
///
/// # Errors
/// [`TailError::Stopped`] and [`TailError::Busy`] say nothing about the run. After
/// [`TailError::Missing`] and [`TailError::Tampered`] it is lost: the caller ends the guest's
/// processes and finishes the log without an end. The others (a full disk) can be tried again.
pub async fn tail(run_dir: &Path, id: &RunId, log: &Log, stop: CancellationToken) -> Result<End, TailError> {
    tail_with(run_dir, id, log, stop, Limits::default()).await
}

/// Removes a run's directory from the guest's run directory, once its end is recorded. Missing is
/// fine. Blocking.
///
/// # Errors
/// [`fs::Error`].
pub fn clear(run_dir: &Path, id: &RunId) -> Result<(), fs::Error> {
    match Root::open(run_dir) {
        Ok(root) => root.remove_all(&Path::new(RUNS).join(id.as_str())),
        Err(error) if error.is_missing() => Ok(()),
        Err(error) => Err(error),
    }
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    /// A segment's size.
    segment: u64,
    /// How long the directory may be missing: the supervisor makes it before it answers.
    missing: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { segment: SEGMENT, missing: Duration::from_secs(10) }
    }
}

async fn tail_with(
    run_dir: &Path,
    id: &RunId,
    log: &Log,
    stop: CancellationToken,
    limits: Limits,
) -> Result<End, TailError> {
    if let Some(finish) = log.finished() {
        return finish.end.ok_or(TailError::Over);
    }
    let place = Place::new(run_dir, id);
    let dir = appear(&place, &stop, limits.missing).await?;
    let mut watch = Watch::new(dir.as_fd());
    let mut tail = Tail::new(place, dir, log.writer().ok_or(TailError::Busy)?, limits.segment);
    loop {
        let stopping = stop.is_cancelled();
        match blocking(move || if stopping { tail.stop() } else { tail.step() }).await? {
            Step::Ended(end) => return Ok(end),
            Step::More(going_on) => tail = going_on,
            Step::Idle(going_on) => {
                tail = going_on;
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = watch.changed() => {}
                }
            }
        }
    }
}

/// Reads what is left of a run whose guest is gone, and finishes its log: with its end, if it
/// came to one before. A log that was finished says the same again.
///
/// # Errors
/// As [`tail`], but that a missing directory is an empty one.
pub async fn drain(run_dir: &Path, id: &RunId, log: &Log) -> Result<Option<End>, TailError> {
    if let Some(finish) = log.finished() {
        return Ok(finish.end);
    }
    let place = Place::new(run_dir, id);
    let writer = log.writer().ok_or(TailError::Busy)?;
    blocking(move || {
        let Some(dir) = place.open()? else {
            writer.finish(None)?;
            return Ok(None);
        };
        let mut tail = Tail::new(place, dir, writer, SEGMENT);
        loop {
            match tail.step()? {
                Step::Ended(end) => return Ok(Some(end)),
                Step::More(going_on) => tail = going_on,
                Step::Idle(last) => return last.finish(None).map(|()| None),
            }
        }
    })
    .await
}

/// Runs on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TailError> + Send + 'static,
) -> Result<T, TailError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // The runtime is going down.
        Err(_) => Err(TailError::Stopped),
    })
}

/// Where the directory is.
#[derive(Debug)]
struct Place {
    /// The host's own path.
    run_dir: PathBuf,
    /// Below it everything is the guest's.
    below: PathBuf,
}

impl Place {
    fn new(run_dir: &Path, id: &RunId) -> Self {
        Self { run_dir: run_dir.to_owned(), below: Path::new(RUNS).join(id.as_str()) }
    }

    fn open(&self) -> Result<Option<Root>, TailError> {
        match Root::open(&self.run_dir).and_then(|root| root.dir(&self.below)) {
            Ok(dir) => Ok(Some(dir)),
            Err(fs::Error::NotFound { .. }) => Ok(None),
            Err(fs::Error::Blocked { .. } | fs::Error::NotDirectory { .. }) => Err(self.replaced()),
            Err(error) => Err(error.into()),
        }
    }

    fn replaced(&self) -> TailError {
        TailError::Tampered { what: format!("{} was replaced", self.below.display()) }
    }
}

/// Waits for the directory, for a while.
async fn appear(place: &Place, stop: &CancellationToken, patience: Duration) -> Result<Root, TailError> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        // One lookup of a short path; not worth a thread.
        if let Some(dir) = place.open()? {
            return Ok(dir);
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(TailError::Missing { path: place.run_dir.join(&place.below) });
        }
        tokio::select! {
            () = stop.cancelled() => return Err(TailError::Stopped),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
}

/// The blocking half: a step is bounded, so that the streams take turns and stopping is prompt.
#[derive(Debug)]
struct Tail {
    place: Place,
    dir: Root,
    writer: Writer,
    streams: [Segments; 2],
    /// Read once it is there: output after it is not ours.
    end: Option<End>,
    /// Since when the log has what is not durable.
    unsynced_since: Option<Instant>,
}

/// What a step came to; the tail comes back with it if there is more to do.
enum Step {
    /// There is more to read.
    More(Tail),
    /// There was nothing new.
    Idle(Tail),
    Ended(End),
}

impl Tail {
    /// Chunks of each stream in one step.
    const TURNS: usize = 16;
    /// The log is synced when so much of it is not.
    const SYNC_BYTES: u64 = 4 << 20;
    /// And when some of it is not for so long.
    const SYNC_AFTER: Duration = Duration::from_secs(1);

    fn new(place: Place, dir: Root, writer: Writer, segment: u64) -> Self {
        let streams = [Stream::Out, Stream::Err].map(|stream| Segments::new(stream, segment, &writer));
        Self { place, dir, writer, streams, end: None, unsynced_since: None }
    }

    fn step(mut self) -> Result<Step, TailError> {
        let read = self.read();
        // Also when something is wrong: what was read before is the run's output.
        self.writer.publish()?;
        let read = read?;
        self.settle()?;
        match (read, self.end.take()) {
            (true, end) => {
                self.end = end;
                Ok(Step::More(self))
            }
            (false, None) => {
                self.check_place()?;
                self.streams.iter_mut().try_for_each(|stream| stream.flush(&mut self.writer))?;
                self.writer.publish()?;
                Ok(Step::Idle(self))
            }
            (false, Some(end)) => self.finish(Some(&end)).map(|()| Step::Ended(end)),
        }
    }

    /// Whether there was anything to read. The end is looked for first: what its writer wrote
    /// before it is there then.
    fn read(&mut self) -> Result<bool, TailError> {
        if self.end.is_none() {
            self.end = read_end(&self.dir)?;
        }
        let mut any = false;
        for _ in 0..Self::TURNS {
            let mut read = 0;
            for stream in &mut self.streams {
                read += stream.read(&self.dir, &mut self.writer)?;
            }
            if read == 0 {
                break;
            }
            any = true;
        }
        Ok(any)
    }

    /// Syncs the log if it is time, and lets the guest's copy go.
    fn settle(&mut self) -> Result<(), TailError> {
        let unsynced = self.writer.unsynced();
        let since = (unsynced > 0).then(|| *self.unsynced_since.get_or_insert_with(Instant::now));
        self.unsynced_since = since;
        let waited = since.is_some_and(|since| since.elapsed() >= Self::SYNC_AFTER);
        if waited || unsynced >= Self::SYNC_BYTES || self.streams.iter().any(|s| s.wants_sync(&self.writer)) {
            self.writer.sync()?;
            self.unsynced_since = None;
        }
        for stream in &mut self.streams {
            stream.remove_durable(&self.dir, &self.writer)?;
        }
        Ok(())
    }

    /// A directory that was moved away would never see the run's end.
    fn check_place(&self) -> Result<(), TailError> {
        let nowhere = Path::new("");
        let ours = self.dir.stat(nowhere)?;
        let named = self.place.open()?.ok_or_else(|| self.place.replaced())?.stat(nowhere)?;
        if (ours.dev, ours.ino) == (named.dev, named.ino) { Ok(()) } else { Err(self.place.replaced()) }
    }

    fn stop(mut self) -> Result<Step, TailError> {
        self.writer.sync()?;
        Err(TailError::Stopped)
    }

    fn finish(mut self, end: Option<&End>) -> Result<(), TailError> {
        let drained = self.streams.iter_mut().try_for_each(|stream| stream.finish(&self.dir, &mut self.writer));
        self.writer.publish()?;
        drained?;
        self.writer.finish(end)?;
        Ok(())
    }
}

/// The run's end, if it is there.
fn read_end(dir: &Root) -> Result<Option<End>, TailError> {
    let unreadable = |source| TailError::Read { name: END.to_owned(), source };
    let Some(file) = open_file(dir, END)? else { return Ok(None) };
    if file.metadata().map_err(unreadable)?.nlink() != 1 {
        return Err(tampered(END, "has a second name"));
    }
    let mut content = vec![0; MAX_END + 1];
    let mut length = 0;
    loop {
        let read = read_at(&file, &mut content[length..], length as u64).map_err(unreadable)?;
        length += read;
        if read == 0 || length == content.len() {
            break;
        }
    }
    End::decode(&content[..length]).map(Some).ok_or_else(|| tampered(END, "is no end record"))
}

fn tampered(name: &str, how: &str) -> TailError {
    TailError::Tampered { what: format!("{name} {how}") }
}
