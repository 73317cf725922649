//! Runs: the supervisor and its files, as the guest's program writes them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use guest::frame::Frame;
use guest::run::{self, End, Stream};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;

use super::life::{self, Life};
use super::verbs::{self, Command, Streams};

const PIPE: usize = 64 << 10;
/// How often the supervisor looks whether the host has taken a segment.
const LOOK: Duration = Duration::from_millis(5);

/// Starts a run that outlives its session.
///
/// # Errors
/// What the session says on standard error.
pub(super) fn start(life: &Arc<Life>, id: &str, stdin: Vec<u8>, timeout_ms: u64, frame: Frame) -> Result<(), String> {
    let dir = life.dir("run").join("runs").join(id);
    let cancel = life.begin_run(id).ok_or_else(|| format!("there was a run {id} already"))?;
    std::fs::create_dir_all(&dir).map_err(|error| {
        life.end_run(id);
        format!("the run's directory cannot be made: {error}")
    })?;
    let supervised = Supervised { life: Arc::clone(life), id: id.to_owned(), dir, cancel };
    let limit = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms));
    life.spawn(supervised.run(frame, stdin, limit));
    Ok(())
}

struct Supervised {
    life: Arc<Life>,
    id: String,
    dir: PathBuf,
    cancel: CancellationToken,
}

impl Supervised {
    async fn run(self, frame: Frame, stdin: Vec<u8>, limit: Option<Duration>) {
        let (out, out_end) = tokio::io::duplex(PIPE);
        let (err, err_end) = tokio::io::duplex(PIPE);
        let ending = async {
            let mut streams =
                Streams { stdin: Box::new(io::Cursor::new(stdin)), stdout: Box::new(out), stderr: Box::new(err) };
            let (tree, _ends_with_this) = life::tree();
            let command = Command { frame: &frame, life: &self.life, tree };
            let end = tokio::select! {
                status = verbs::run(&command, &mut streams) => started(status),
                () = self.cancel.cancelled() => End::Cancelled,
                () = passed(limit) => End::TimedOut,
            };
            // Dropping the streams ends the files.
            drop(streams);
            end
        };
        let files =
            async { tokio::join!(record(&self.dir, Stream::Out, out_end), record(&self.dir, Stream::Err, err_end),) };
        let (end, written) = tokio::join!(ending, files);
        let outcome = written.0.and(written.1).and_then(|()| write_end(&self.dir, &end));
        if let Err(error) = outcome {
            tracing::warn!(guest = %self.life.id(), run = self.id, %error, "a fake run's files could not be written");
        }
        self.life.end_run(&self.id);
    }
}

/// What cannot be started says so in the end record, as with the guest's program.
fn started(status: u8) -> End {
    match status {
        127 => End::NotStarted { status, why: "there is no such verb".to_owned() },
        status => End::Exited(status),
    }
}

async fn passed(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// Writes a stream into segments. While too many full ones wait for the host nothing is read, so
/// that the command waits.
async fn record(dir: &Path, stream: Stream, mut from: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; PIPE];
    let (mut number, mut room) = (0, run::SEGMENT);
    let mut file = segment(dir, stream, number)?;
    loop {
        let most = usize::try_from(room).unwrap_or(buffer.len()).min(buffer.len());
        let read = from.read(&mut buffer[..most]).await?;
        if read == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..read])?;
        room -= read as u64;
        if room == 0 {
            number += 1;
            while waiting(dir, stream, number) >= run::UNREAD {
                tokio::time::sleep(LOOK).await;
            }
            file = segment(dir, stream, number)?;
            room = run::SEGMENT;
        }
    }
}

fn segment(dir: &Path, stream: Stream, number: u64) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(dir.join(run::segment(stream, number)))
}

/// How many of the latest segments before `next` are still there.
fn waiting(dir: &Path, stream: Stream, next: u64) -> usize {
    let first = next.saturating_sub(run::UNREAD as u64);
    (first..next).filter(|&number| dir.join(run::segment(stream, number)).exists()).count()
}

fn write_end(dir: &Path, end: &End) -> io::Result<()> {
    let unfinished = dir.join(".end");
    std::fs::write(&unfinished, end.encode())?;
    std::fs::rename(unfinished, dir.join(run::END))
}
