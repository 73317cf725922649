//! A guest in this process: an SSH server on a socket, with an interpreter of a few verbs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use guest::{Frame, frame, places};
use protocol::WorkspaceId;
use russh::keys::PublicKey;
use russh::server::{self, Auth, ChannelOpenHandle, Msg, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Preferred, Sig, cipher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Keys, Pool, Target};
use crate::provider::{
    BuildEvent, BuildSpec, Carrier, Engine, Guest, GuestSpec, ImageId, ImageInfo, InitProcess, Look, Peeked, Provider,
    User, Walls,
};

/// What a command does, once its frame has come.
pub(crate) type Script = Arc<dyn Fn(Frame, Side) -> BoxFuture<'static, ()> + Send + Sync>;

/// A guest with its socket in a run directory.
pub(crate) struct TestGuest {
    pub dir: tempfile::TempDir,
    pub keys: Arc<Keys>,
    pub seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

/// What happened at the guest's side.
#[derive(Default)]
pub(crate) struct Seen {
    pub connections: AtomicUsize,
    /// Ends every connection that there is.
    sweep: Mutex<CancellationToken>,
    /// Shells that wait for their frame.
    pub waiting: AtomicUsize,
    /// Ends those.
    disarm: Mutex<CancellationToken>,
    /// They take no frame.
    pub stopped: AtomicBool,
    /// What they run has ended, and its errors and its status are on the way, before their word is.
    pub overtaken: AtomicBool,
    /// Commands whose frame has come.
    pub started: AtomicUsize,
    /// Commands whose channel or connection went before they ended.
    pub abandoned: AtomicUsize,
    pub changed: tokio::sync::Notify,
    forwards: Mutex<Vec<(server::Handle, u32)>>,
    /// Of every connection that there was.
    handles: Mutex<Vec<server::Handle>>,
}

impl Seen {
    /// Waits until `condition` holds; whatever changes it notifies.
    pub(crate) async fn until(&self, condition: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if condition(self) {
                return;
            }
            changed.await;
        }
    }

    fn sweep(&self) -> CancellationToken {
        self.sweep.lock().unwrap().clone()
    }
}

impl TestGuest {
    /// One that knows [`verbs`].
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys::generate().unwrap());
        let listener = UnixListener::bind(dir.path().join(places::CARRIER)).unwrap();
        let seen = Arc::<Seen>::default();
        let accepting = tokio::spawn({
            let (keys, seen) = (keys.clone(), seen.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    serve(stream, &keys, seen.clone(), verbs(seen.clone()));
                }
            }
        });
        Self { dir, keys, seen, accepting }
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            id: "01jd0000000000000000000000".parse().unwrap(),
            run_dir: self.dir.path().to_owned(),
            user: User { uid: 1, gid: 1 },
            init: myself(),
            keys: self.keys.clone(),
            warming: super::Warming::default(),
        }
    }

    pub(crate) async fn pool(&self) -> Pool {
        Pool::open(Arc::new(Engineless::default()), self.target()).await.unwrap()
    }

    /// As when every process but the init is killed.
    pub(crate) fn kill_all(&self) {
        std::mem::take(&mut *self.seen.sweep.lock().unwrap()).cancel();
    }

    /// As when every shell that waits for its frame is killed, and no sshd.
    pub(crate) async fn kill_waiting(&self) {
        std::mem::take(&mut *self.seen.disarm.lock().unwrap()).cancel();
        self.seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 0).await;
    }

    /// Opens channels on each connection, one after the other, until it ends or `most` were refused; how many were.
    pub(crate) async fn open_channels(&self, most: usize) -> Vec<usize> {
        let handles = std::mem::take(&mut *self.seen.handles.lock().unwrap());
        let mut refused = Vec::new();
        for handle in handles {
            let mut count = 0;
            while count < most
                && matches!(handle.channel_open_session().await, Err(russh::Error::ChannelOpenFailure(_)))
            {
                count += 1;
            }
            refused.push(count);
        }
        refused
    }

    /// Somebody in the guest connects to the forwarded port.
    pub(crate) async fn connect(&self) -> Option<Channel<Msg>> {
        self.seen.until(|seen| !seen.forwards.lock().unwrap().is_empty()).await;
        let (handle, port) = self.seen.forwards.lock().unwrap()[0].clone();
        handle.channel_open_forwarded_tcpip("127.0.0.1", port, "127.0.0.1", 40_000u32).await.ok()
    }
}

impl Drop for TestGuest {
    fn drop(&mut self) {
        self.accepting.abort();
        self.kill_all();
    }
}

/// This process, in the part of a guest's init.
pub(crate) fn myself() -> InitProcess {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start_time = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    InitProcess { pid, start_time, pid_namespace: InitProcess::pid_namespace_of(pid) }
}

/// More than both windows: neither side's russh reads while it writes, so that two that wait for
/// each other to read would wait for ever. OpenSSH reads on.
const CARRIER: usize = 8 << 20;

/// One connection, as sshd in the guest would serve it.
pub(crate) fn serve<S>(mut carrier: S, keys: &Keys, seen: Arc<Seen>, script: Script)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stream, mut other) = tokio::io::duplex(CARRIER);
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut carrier, &mut other).await });
    let config = Arc::new(server::Config {
        keys: vec![keys.host_private()],
        preferred: Preferred { cipher: vec![cipher::AES_128_GCM].into(), ..Preferred::default() },
        inactivity_timeout: None,
        channel_buffer_size: 10_000,
        ..server::Config::default()
    });
    seen.connections.fetch_add(1, Ordering::SeqCst);
    seen.changed.notify_waiters();
    let peer = Peer { client: keys.client().public_key().clone(), seen: seen.clone(), script };
    tokio::spawn(async move {
        let sweep = seen.sweep();
        let serving = async {
            if let Ok(running) = server::run_stream(config, stream, peer).await {
                let handle = running.handle();
                seen.handles.lock().unwrap().push(handle.clone());
                tokio::select! {
                    _ended = running => {}
                    () = sweep.cancelled() => drop(handle.disconnect(russh::Disconnect::ByApplication, String::new(), String::new()).await),
                }
            }
        };
        serving.await;
        seen.connections.fetch_sub(1, Ordering::SeqCst);
        seen.changed.notify_waiters();
    });
}

struct Peer {
    client: PublicKey,
    seen: Arc<Seen>,
    script: Script,
}

impl server::Handler for Peer {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let known = user == places::USER && key.public_key.key_data() == self.client.key_data();
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        asked: ChannelOpenHandle,
        _session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        asked.accept().await;
        tokio::spawn(shell(channel, self.seen.clone(), self.script.clone()));
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        if command == frame::EXEC.as_bytes() { session.channel_success(id) } else { session.channel_failure(id) }
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut server::Session,
    ) -> Result<bool, russh::Error> {
        if (address, *port) == ("127.0.0.1", 1) {
            return Ok(false);
        }
        self.seen.forwards.lock().unwrap().push((session.handle(), *port));
        self.seen.changed.notify_waiters();
        Ok(true)
    }
}

/// The log-in shell: reads the frame, then runs it.
async fn shell(mut channel: Channel<Msg>, seen: Arc<Seen>, script: Script) {
    let mut terminal = None;
    let mut input = Vec::new();
    let length = |input: &[u8]| {
        let head = input.first_chunk()?;
        Some(frame::HEAD + Frame::body_length(*head).unwrap())
    };
    let mut waiting = None;
    let disarm = seen.disarm.lock().unwrap().clone();
    while length(&input).is_none_or(|length| input.len() < length) {
        let message = tokio::select! {
            message = channel.wait() => message,
            () = disarm.cancelled(), if waiting.is_some() => return drop(channel.close().await),
        };
        match message {
            Some(ChannelMsg::RequestPty { col_width, row_height, .. }) => terminal = Some((col_width, row_height)),
            Some(ChannelMsg::Exec { .. }) => {
                waiting = Some(Waiting::new(seen.clone()));
                if terminal.is_some() {
                    channel.data_bytes(vec![frame::READY]).await.unwrap();
                }
            }
            Some(ChannelMsg::Data { .. }) if seen.stopped.load(Ordering::SeqCst) => {}
            Some(ChannelMsg::Data { data }) => input.extend_from_slice(&data),
            Some(_) => {}
            None => return,
        }
    }
    drop(waiting);
    let rest = input.split_off(length(&input).unwrap());
    let frame = Frame::decode(&input[frame::HEAD..]).unwrap();
    if seen.overtaken.load(Ordering::SeqCst) {
        channel.extended_data_bytes(1, b"errors".to_vec()).await.unwrap();
        channel.exit_status(3).await.unwrap();
        channel.data_bytes([&[frame::READY], &b"output"[..]].concat()).await.unwrap();
        channel.eof().await.unwrap();
        return drop(channel.close().await);
    }
    if terminal.is_none() {
        channel.data_bytes(vec![frame::READY]).await.unwrap();
    }
    let (read, write) = channel.split();
    seen.started.fetch_add(1, Ordering::SeqCst);
    seen.changed.notify_waiters();
    script(frame, Side { read, write, rest, terminal, seen, over: false }).await;
}

/// Counts a shell as long as it waits.
struct Waiting(Arc<Seen>);

impl Waiting {
    fn new(seen: Arc<Seen>) -> Self {
        seen.waiting.fetch_add(1, Ordering::SeqCst);
        seen.changed.notify_waiters();
        Self(seen)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

/// The guest's side of one command.
pub(crate) struct Side {
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    rest: Vec<u8>,
    pub terminal: Option<(u32, u32)>,
    seen: Arc<Seen>,
    over: bool,
}

impl Side {
    /// What the host sends; its end is that the channel went.
    pub(crate) async fn next(&mut self) -> Option<ChannelMsg> {
        if !self.rest.is_empty() {
            return Some(ChannelMsg::Data { data: std::mem::take(&mut self.rest).into() });
        }
        loop {
            match self.read.wait().await {
                Some(ChannelMsg::Close) | None => return None,
                Some(ChannelMsg::WindowAdjusted { .. }) => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn out(&self, bytes: impl Into<bytes::Bytes>) -> bool {
        self.write.data_bytes(bytes).await.is_ok()
    }

    pub(crate) async fn err(&self, bytes: impl Into<bytes::Bytes>) -> bool {
        self.write.extended_data_bytes(1, bytes).await.is_ok()
    }

    pub(crate) async fn exit(mut self, status: u32) {
        self.over = true;
        let _gone = self.write.exit_status(status).await;
        let _gone = self.write.eof().await;
        let _gone = self.write.close().await;
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if !self.over {
            self.seen.abandoned.fetch_add(1, Ordering::SeqCst);
            self.seen.changed.notify_waiters();
        }
    }
}

/// `true`, `exit N`, `cat`, `both OUT ERR`, `spit BYTES`, `hang`, `signals`, `sizes`, `args`.
pub(crate) fn verbs(_seen: Arc<Seen>) -> Script {
    Arc::new(|frame, side| Box::pin(verb(frame, side)))
}

async fn verb(frame: Frame, mut side: Side) {
    let words: Vec<String> = frame.argv.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["true"] => side.exit(0).await,
        ["exit", status] => side.exit(status.parse().unwrap()).await,
        ["both", out, err] => {
            side.out(out.to_owned()).await;
            side.err(err.to_owned()).await;
            side.exit(0).await;
        }
        ["cat"] => {
            while let Some(message) = side.next().await {
                match message {
                    ChannelMsg::Data { data } => drop(side.out(data).await),
                    ChannelMsg::Eof => return side.exit(0).await,
                    _ => {}
                }
            }
        }
        ["spit", bytes] => {
            let mut left: usize = bytes.parse().unwrap();
            let mut at = 0u64;
            while left > 0 {
                let piece = pattern(at, left.min(32 * 1024));
                left -= piece.len();
                at += piece.len() as u64;
                let sent = tokio::select! {
                    sent = side.write.data_bytes(piece) => sent.is_ok(),
                    () = until_closed(&mut side.read) => false,
                };
                if !sent {
                    return;
                }
            }
            side.exit(0).await;
        }
        ["hang"] => while side.next().await.is_some() {},
        // Each by name, until one of them is TERM.
        ["signals"] => {
            side.out("ready\n").await;
            while let Some(message) = side.next().await {
                let ChannelMsg::Signal { signal } = message else { continue };
                if matches!(signal, Sig::TERM) {
                    return side.exit(143).await;
                }
                side.out(format!("{signal:?}\n")).await;
            }
        }
        // Each, until the input ends.
        ["sizes"] => {
            side.out(format!("{:?}\n", side.terminal.unwrap())).await;
            while let Some(message) = side.next().await {
                match message {
                    ChannelMsg::WindowChange { col_width, row_height, .. } => {
                        side.out(format!("{:?}\n", (col_width, row_height))).await;
                    }
                    ChannelMsg::Data { data } if data.contains(&4) => return side.exit(0).await,
                    ChannelMsg::Eof => return side.exit(0).await,
                    _ => {}
                }
            }
        }
        _ => {
            side.err(format!("{words:?}: not found\n")).await;
            side.exit(127).await;
        }
    }
}

async fn until_closed(read: &mut ChannelReadHalf) {
    while !matches!(read.wait().await, None | Some(ChannelMsg::Close)) {}
}

/// Bytes by which a gap, a repetition or a swap would show.
pub(crate) fn pattern(at: u64, length: usize) -> Vec<u8> {
    (at..at + length as u64).map(|n| (n % 251) as u8 ^ (n >> 16) as u8).collect()
}

/// A provider without guests, but perhaps with a stream into one.
#[derive(Debug, Default)]
pub(crate) struct Engineless {
    /// A socket to be had as `the engine's stream`.
    pub stream: Option<PathBuf>,
}

type Answer<'a, T> = BoxFuture<'a, crate::provider::Result<T>>;

fn absent<T: Send + 'static>() -> Answer<'static, T> {
    Box::pin(async {
        Err(crate::provider::Error::Engine { doing: "anything", message: "there is no engine in this test".to_owned() })
    })
}

impl Provider for Engineless {
    fn probe(&self) -> Answer<'_, Engine> {
        absent()
    }
    fn image<'a>(&'a self, _: &'a str) -> Answer<'a, ImageInfo> {
        absent()
    }
    fn build(&self, _: BuildSpec, _: tokio::sync::mpsc::Sender<BuildEvent>) -> Answer<'_, ImageId> {
        absent()
    }
    fn tag<'a>(&'a self, _: &'a ImageId, _: &'a str) -> Answer<'a, ()> {
        absent()
    }
    fn images<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<crate::provider::NamedImage>> {
        absent()
    }
    fn remove_image<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        absent()
    }
    fn peek<'a>(&'a self, _: &'a ImageId, _: &'a [Look<'a>]) -> Answer<'a, Vec<Peeked>> {
        absent()
    }
    fn create<'a>(&'a self, _: &'a GuestSpec) -> Answer<'a, ()> {
        absent()
    }
    fn start<'a>(&'a self, _: &'a GuestSpec) -> Answer<'a, Walls> {
        absent()
    }
    fn stop<'a>(&'a self, _: &'a WorkspaceId, _: std::time::Duration) -> Answer<'a, ()> {
        absent()
    }
    fn remove<'a>(&'a self, _: &'a WorkspaceId) -> Answer<'a, ()> {
        absent()
    }
    fn pause<'a>(&'a self, _: &'a WorkspaceId) -> Answer<'a, ()> {
        absent()
    }
    fn unpause<'a>(&'a self, _: &'a WorkspaceId) -> Answer<'a, ()> {
        absent()
    }
    fn sweep<'a>(&'a self, _: &'a WorkspaceId) -> Answer<'a, ()> {
        absent()
    }
    fn inspect<'a>(&'a self, _: &'a WorkspaceId) -> Answer<'a, Option<Guest>> {
        absent()
    }
    fn list(&self) -> Answer<'_, Vec<Guest>> {
        absent()
    }
    fn init_process<'a>(&'a self, _: &'a WorkspaceId) -> Answer<'a, InitProcess> {
        absent()
    }
    fn is_there(&self, _: &InitProcess) -> bool {
        false
    }
    fn memory_kills(&self, _: &InitProcess) -> Option<u64> {
        None
    }
    fn carrier_stream<'a>(&'a self, _: &'a WorkspaceId) -> Answer<'a, Box<dyn Carrier>> {
        let Some(path) = self.stream.clone() else { return absent() };
        Box::pin(async move { Ok(Box::new(tokio::net::UnixStream::connect(path).await.unwrap()) as Box<dyn Carrier>) })
    }
}
