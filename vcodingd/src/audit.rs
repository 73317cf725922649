//! Who did what: one JSON line a call that changes something, append-only.
//!
//! `<state>/audit/YYYY-MM.jsonl`, mode 0600. A line holds who (uid and pid of the peer), the
//! method, what it was done to and how it ended; never a prompt, a command's output or a key.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::Timestamp;
use protocol::audit::{AuditEntry as Entry, AuditList};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Lines that wait to be written; past that, callers of [`Audit::record`] wait too.
const QUEUE: usize = 1024;
/// A longer line is none of ours.
const LINE: u64 = 64 << 10;

/// The way into the audit log.
#[derive(Debug, Clone)]
pub struct Audit {
    queue: mpsc::Sender<Entry>,
    directory: PathBuf,
}

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct Search {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// A method, or a group of them without the dot.
    pub method: Option<String>,
    /// Any of these; empty: whatever the target.
    pub targets: Vec<String>,
    pub failed: bool,
    pub limit: usize,
}

impl Search {
    fn fits(&self, entry: &Entry) -> bool {
        let method = |wanted: &str| {
            entry.method.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time <= until)
            && self.method.as_deref().is_none_or(method)
            && (self.targets.is_empty() || entry.target.as_ref().is_some_and(|target| self.targets.contains(target)))
            && !(self.failed && entry.outcome == "ok")
    }
}

impl Audit {
    /// Starts the writer; it ends, with everything written, once every [`Audit`] is dropped.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn start(directory: &Path) -> std::io::Result<(Self, JoinHandle<()>)> {
        std::fs::create_dir_all(directory)?;
        let (queue, mut entries) = mpsc::channel::<Entry>(QUEUE);
        let (directory, place) = (directory.to_owned(), directory.to_owned());
        // A thread of its own: file writes block, and order matters.
        let writer = tokio::task::spawn_blocking(move || {
            while let Some(entry) = entries.blocking_recv() {
                if let Err(error) = append(&directory, &entry) {
                    tracing::error!(%error, directory = %directory.display(), "an audit line was not written");
                }
            }
        });
        Ok((Self { queue, directory: place }, writer))
    }

    pub async fn record(&self, entry: Entry) {
        if self.queue.send(entry).await.is_err() {
            tracing::error!("the audit writer has ended");
        }
    }
}

impl Audit {
    /// The newest entries that fit, oldest first. Blocking.
    ///
    /// # Errors
    /// A file that cannot be read. A line that is no entry is passed over.
    pub fn search(&self, search: &Search) -> std::io::Result<AuditList> {
        let mut months: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let earlier = search.since.is_some_and(|since| path < file(&self.directory, since));
            if path.extension().is_some_and(|extension| extension == "jsonl") && !earlier {
                months.push(path);
            }
        }
        months.sort_unstable();
        let mut found: VecDeque<Entry> = VecDeque::new();
        let mut truncated = false;
        for month in &months {
            for entry in entries(File::open(month)?) {
                if search.fits(&entry) {
                    found.push_back(entry);
                    if found.len() > search.limit {
                        found.pop_front();
                        truncated = true;
                    }
                }
            }
        }
        Ok(AuditList { entries: found.into(), truncated })
    }
}

/// The lines that are entries; one is as long as it likes, and of a long one the rest is passed over.
fn entries(file: File) -> impl Iterator<Item = Entry> {
    let mut reader = BufReader::new(file);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        let read = reader.by_ref().take(LINE).read_until(b'\n', &mut line).ok()?;
        (read > 0).then(|| serde_json::from_slice(&line).ok())
    })
    .flatten()
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
                id: String::new(),
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

    #[tokio::test]
    async fn what_fits_is_found_and_of_much_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let at = |month: u8| format!("2025-{month:02}-15T00:00:00.000Z");
        for month in 1..=3 {
            let mut lines = String::new();
            for (method, target, outcome) in
                [("workspace.up", "shop", "ok"), ("workspace.upx", "blog", "ok"), ("exec.start", "shop", "timed-out")]
            {
                let entry = serde_json::json!({"time": at(month), "uid": 0, "pid": 1, "method": method,
                    "target": target, "outcome": outcome, "took_ms": 1});
                lines += &format!("{entry}\nno entry\n");
            }
            lines += &"x".repeat(200_000);
            std::fs::write(dir.path().join(format!("2025-{month:02}.jsonl")), lines + "\n").unwrap();
        }
        let (audit, _writer) = Audit::start(dir.path()).unwrap();
        let found = |search: Search| {
            let list = audit.search(&Search { limit: search.limit.max(1), ..search }).unwrap();
            (
                list.entries.iter().map(|e| e.time.to_string()[5..7].parse().unwrap()).collect::<Vec<u8>>(),
                list.truncated,
            )
        };
        let all = Search { limit: 100, ..Search::default() };
        assert_eq!(found(all.clone()), (vec![1, 1, 1, 2, 2, 2, 3, 3, 3], false));
        assert_eq!(found(Search { limit: 2, ..all.clone() }), (vec![3, 3], true));
        assert_eq!(found(Search { method: Some("workspace.up".into()), ..all.clone() }).0, [1, 2, 3]);
        assert_eq!(found(Search { method: Some("workspace".into()), ..all.clone() }).0.len(), 6);
        assert_eq!(found(Search { targets: vec!["blog".into()], failed: true, ..all.clone() }).0, [] as [u8; 0]);
        let since = at(2).parse().unwrap();
        assert_eq!(found(Search { since: Some(since), until: Some(since), failed: true, ..all }).0, [2]);
    }
}
