//! The guest's end of a carrier: an SSH server with the keys in the guest's `etc`.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use guest::frame::{self, Frame, Job};
use guest::places;
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{self, Auth, ChannelOpenHandle, Handle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, MethodKind, MethodSet, Preferred, Sig, cipher};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

use super::life::{self, Life, Relay};
use super::supervisor;
use super::verbs::{self, Command, Streams};

const PIPE: usize = 64 << 10;
/// More than both windows: neither side's SSH reads while it writes, so that two that wait for
/// each other to read would wait for ever.
const CARRIER: usize = 8 << 20;
/// Input that a command has not read yet; more waits at the sender.
const MAX_INPUT: usize = 4 << 20;
/// What a session says of a run that is not there.
const NO_RUN: u8 = 3;
const NOT_STARTED: u8 = 126;

/// A carrier to a new sshd of the guest. Without keys it ends at once, as with the real one.
pub(super) fn connect(life: &Arc<Life>) -> DuplexStream {
    let (ours, carried) = tokio::io::duplex(CARRIER);
    let (carrier, theirs) = tokio::io::duplex(CARRIER);
    let cut = life.carrier();
    let frozen = Arc::clone(life);
    life.spawn(async move {
        tokio::select! {
            () = carry(&frozen, carried, carrier) => {}
            () = cut.cancelled() => {}
        }
    });
    let serving = Arc::clone(life);
    life.spawn(async move {
        if let Err(error) = serve(&serving, theirs).await {
            tracing::debug!(guest = %serving.id(), error, "a fake sshd ended");
        }
    });
    ours
}

/// Bytes both ways until either end goes; none while the guest is frozen.
async fn carry(life: &Life, one: DuplexStream, other: DuplexStream) {
    let (one_read, one_write) = tokio::io::split(one);
    let (other_read, other_write) = tokio::io::split(other);
    tokio::select! {
        () = pass(life, one_read, other_write) => {}
        () = pass(life, other_read, one_write) => {}
    }
}

async fn pass(life: &Life, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut buffer = vec![0; PIPE];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        life.thawed().await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn serve(life: &Arc<Life>, stream: DuplexStream) -> Result<(), String> {
    let read = |name: &str| {
        let path = life.dir("etc").join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let key = PrivateKey::from_openssh(read(places::HOST_KEY)?).map_err(|error| error.to_string())?;
    let authorized = read(places::AUTHORIZED_KEYS)?;
    let authorized = authorized.lines().filter_map(|line| PublicKey::from_openssh(line).ok()).collect();
    let config = server::Config {
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::ZERO,
        keys: vec![key],
        inactivity_timeout: None,
        preferred: Preferred {
            cipher: Cow::Borrowed(&[cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305]),
            ..Preferred::DEFAULT
        },
        ..server::Config::default()
    };
    let guest = Guest { life: Arc::clone(life), authorized, forwards: Vec::new() };
    let session = server::run_stream(Arc::new(config), stream, guest).await.map_err(|error| error.to_string())?;
    session.await.map_err(|error| error.to_string())
}

/// A log-in at the guest.
struct Guest {
    life: Arc<Life>,
    authorized: Vec<PublicKey>,
    forwards: Vec<u32>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        for &port in &self.forwards {
            self.life.clear_relay(port);
        }
    }
}

impl server::Handler for Guest {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let known = self.authorized.iter().any(|known| known.key_data() == key.public_key.key_data());
        Ok(if known && user == places::USER { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        let (life, handle) = (Arc::clone(&self.life), session.handle());
        self.life.spawn(async move { shell(&life, channel, &handle).await });
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, russh::Error> {
        // As `PermitListen 127.0.0.1:Q` compares it: by its text.
        if address != "127.0.0.1" || *port == 0 {
            return Ok(false);
        }
        self.forwards.push(*port);
        self.life.set_relay(Relay { handle: session.handle(), port: *port });
        Ok(true)
    }

    async fn cancel_tcpip_forward(
        &mut self,
        _address: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, russh::Error> {
        self.life.clear_relay(port);
        Ok(true)
    }
}

/// The login shell on one channel.
async fn shell(life: &Arc<Life>, channel: Channel<Msg>, handle: &Handle) {
    let id = channel.id();
    let (mut messages, replies) = channel.split();
    let mut terminal = false;
    let exec = loop {
        match messages.wait().await {
            Some(ChannelMsg::RequestPty { .. }) => {
                terminal = true;
                let _gone = handle.channel_success(id).await;
            }
            Some(ChannelMsg::Exec { command, .. }) => break Some(command),
            Some(ChannelMsg::RequestShell { .. }) => break None,
            Some(ChannelMsg::Eof | ChannelMsg::Close) | None => return,
            Some(_) => {}
        }
    };
    let _gone = handle.channel_success(id).await;
    let (input, stdin) = tokio::io::duplex(PIPE);
    let stderr: Box<dyn AsyncWrite + Send + Unpin> =
        if terminal { Box::new(replies.make_writer()) } else { Box::new(replies.make_writer_ext(Some(1))) };
    let streams = Streams { stdin: Box::new(stdin), stdout: Box::new(replies.make_writer()), stderr };
    let status = tokio::select! {
        status = session(life, exec, terminal, streams) => Some(status),
        signal = pump(&mut messages, input) => signal.map(|signal| 128 + signal),
    };
    if let Some(status) = status {
        end(&replies, status).await;
    }
}

async fn end(replies: &ChannelWriteHalf<Msg>, status: u8) {
    // Each fails only when nobody is there any more.
    let _gone = replies.exit_status(status.into()).await;
    let _gone = replies.eof().await;
    let _gone = replies.close().await;
}

/// What is said on the channel while a command runs: input, until a signal ends it (its number)
/// or the channel is gone (none).
async fn pump(messages: &mut ChannelReadHalf, mut input: DuplexStream) -> Option<u8> {
    let mut queue = VecDeque::<Bytes>::new();
    let mut queued = 0;
    let mut ended = false;
    loop {
        if ended && queue.is_empty() {
            let _gone = input.shutdown().await;
            ended = false;
        }
        tokio::select! {
            written = write_some(&mut input, &queue), if !queue.is_empty() => match written {
                Ok(written) => {
                    queued -= written;
                    if let Some(first) = queue.front_mut() {
                        let _written = first.split_to(written);
                    }
                    if queue.front().is_some_and(Bytes::is_empty) {
                        queue.pop_front();
                    }
                }
                // The command has closed its input: what comes for it is dropped.
                Err(_) => {
                    queue.clear();
                    queued = 0;
                }
            },
            message = messages.wait(), if queued < MAX_INPUT => match message {
                Some(ChannelMsg::Data { data }) if !data.is_empty() => {
                    queued += data.len();
                    queue.push_back(data);
                }
                Some(ChannelMsg::Eof) => ended = true,
                Some(ChannelMsg::Signal { signal }) => {
                    if let Some(signal) = number(&signal) {
                        return Some(signal);
                    }
                }
                Some(ChannelMsg::Close) | None => return None,
                Some(_) => {}
            },
        }
    }
}

async fn write_some(input: &mut DuplexStream, queue: &VecDeque<Bytes>) -> io::Result<usize> {
    match queue.front() {
        Some(first) => input.write(first).await,
        None => Ok(0),
    }
}

/// Signals that end a verb.
fn number(signal: &Sig) -> Option<u8> {
    Some(match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ABRT => 6,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::Custom(name) if name == "USR2" => 12,
        Sig::PIPE => 13,
        Sig::TERM => 15,
        _ => return None,
    })
}

/// What a session does with what it was asked to execute; its exit status.
async fn session(life: &Arc<Life>, exec: Option<Vec<u8>>, terminal: bool, mut streams: Streams) -> u8 {
    let outcome = match exec {
        Some(exec) if exec == frame::EXEC.as_bytes() => read_frame(terminal, &mut streams).await,
        Some(line) => {
            Ok(Frame::exec(line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).map(<[u8]>::to_vec)))
        }
        None => Ok(Frame::exec(Vec::<Vec<u8>>::new())),
    };
    let outcome = match outcome {
        Ok(frame) => match frame.job.clone() {
            Job::Exec => {
                // Its children live on when it ends by itself, and end with it when its caller goes.
                let (tree, ends) = life::tree();
                let status = verbs::run(&Command { frame: &frame, life, tree }, &mut streams).await;
                ends.disarm();
                return status;
            }
            Job::Run { id, stdin, timeout_ms } => supervisor::start(life, &id, stdin, timeout_ms, frame),
            Job::Cancel { id } => return if life.cancel_run(&id) { 0 } else { NO_RUN },
        },
        Err(why) => Err(why),
    };
    match outcome {
        Ok(()) => 0,
        Err(why) => {
            let _gone = streams.stderr.write_all(format!("vcoding: {why}\n").as_bytes()).await;
            NOT_STARTED
        }
    }
}

async fn read_frame(terminal: bool, streams: &mut Streams) -> Result<Frame, String> {
    let broken = |error: io::Error| format!("no frame came: {error}");
    if terminal {
        say_ready(streams).await.map_err(broken)?;
    }
    let mut head = [0; frame::HEAD];
    streams.stdin.read_exact(&mut head).await.map_err(broken)?;
    let length = Frame::body_length(head).map_err(|error| error.to_string())?;
    let mut body = vec![0; length];
    streams.stdin.read_exact(&mut body).await.map_err(broken)?;
    let frame = Frame::decode(&body).map_err(|error| error.to_string())?;
    if !terminal {
        say_ready(streams).await.map_err(broken)?;
    }
    Ok(frame)
}

async fn say_ready(streams: &mut Streams) -> io::Result<()> {
    streams.stdout.write_all(&[frame::READY]).await?;
    streams.stdout.flush().await
}
