//! SSH over one carrier.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use guest::places;
use protocol::WorkspaceId;
use russh::client::{self, AuthResult, ChannelOpenHandle, Msg};
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelId, Names, Preferred, SshId, cipher, compression, kex, mac};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::carrier::Cuttable;
use super::{Error, Keys, Result};
use crate::provider::Carrier;
use crate::seldom::Seldom;

/// Banner and key exchange, then log-in: for each.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Until a session is open, or a forward answered.
pub(super) const OPEN: Duration = Duration::from_secs(5);
/// Channels that a guest's end of a connection may try to open, unasked, before the connection is ended: an sshd tries none.
const MOST_REFUSED: usize = 16;
/// Messages that wait for one channel's reader, of at most a packet each.
const CHANNEL_QUEUE: usize = 32;
/// The longest packet: what the crate takes, and twice as fast as the usual half of it.
const PACKET: u32 = 65_535;

/// Where connections that arrive at a forwarded port go.
pub(super) type Arrivals = mpsc::Sender<Channel<Msg>>;

/// A log-in at a guest.
pub(super) struct Connection {
    handle: client::Handle<Peer>,
    cut: CancellationToken,
    /// Readers on it that have stopped reading: no new commands here.
    stalled: AtomicUsize,
    /// It failed at something: it ends with its last command.
    failed: AtomicBool,
}

/// What is needed to make one.
pub(super) struct Login<'a> {
    pub id: &'a WorkspaceId,
    pub keys: &'a Keys,
    /// Owns the task of the connection.
    pub tasks: &'a TaskTracker,
    /// Without it, forwarded connections are refused.
    pub arrivals: Option<Arrivals>,
    pub offences: &'a Arc<Offences>,
}

/// What a guest's end did that it has no business to do, on all its connections.
#[derive(Debug, Default)]
pub(super) struct Offences {
    pub seldom: Seldom,
    /// Connections that were ended for it.
    ended: AtomicUsize,
}

impl Offences {
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }
}

impl Connection {
    pub(super) async fn make(carrier: Box<dyn Carrier>, login: Login<'_>) -> Result<Self> {
        let cut = CancellationToken::new();
        // Whatever ends early takes the task with it.
        let guard = cut.clone().drop_guard();
        let stream = Cuttable::new(carrier, cut.clone(), login.tasks.token());
        let unreachable = |why: String| Error::Unreachable { id: login.id.clone(), why };
        let peer = Peer {
            id: login.id.clone(),
            expected: login.keys.host_public().clone(),
            arrivals: login.arrivals,
            offences: login.offences.clone(),
            refused: 0,
            cut: cut.clone(),
        };
        let connecting = client::connect_stream(config(), stream, peer);
        let mut handle =
            within(HANDSHAKE, "SSH's handshake", connecting).await.map_err(unreachable)?.map_err(|e| match e {
                Refusal::WrongKey => {
                    Error::WrongPeer { id: login.id.clone(), why: "it has another host key than it was given".into() }
                }
                Refusal::Ssh(e) => unreachable(format!("SSH's handshake failed: {e}")),
            })?;
        log_in(&mut handle, login.keys.client()).await.map_err(unreachable)?;
        drop(guard.disarm());
        Ok(Self { handle, cut, stalled: AtomicUsize::new(0), failed: AtomicBool::new(false) })
    }

    /// Opens a channel for a command.
    pub(super) async fn open(&self) -> Result<Channel<Msg>> {
        match tokio::time::timeout(OPEN, self.handle.channel_open_session()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(russh::Error::ChannelOpenFailure(why))) => Err(Error::NoSession { why: format!("{why:?}") }),
            Ok(Err(_)) => Err(Error::Lost),
            Err(_) => Err(Error::NoSession { why: format!("no answer in {} s", OPEN.as_secs()) }),
        }
    }

    /// Asks the guest to listen on a port of its loopback.
    pub(super) async fn listen(&self, port: u16) -> Result<()> {
        let failed = |why: String| Error::NotForwarded { port, why };
        // By this name only: the guest's sshd compares the text.
        let asked = self.handle.tcpip_forward("127.0.0.1", port.into());
        within(OPEN, "the forward", asked).await.map_err(failed)?.map(drop).map_err(|e| failed(e.to_string()))
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.handle.is_closed() && !self.cut.is_cancelled() && !self.failed.load(Ordering::Relaxed)
    }

    /// No new command on it; those under way go on.
    pub(super) fn mark_failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed) > 0
    }

    /// Counts a reader that has stopped reading, or does again.
    pub(super) fn stall(&self, stopped: bool) {
        if stopped {
            self.stalled.fetch_add(1, Ordering::Relaxed);
        } else {
            self.stalled.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Ends it at once, with every command on it.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.cut();
    }
}

async fn log_in(handle: &mut client::Handle<Peer>, key: Arc<PrivateKey>) -> std::result::Result<(), String> {
    let asked = handle.authenticate_publickey(places::USER, PrivateKeyWithHashAlg::new(key, None));
    match within(HANDSHAKE, "the log-in", asked).await? {
        Ok(AuthResult::Success) => Ok(()),
        Ok(AuthResult::Failure { .. }) => Err("it refuses our key".into()),
        Err(e) => Err(format!("the log-in failed: {e}")),
    }
}

async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> std::result::Result<T, String> {
    tokio::time::timeout(limit, future).await.map_err(|_| format!("{what} took more than {} s", limit.as_secs()))
}

/// One algorithm of each sort. Strict key exchange is offered; an sshd that is too old for it
/// does not matter, as what it protects from cannot be done to this cipher.
fn config() -> Arc<client::Config> {
    Arc::new(client::Config {
        client_id: SshId::Standard(Cow::Borrowed("SSH-2.0-vcoding")),
        maximum_packet_size: PACKET,
        channel_buffer_size: CHANNEL_QUEUE,
        preferred: Preferred {
            kex: Cow::Borrowed(&[kex::CURVE25519, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT]),
            key: Cow::Borrowed(&[Algorithm::Ed25519]),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(&[cipher::AES_128_GCM]),
            mac: Cow::Borrowed(&[mac::HMAC_SHA256_ETM]),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        ..client::Config::default()
    })
}

/// What the guest's side may do to us: prove who it is, and nothing that was not asked for.
struct Peer {
    id: WorkspaceId,
    expected: PublicKey,
    arrivals: Option<Arrivals>,
    offences: Arc<Offences>,
    refused: usize,
    cut: CancellationToken,
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the host key is another")]
    WrongKey,
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

impl Peer {
    /// Dropping the handle unanswered refuses what was asked.
    fn refuse(&mut self, what: &'static str, asked: ChannelOpenHandle) {
        drop(asked);
        self.offended(what);
    }

    fn offended(&mut self, what: &'static str) {
        if let Some(kept_back) = self.offences.seldom.may_say(what) {
            tracing::warn!(guest = %self.id, what, kept_back, "a guest tried to open a channel");
        }
        self.refused += 1;
        if self.refused == MOST_REFUSED {
            self.offences.ended.fetch_add(1, Ordering::Relaxed);
            self.cut.cancel();
            if let Some(kept_back) = self.offences.seldom.may_say("ended for it") {
                tracing::warn!(guest = %self.id, kept_back, "a connection is ended: the guest's end of it is no sshd of ours");
            }
        }
    }
}

type Session = client::Session;

impl client::Handler for Peer {
    type Error = Refusal;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> std::result::Result<bool, Refusal> {
        match key {
            PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == self.expected.key_data() => Ok(true),
            _ => Err(Refusal::WrongKey),
        }
    }

    async fn kex_done(
        &mut self,
        _secret: Option<&[u8]>,
        names: &Names,
        _session: &mut Session,
    ) -> std::result::Result<(), Refusal> {
        tracing::trace!(guest = %self.id, strict = names.strict_kex(), "keys exchanged");
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _address: &str,
        _port: u32,
        _originator: &str,
        _originator_port: u32,
        asked: ChannelOpenHandle,
        _session: &mut Session,
    ) -> std::result::Result<(), Refusal> {
        let Some(arrivals) = &self.arrivals else {
            self.refuse("a forward that nobody asked for", asked);
            return Ok(());
        };
        match arrivals.try_reserve() {
            Ok(place) => {
                asked.accept().await;
                place.send(channel);
            }
            Err(_) => tracing::debug!(guest = %self.id, "more connections at a forward than are taken"),
        }
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _path: &str,
        asked: ChannelOpenHandle,
        _session: &mut Session,
    ) -> std::result::Result<(), Refusal> {
        self.refuse("a socket's forward", asked);
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _channel: Channel<Msg>,
        asked: ChannelOpenHandle,
        _session: &mut Session,
    ) -> std::result::Result<(), Refusal> {
        self.refuse("a key agent", asked);
        Ok(())
    }

    async fn should_accept_unknown_server_channel(&mut self, _id: ChannelId, _kind: &str) -> bool {
        self.offended("a channel of a kind that is not known");
        false
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        asked: ChannelOpenHandle,
        _session: &mut Session,
    ) -> std::result::Result<(), Refusal> {
        self.refuse("a session", asked);
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host: &str,
        _port: u32,
        _originator: &str,
        _originator_port: u32,
        asked: ChannelOpenHandle,
        _session: &mut Session,
    ) -> std::result::Result<(), Refusal> {
        self.refuse("a connection from this host", asked);
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _path: &str,
        asked: ChannelOpenHandle,
        _session: &mut Session,
    ) -> std::result::Result<(), Refusal> {
        self.refuse("a connection to a socket of this host", asked);
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator: &str,
        _originator_port: u32,
        asked: ChannelOpenHandle,
        _session: &mut Session,
    ) -> std::result::Result<(), Refusal> {
        self.refuse("X11", asked);
        Ok(())
    }
}
