//! Who did what: one JSON line a call that changes something, append-only.
//!
//! `<state>/audit/YYYY-MM.jsonl`, mode 0600. A line holds who (uid and pid of the peer), the
//! method, what it was done to and how it ended; never a prompt, a command's output or a key.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Lines that wait to be written; past that, callers of [`Audit::record`] wait too.
const QUEUE: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub time: Timestamp,
    pub uid: u32,
    pub pid: i32,
    pub method: String,
    /// The workspace or run, where the call names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `ok`, or the error's kind.
    pub outcome: String,
    pub took_ms: u64,
}

/// The way into the audit log.
#[derive(Debug, Clone)]
pub struct Audit {
    queue: mpsc::Sender<Entry>,
}

impl Audit {
    /// Starts the writer; it ends, with everything written, once every [`Audit`] is dropped.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn start(directory: &Path) -> std::io::Result<(Self, JoinHandle<()>)> {
        std::fs::create_dir_all(directory)?;
        let (queue, mut entries) = mpsc::channel::<Entry>(QUEUE);
        let directory = directory.to_owned();
        // A thread of its own: file writes block, and order matters.
        let writer = tokio::task::spawn_blocking(move || {
            while let Some(entry) = entries.blocking_recv() {
                if let Err(error) = append(&directory, &entry) {
                    tracing::error!(%error, directory = %directory.display(), "an audit line was not written");
                }
            }
        });
        Ok((Self { queue }, writer))
    }

    pub async fn record(&self, entry: Entry) {
        if self.queue.send(entry).await.is_err() {
            tracing::error!("the audit writer has ended");
        }
    }
}

fn file(directory: &Path, time: Timestamp) -> PathBuf {
    let month: String = time.to_string().chars().take(7).collect();
    directory.join(format!("{month}.jsonl"))
}

fn append(directory: &Path, entry: &Entry) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    OpenOptions::new().append(true).create(true).mode(0o600).open(file(directory, entry.time))?.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_recorded_call_is_a_line_once_the_log_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let (audit, writer) = Audit::start(dir.path()).unwrap();
        let time = Timestamp::from_unix_ms(1_764_000_000_000);
        for n in 0..3 {
            let entry = Entry {
                time,
                uid: 7,
                pid: n,
                method: "workspace.up".into(),
                target: Some("demo".into()),
                outcome: "ok".into(),
                took_ms: 1,
            };
            audit.record(entry).await;
        }
        drop(audit);
        writer.await.unwrap();
        let text = std::fs::read_to_string(dir.path().join("2025-11.jsonl")).unwrap();
        let pids: Vec<i32> = text.lines().map(|l| serde_json::from_str::<Entry>(l).unwrap().pid).collect();
        assert_eq!(pids, [0, 1, 2]);
    }
}
