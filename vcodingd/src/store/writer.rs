//! The one thread that writes to the database.
//!
//! Whoever has a record to write hands it over and waits for the answer, which comes after a flush;
//! what was handed over meanwhile shares the next flush. sled's own `flush_async` waits on the very
//! threads that write the log for it: with some twenty callers at once none is left to write, and
//! all of them wait for ever (sled 0.34.7, threadpool.rs). Here a flush has a thread of its own, and
//! no caller's thread waits for the disk.

use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Writes that wait for their turn; who comes beyond waits for room.
const WAITING: usize = 1024;
/// A disk that takes longer is taken for one that hangs: whether the write is on it is not known.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the thread does.
enum Job {
    Put {
        tree: sled::Tree,
        key: String,
        bytes: Vec<u8>,
    },
    Remove {
        tree: sled::Tree,
        key: String,
    },
    /// Nothing but the flush.
    Flush,
}

struct Order {
    job: Job,
    done: oneshot::Sender<sled::Result<()>>,
}

/// The way to the thread; the last one that is dropped ends it and waits for that.
#[derive(Debug)]
pub(super) struct Writer {
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// # Errors
    /// If there can be no thread.
    pub(super) fn start(db: sled::Db) -> std::io::Result<Self> {
        let (orders, taken) = mpsc::channel(WAITING);
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || write(&db, taken))?;
        Ok(Self { orders: Mutex::new(Some(orders)), thread: Some(thread) })
    }

    /// The record is durable when this returns.
    pub(super) async fn put(&self, tree: &sled::Tree, key: String, bytes: Vec<u8>) -> sled::Result<()> {
        self.order(Job::Put { tree: tree.clone(), key, bytes }).await
    }

    /// The record is gone for good when this returns; a missing one is fine.
    pub(super) async fn remove(&self, tree: &sled::Tree, key: &str) -> sled::Result<()> {
        self.order(Job::Remove { tree: tree.clone(), key: key.to_owned() }).await
    }

    pub(super) async fn flush(&self) -> sled::Result<()> {
        self.order(Job::Flush).await
    }

    async fn order(&self, job: Job) -> sled::Result<()> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let written = async {
            let (done, answer) = oneshot::channel();
            orders.ok_or_else(ended)?.send(Order { job, done }).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        };
        tokio::time::timeout(PATIENCE, written).await.unwrap_or_else(|_| Err(hangs()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.orders.lock().unwrap_or_else(PoisonError::into_inner).take());
        // It has the database open, and its lock: whoever opens it next comes after this.
        if let Some(Err(_panic)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that writes the store broke off");
        }
    }
}

fn write(db: &sled::Db, mut orders: mpsc::Receiver<Order>) {
    while let Some(first) = orders.blocking_recv() {
        let mut answers = vec![(perform(first.job), first.done)];
        while let Ok(next) = orders.try_recv() {
            answers.push((perform(next.job), next.done));
        }
        let flushed = db.flush().map(drop);
        for (performed, done) in answers {
            // A caller that gave up misses its answer.
            drop(done.send(performed.and_then(|()| flushed.clone())));
        }
    }
}

fn perform(job: Job) -> sled::Result<()> {
    match job {
        Job::Put { tree, key, bytes } => tree.insert(key, bytes).map(drop),
        Job::Remove { tree, key } => tree.remove(key).map(drop),
        Job::Flush => Ok(()),
    }
}

fn ended() -> sled::Error {
    sled::Error::Io(std::io::Error::other("the thread that writes it has ended"))
}

fn hangs() -> sled::Error {
    let why = format!("nothing was written within {} s", PATIENCE.as_secs());
    sled::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, why))
}
