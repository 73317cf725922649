//! A command of the daemon's own, its output in memory.

use std::time::Duration;

use bytes::Bytes;

use super::{Begun, Error, Never, hand_over};
use crate::ssh::{Message, Pool, Session, Writer};

/// How a command ended, and what it wrote: bytes from a stranger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    pub status: u8,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Runs a command with `stdin` as its input. More than `limit` bytes of output, or more than
/// `deadline`, ends it. Dropping the future does, too.
///
/// # Errors
/// [`Error`].
pub async fn captured(
    pool: &Pool,
    frame: guest::Frame,
    stdin: Vec<u8>,
    limit: usize,
    deadline: Duration,
) -> Result<Captured, Error> {
    let running = async { run(pool.session(None).await?, frame, stdin, limit).await };
    tokio::time::timeout(deadline, running).await.map_err(|_| Error::TimedOut { after: deadline })?
}

/// The same on a session that is opened for it: also where a guest has stopped those that wait.
///
/// # Errors
/// [`Error`].
pub async fn captured_afresh(
    pool: &Pool,
    frame: guest::Frame,
    limit: usize,
    deadline: Duration,
) -> Result<Captured, Error> {
    let running = async { run(pool.session_afresh().await?, frame, Vec::new(), limit).await };
    tokio::time::timeout(deadline, running).await.map_err(|_| Error::TimedOut { after: deadline })?
}

async fn run(mut session: Session, frame: guest::Frame, stdin: Vec<u8>, limit: usize) -> Result<Captured, Error> {
    let frame = Bytes::from(frame.encode()?);
    let (reader, writer) = session.halves();
    let Begun { out, err, mut end } = hand_over(reader, writer, frame, false).await?;
    let mut captured = Captured { status: 0, stdout: out.to_vec(), stderr: err };
    let output = async {
        while !end.is_complete() {
            match reader.next().await {
                Some(Message::Output(bytes)) => captured.stdout.extend_from_slice(&bytes),
                Some(Message::Errors(bytes)) => captured.stderr.extend_from_slice(&bytes),
                other => end.take(other.as_ref(), reader)?,
            }
            if captured.stdout.len() + captured.stderr.len() > limit {
                return Err(Error::TooMuch { limit });
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        ended = output => ended?,
        never = input(writer, stdin) => match never {},
    }
    captured.status = end.status()?;
    session.finish().await;
    Ok(captured)
}

async fn input(writer: &Writer, stdin: Vec<u8>) -> Never {
    if stdin.is_empty() || writer.send(stdin).await.is_ok() {
        let _seen_by_the_reader = writer.eof().await;
    }
    std::future::pending().await
}
