//! A guest's warm connections.
//!
//! A command gets the connection with the fewest commands on it, at best one that is idle, and
//! gives it back after a clean end. Some are always kept idle: a task makes them, off every
//! command's way. Where a reader has stopped reading, no new command is sent.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use guest::frame;
use protocol::WorkspaceId;
use russh::client::Msg;
use russh::{Channel, ChannelMsg};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::carrier::{self, SocketError};
use super::connection::{Arrivals, Connection, Login, OPEN, Offences};
use super::forward::Forward;
use super::session::Writer;
use super::{Error, Keys, Pty, Result, Session};
use crate::provider::{Carrier, InitProcess, Provider, User};

/// Connections that wait for a command.
const WARM: usize = 3;
/// More idle ones than this, after a burst, are ended.
const IDLE: usize = 6;
/// Connections of one guest.
const MOST: usize = 24;
/// Commands on one connection: well below the guest's MaxSessions.
const SHARED: usize = 64;
/// Connections being made at once.
const MAKING: usize = 4;
/// Connections made at once that nobody waits for, of all guests together, and how long one of them is waited for.
const WARMING: usize = 2;
const WARMING_TURN: Duration = Duration::from_secs(2);
/// How often a command asks for another connection when one fails as it is taken.
const ATTEMPTS: usize = 4;
/// How long the guest's init may take to have its socket ready.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a socket may be silent until the engine's stream is tried as well.
const HEDGE: Duration = Duration::from_millis(100);
/// Until the task tries again to make a connection: first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The longest pause before a connection in place of one that was ended for what the guest did.
const PENALTY: Duration = Duration::from_secs(60);
/// How long connections may take to end.
const ENDING: Duration = Duration::from_secs(1);

/// Connections that nobody waits for, of all guests: with many guests at once a command that somebody waits for would come after
/// all of them.
#[derive(Debug, Clone)]
pub struct Warming(Arc<Semaphore>);

impl Default for Warming {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WARMING)))
    }
}

impl Warming {
    /// A place; or none, once others have held them for too long: one may belong to a guest that does not answer.
    async fn place(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        tokio::time::timeout(WARMING_TURN, self.0.acquire()).await.ok()?.ok()
    }
}

/// Which guest, and how to get in.
#[derive(Debug)]
pub struct Target {
    pub id: WorkspaceId,
    /// The guest's run directory on this host.
    pub run_dir: PathBuf,
    pub user: User,
    /// Whose socket it must be. Another init is another guest: a new pool.
    pub init: InitProcess,
    pub keys: Arc<Keys>,
    pub warming: Warming,
}

/// The connections into one guest, for as long as its init lives. A handle; the last one that is
/// dropped ends them, [`Pool::close`] also waits for it.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    refill: Mutex<Option<JoinHandle<()>>>,
}

pub(super) struct Shared {
    provider: Arc<dyn Provider>,
    target: Target,
    /// What the last connection was made by.
    by_stream: AtomicBool,
    /// The socket does not carry.
    no_socket: AtomicBool,
    lanes: Mutex<Vec<Lane>>,
    making: Semaphore,
    /// Something has changed for the task that makes connections.
    wanted: Notify,
    closing: CancellationToken,
    tasks: TaskTracker,
    offences: Arc<Offences>,
}

struct Lane {
    connection: Arc<Connection>,
    commands: usize,
    /// A session whose shell waits for a frame; made while the connection is idle.
    armed: Option<Channel<Msg>>,
}

impl Lane {
    fn new(connection: Arc<Connection>, commands: usize) -> Self {
        Self { connection, commands, armed: None }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("guest", &self.inner.shared.target.id).finish_non_exhaustive()
    }
}

impl Pool {
    /// Makes the first connection and has the others made. The socket is tried first, then the
    /// engine's stream.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::WrongPeer`].
    pub async fn open(provider: Arc<dyn Provider>, target: Target) -> Result<Self> {
        let shared = Arc::new(Shared {
            provider,
            target,
            by_stream: AtomicBool::new(false),
            no_socket: AtomicBool::new(false),
            lanes: Mutex::default(),
            making: Semaphore::new(MAKING),
            wanted: Notify::new(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            offences: Arc::default(),
        });
        let first = shared.make(None, PATIENCE).await?;
        shared.lanes().push(Lane::new(Arc::new(first), 0));
        let refill = tokio::spawn(shared.clone().keep_warm());
        Ok(Self { inner: Arc::new(Inner { shared, refill: Mutex::new(Some(refill)) }) })
    }

    /// What carries the bytes: `socket` or `stream`.
    pub fn carrier(&self) -> &'static str {
        if self.inner.shared.by_stream.load(Ordering::Relaxed) { "stream" } else { "socket" }
    }

    /// A session for one command, whose shell waits for a frame or soon will: a refusal comes as
    /// [`super::Message::Refused`].
    ///
    /// # Errors
    /// [`Error::Unreachable`] and [`Error::WrongPeer`] if no connection can be had,
    /// [`Error::NoSession`] if none of them opens a session, [`Error::Closed`].
    pub async fn session(&self, pty: Option<&Pty>) -> Result<Session> {
        self.open_session(pty, pty.is_none()).await
    }

    /// The same without what was armed before: for what has to come through also where the guest
    /// has stopped every process that waited there.
    ///
    /// # Errors
    /// As [`Pool::session`].
    pub async fn session_afresh(&self) -> Result<Session> {
        self.open_session(None, false).await
    }

    async fn open_session(&self, pty: Option<&Pty>, armed: bool) -> Result<Session> {
        let shared = &self.inner.shared;
        let mut last = Error::Lost;
        for _ in 0..ATTEMPTS {
            let (lease, armed) = match shared.lend(armed) {
                Some(lent) => lent,
                None => shared.make_and_lend(armed).await?,
            };
            if let Some(channel) = armed.and_then(still_armed) {
                return Ok(Session::new(channel, lease));
            }
            match lease.connection.open().await {
                Ok(channel) => {
                    let mut session = Session::new(channel, lease);
                    let (_, writer) = session.halves();
                    if let Some(pty) = pty {
                        writer.request_pty(pty).await?;
                    }
                    writer.exec().await?;
                    return Ok(session);
                }
                Err(error) => {
                    lease.connection.mark_failed();
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// A port of the guest's loopback whose connections come here, on an SSH connection of its
    /// own: a reader of it that stalls freezes no command.
    ///
    /// # Errors
    /// [`Error::NotForwarded`], and as [`Pool::session`].
    pub async fn forward(&self, port: u16) -> Result<Forward> {
        let (sender, arrivals) = mpsc::channel(Forward::WAITING);
        let connection = self.inner.shared.make(Some(sender), Duration::ZERO).await?;
        connection.listen(port).await?;
        Ok(Forward::new(connection, arrivals, self.inner.shared.closing.clone()))
    }

    /// Ends every connection, with the commands on them, and waits until they have ended.
    pub async fn close(&self) {
        let shared = &self.inner.shared;
        shared.closing.cancel();
        let refill = self.inner.refill.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(refill) = refill
            && let Err(error) = refill.await
        {
            tracing::error!(%error, "the task that makes connections failed");
        }
        let lanes = std::mem::take(&mut *shared.lanes());
        lanes.iter().for_each(|lane| lane.connection.cut());
        drop(lanes);
        shared.tasks.close();
        if tokio::time::timeout(ENDING, shared.tasks.wait()).await.is_err() {
            tracing::error!(guest = %shared.target.id, "a connection did not end");
        }
    }

    #[cfg(test)]
    pub(crate) fn armed(&self) -> usize {
        self.inner.shared.lanes().iter().filter(|lane| lane.armed.is_some()).count()
    }

    /// All that the guest has sent on every connection until now has come.
    #[cfg(test)]
    pub(crate) async fn round_trips(&self) {
        let connections: Vec<_> = self.inner.shared.lanes().iter().map(|lane| lane.connection.clone()).collect();
        for connection in connections {
            connection.open().await.unwrap().close().await.unwrap();
        }
    }

    #[cfg(test)]
    pub(crate) fn counts(&self) -> Vec<usize> {
        self.inner.shared.lanes().iter().map(|lane| lane.commands).collect()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.closing.cancel();
        // Commands under way keep theirs until they end or are dropped.
        self.shared.lanes().retain(|lane| lane.commands > 0);
    }
}

impl Shared {
    fn lanes(&self) -> std::sync::MutexGuard<'_, Vec<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection with the fewest commands, at best one that is armed, with its session if
    /// `armed` asks for it.
    fn lend(self: &Arc<Self>, armed: bool) -> Option<(Lease, Option<Channel<Msg>>)> {
        let mut lanes = self.lanes();
        lanes.retain(|lane| lane.commands > 0 || lane.connection.is_usable());
        let best = lanes
            .iter_mut()
            .filter(|lane| lane.commands < SHARED && lane.connection.is_usable() && !lane.connection.is_stalled())
            .min_by_key(|lane| (lane.commands, lane.armed.is_some() != armed));
        let lent = best.map(|lane| {
            lane.commands += 1;
            let channel = if armed { lane.armed.take() } else { None };
            (Lease { shared: self.clone(), connection: lane.connection.clone(), over: false }, channel)
        });
        drop(lanes);
        self.wanted.notify_one();
        lent
    }

    async fn make_and_lend(self: &Arc<Self>, armed: bool) -> Result<(Lease, Option<Channel<Msg>>)> {
        let _turn = self.making.acquire().await.map_err(|_| Error::Closed)?;
        // Whoever was before us may have left one.
        if let Some(lent) = self.lend(armed) {
            return Ok(lent);
        }
        let connection = Arc::new(self.make(None, Duration::ZERO).await?);
        self.lanes().push(Lane::new(connection.clone(), 1));
        Ok((Lease { shared: self.clone(), connection, over: false }, None))
    }

    /// One more connection, by the carrier that answers: the socket, or, where it stays silent
    /// for a moment or does not carry, the engine's stream.
    async fn make(&self, arrivals: Option<Arrivals>, patience: Duration) -> Result<Connection> {
        // Boxed: SSH's futures are large, and this is held in others'.
        let making = Box::pin(async {
            if self.no_socket.load(Ordering::Relaxed) {
                return self.make_by_stream(arrivals, patience).await;
            }
            let found = match tokio::time::timeout(HEDGE, self.socket(patience)).await {
                Ok(found) => found,
                Err(_silent) => tokio::select! {
                    found = self.socket(patience) => found,
                    made = self.make_by_stream(arrivals.clone(), patience) => return made,
                },
            };
            let (refused, nowhere) = match found {
                Ok(socket) => match self.make_by(Box::new(socket), arrivals.clone()).await {
                    Ok(connection) => {
                        self.by_stream.store(false, Ordering::Relaxed);
                        return Ok(connection);
                    }
                    Err(error) => (error, true),
                },
                Err(error) => (error, false),
            };
            match (refused, self.make_by_stream(arrivals, patience).await) {
                (_, Ok(connection)) => {
                    // It connects and leads nowhere: not to be waited for again.
                    self.no_socket.store(nowhere, Ordering::Relaxed);
                    Ok(connection)
                }
                (Error::Unreachable { id, why }, Err(Error::Unreachable { why: then, .. })) => {
                    Err(Error::Unreachable { id, why: format!("{why}; by the engine's stream: {then}") })
                }
                (refused, Err(_)) => Err(refused),
            }
        });
        tokio::select! {
            () = self.closing.cancelled() => Err(Error::Closed),
            made = making => made,
        }
    }

    /// Asks until `patience` is over: the guest's end of it needs the init as well.
    async fn make_by_stream(&self, arrivals: Option<Arrivals>, patience: Duration) -> Result<Connection> {
        let until = Instant::now() + patience;
        loop {
            match self.make_by(self.stream().await?, arrivals.clone()).await {
                Ok(connection) => {
                    if !self.by_stream.swap(true, Ordering::Relaxed) {
                        tracing::warn!(guest = %self.target.id, "the guest's socket does not carry; the engine's stream does");
                    }
                    return Ok(connection);
                }
                Err(Error::Unreachable { .. }) if Instant::now() + HEDGE < until => tokio::time::sleep(HEDGE).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn make_by(&self, carrier: Box<dyn Carrier>, arrivals: Option<Arrivals>) -> Result<Connection> {
        let login = Login {
            id: &self.target.id,
            keys: &self.target.keys,
            tasks: &self.tasks,
            arrivals,
            offences: &self.offences,
        };
        Connection::make(carrier, login).await
    }

    /// The guest's socket; one that is silent is asked again until `patience` is over.
    async fn socket(&self, patience: Duration) -> Result<tokio::net::UnixStream> {
        let id = &self.target.id;
        let until = Instant::now() + patience;
        let mut pause = Duration::from_millis(2);
        loop {
            match carrier::socket(&self.target.run_dir, self.target.init).await {
                Ok(stream) => return Ok(stream),
                Err(SocketError::Strange(why)) => return Err(Error::WrongPeer { id: id.clone(), why }),
                Err(SocketError::Silent(why)) if Instant::now() + pause > until => {
                    return Err(Error::Unreachable { id: id.clone(), why: format!("its socket: {why}") });
                }
                Err(SocketError::Silent(_)) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
            }
        }
    }

    async fn stream(&self) -> Result<Box<dyn Carrier>> {
        let id = &self.target.id;
        self.provider.carrier_stream(id).await.map_err(|e| Error::Unreachable { id: id.clone(), why: e.to_string() })
    }

    /// Makes connections while too few are idle, and arms those that are.
    async fn keep_warm(self: Arc<Self>) {
        let mut pause = RETRY.0;
        let (mut ended, mut penalty) = (0, RETRY.0);
        loop {
            if self.offences.ended() > ended {
                // It lets itself be armed, too: only time keeps it from having connections made and ended without pause.
                ended = self.offences.ended();
                tokio::select! {
                    () = self.closing.cancelled() => return,
                    () = tokio::time::sleep(penalty) => penalty = (penalty * 2).min(PENALTY),
                }
            }
            let done = if self.is_short() {
                let _place = tokio::select! {
                    () = self.closing.cancelled() => return,
                    place = self.target.warming.place() => place,
                };
                self.make(None, Duration::ZERO).await.map(|made| self.lanes().push(Lane::new(Arc::new(made), 0)))
            } else if let Some(connection) = self.unarmed() {
                tokio::select! {
                    () = self.closing.cancelled() => return,
                    armed = self.arm(&connection) => armed.map(|()| pause = RETRY.0),
                }
            } else {
                tokio::select! {
                    () = self.closing.cancelled() => return,
                    () = self.wanted.notified() => Ok(()),
                }
            };
            match done {
                Ok(()) => {}
                Err(Error::Closed) => return,
                Err(error) => {
                    if let Some(kept_back) = self.offences.seldom.may_say("no warm connection") {
                        tracing::warn!(guest = %self.target.id, %error, kept_back, "no warm connection");
                    }
                    tokio::select! {
                        () = self.closing.cancelled() => return,
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY.1),
                    }
                }
            }
        }
    }

    fn is_short(&self) -> bool {
        let mut lanes = self.lanes();
        lanes.retain(|lane| lane.commands > 0 || lane.connection.is_usable());
        lanes.len() < MOST && lanes.iter().filter(|lane| lane.commands == 0).count() < WARM
    }

    /// An idle connection that is not armed.
    fn unarmed(&self) -> Option<Arc<Connection>> {
        let fits = |lane: &&Lane| lane.commands == 0 && lane.armed.is_none() && lane.connection.is_usable();
        self.lanes().iter().find(fits).map(|lane| lane.connection.clone())
    }

    async fn arm(&self, connection: &Arc<Connection>) -> Result<()> {
        let armed = async {
            let channel = connection.open().await?;
            channel.exec(true, frame::EXEC).await.map_err(|_| Error::Lost)?;
            Ok(channel)
        };
        // A guest that stands still does not answer in time, and goes on later.
        let channel = armed.await.inspect_err(|error| {
            if matches!(error, Error::Lost) {
                connection.mark_failed();
            }
        })?;
        if let Some(lane) = self.lanes().iter_mut().find(|lane| Arc::ptr_eq(&lane.connection, connection)) {
            lane.armed = Some(channel);
        }
        Ok(())
    }

    fn release(&self, connection: &Arc<Connection>) {
        let mut lanes = self.lanes();
        let Some(at) = lanes.iter().position(|lane| Arc::ptr_eq(&lane.connection, connection)) else { return };
        lanes[at].commands -= 1;
        if lanes[at].commands == 0 {
            let idle = lanes.iter().filter(|lane| lane.commands == 0).count();
            if idle > IDLE || !connection.is_usable() || self.closing.is_cancelled() {
                lanes.swap_remove(at);
                connection.cut();
            }
        }
        drop(lanes);
        self.wanted.notify_one();
    }

    /// Under the lock, so that no command is sent there in between.
    fn cut_if_alone(&self, connection: &Arc<Connection>) -> bool {
        let lanes = self.lanes();
        let alone = lanes.iter().all(|lane| !Arc::ptr_eq(&lane.connection, connection) || lane.commands == 1);
        if alone {
            connection.cut();
        }
        alone
    }

    fn commands_on(&self, connection: &Arc<Connection>) -> usize {
        self.lanes().iter().find(|lane| Arc::ptr_eq(&lane.connection, connection)).map_or(1, |lane| lane.commands)
    }
}

/// The session, unless its shell has gone meanwhile: then its end has come already.
fn still_armed(mut channel: Channel<Msg>) -> Option<Channel<Msg>> {
    loop {
        match channel.wait().now_or_never() {
            None => return Some(channel),
            // The answer to what was asked for, and room for the frame.
            Some(Some(ChannelMsg::Success | ChannelMsg::WindowAdjusted { .. })) => {}
            Some(_) => return None,
        }
    }
}

/// A place on a connection.
pub(super) struct Lease {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    over: bool,
}

impl Lease {
    pub(super) fn is_alone(&self) -> bool {
        self.shared.commands_on(&self.connection) == 1
    }

    pub(super) fn watcher(&self) -> Watcher {
        Watcher { shared: self.shared.clone(), connection: self.connection.clone() }
    }

    /// After a clean end.
    pub(super) fn give_back(self) {
        drop(self);
    }

    /// After any other: the command must not live on. Alone, the whole connection goes; else its
    /// channel is closed, which the guest's supervisor takes as its end.
    pub(super) fn abandon(mut self, writer: Arc<Writer>) {
        if self.shared.cut_if_alone(&self.connection) {
            return;
        }
        self.over = true;
        let (shared, connection) = (self.shared.clone(), self.connection.clone());
        self.shared.tasks.spawn(async move {
            if !matches!(tokio::time::timeout(OPEN, writer.close()).await, Ok(Ok(()))) {
                if let Some(kept_back) = shared.offences.seldom.may_say("a channel could not be closed") {
                    tracing::warn!(guest = %shared.target.id, kept_back, "a channel could not be closed; its connection is");
                }
                connection.cut();
            }
            shared.release(&connection);
        });
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.over {
            self.shared.release(&self.connection);
        }
    }
}

/// Asks who else is on a connection.
#[derive(Clone)]
pub struct Watcher {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

impl Watcher {
    pub(super) fn is_alone(&self) -> bool {
        self.shared.commands_on(&self.connection) == 1
    }

    pub(super) fn stalled(&self) -> Stalled {
        self.connection.stall(true);
        Stalled { connection: self.connection.clone() }
    }
}

/// Keeps new commands from a connection on which a reader does not read.
pub struct Stalled {
    connection: Arc<Connection>,
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.connection.stall(false);
    }
}
