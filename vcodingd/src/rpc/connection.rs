//! One client: lines in, answers out, in any order.
//!
//! Parse errors, invalid requests, notifications and batches are answered here, as JSON-RPC 2.0
//! says; a method's function sees only well-formed calls. A client that closed its sending half
//! still gets its answers; when it has closed both, what it was waiting for is abandoned, which
//! ends its commands and nothing else (operations belong to their workspace).

use std::borrow::Cow;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use jsonrpsee::core::server::{BoundedSubscriptions, ConnectionId, MethodCallback, MethodSink, SubscriptionState};
use jsonrpsee::core::traits::IdProvider;

use jsonrpsee::types::{Id, Params, SubscriptionId};
use jsonrpsee::{Extensions, MethodResponse, Methods};
use protocol::audit::AuditEntry;
use protocol::{Error, Kind, MAX_LINE, Timestamp};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::call::{Call, ConnectionState};
use super::crowd::Place;
use super::framing::{Line, Lines, Received};
use super::listener::Peer;
use crate::audit::Audit;

/// Calls under way on one connection; further lines wait.
const CALLS: usize = 256;
/// Answers and notifications that wait for the client to read.
const OUTGOING: usize = 64;
/// Calls in a batch.
const BATCH: usize = 256;
const SUBSCRIPTIONS: u32 = 64;
/// How long a client may take until its first line has come; a person may be typing it.
const FIRST_LINE: std::time::Duration = std::time::Duration::from_secs(120);
/// How long a client may take to read what it was answered, once nothing more comes.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Connection {
    pub id: u64,
    pub peer: Peer,
    pub stream: UnixStream,
    pub place: Arc<Place>,
    pub audit: Audit,
}

/// What every call of a connection shares.
struct Shared {
    id: u64,
    peer: Peer,
    audit: Audit,
    table: Methods,
    state: Arc<ConnectionState>,
    subscriptions: BoundedSubscriptions,
    out: mpsc::Sender<Box<RawValue>>,
}

pub(super) async fn run(connection: Connection, table: Methods, shutdown: CancellationToken) {
    let Connection { id, peer, stream, place, audit } = connection;
    let (out, mut outgoing) = mpsc::channel::<Box<RawValue>>(OUTGOING);
    let shared = Arc::new(Shared {
        id,
        peer,
        audit,
        table,
        state: Arc::default(),
        subscriptions: BoundedSubscriptions::new(SUBSCRIPTIONS),
        out,
    });
    // Whoever has closed both halves is gone; a half-close only looks like it to a reader.
    let hangup = match hangup_of(&stream) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::error!(%error, "a connection cannot be watched");
            return;
        }
    };
    let stream = Arc::new(stream);
    let mut calls = JoinSet::new();
    let writer = tokio::spawn({
        let stream = stream.clone();
        async move {
            while let Some(line) = outgoing.recv().await {
                if write_line(&stream, line.get()).await.is_err() {
                    break;
                }
            }
        }
    });
    let mut lines = Lines::default();
    let mut reading = true;
    let too_silent = tokio::time::sleep(FIRST_LINE);
    tokio::pin!(too_silent);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = place.taken() => break,
            () = &mut too_silent, if reading && !place.has_spoken() => {
                tracing::debug!(pid = peer.pid, "a client said nothing");
                break;
            }
            () = gone(&hangup), if !reading => break,
            // Everything that was asked is answered, and nothing more will be asked.
            () = std::future::ready(()), if !reading && calls.is_empty() => break,
            Some(_) = calls.join_next(), if !calls.is_empty() => {}
            received = lines.next(&stream), if reading && calls.len() < CALLS => match received {
                Ok(Some(_)) if !place.speaks() => break,
                Ok(Some(Received::Line(line))) => {
                    let mut call = Box::pin(answer_line(shared.clone(), line));
                    // Calls begin in the order of their lines: a signal finds the command that the line before named.
                    if (&mut call).now_or_never().is_none() {
                        calls.spawn(call);
                    }
                }
                Ok(Some(Received::TooLong)) => {
                    let error = Error::new(Kind::InvalidMessage, format!("a line has more than {MAX_LINE} bytes"));
                    drop(shared.out.send(response(Id::Null, error).into_json()).await);
                }
                Ok(None) => reading = false,
                Err(error) => {
                    tracing::debug!(%error, "a connection failed");
                    break;
                }
            },
            else => break,
        }
    }
    // Abandons what is under way, then lets what was answered go out.
    calls.shutdown().await;
    drop(shared);
    // A subscription keeps its end of the queue: it goes on as long as its client reads.
    let mut writer = writer;
    let finished = tokio::select! {
        _ = &mut writer => true,
        () = shutdown.cancelled() => false,
        () = gone(&hangup) => false,
    };
    if !finished && tokio::time::timeout(LAST_WORDS, &mut writer).await.is_err() {
        tracing::debug!("a client did not read its answers");
        writer.abort();
    }
}

/// Says why a client is not served, as far as it can be said at once.
pub(super) fn refuse(stream: &UnixStream, error: Error) {
    let line = format!("{}\n", response(Id::Null, error).as_json().get());
    // Its queue is empty; a client that has gone misses nothing.
    let _told = stream.try_write(line.as_bytes());
}

/// A descriptor of its own for the same socket: its readiness can be cleared without stealing
/// the writer's.
fn hangup_of(stream: &UnixStream) -> std::io::Result<UnixStream> {
    let copy = stream.as_fd().try_clone_to_owned()?;
    UnixStream::from_std(copy.into())
}

/// Ends when the peer has closed both halves.
async fn gone(hangup: &UnixStream) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    loop {
        if hangup.writable().await.is_err() {
            return;
        }
        let mut fds = [PollFd::new(hangup, PollFlags::empty())];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) => return,
            // Saying that it would block makes the next wait one for the next change.
            _ => drop(hangup.try_io(Interest::WRITABLE, || Err::<(), _>(ErrorKind::WouldBlock.into()))),
        }
    }
}

async fn write_line(stream: &UnixStream, text: &str) -> std::io::Result<()> {
    let mut line = Vec::with_capacity(text.len() + 1);
    line.extend_from_slice(text.as_bytes());
    line.push(b'\n');
    let mut rest = &line[..];
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

async fn answer_line(shared: Arc<Shared>, line: Line) {
    let first = line.text.iter().copied().find(|b| !b.is_ascii_whitespace());
    let answer = match first {
        None => return,
        Some(b'[') => answer_batch(&shared, &line.text).await,
        Some(_) => match serde_json::from_slice::<&RawValue>(&line.text) {
            Ok(raw) => answer_one(&shared, raw, line.descriptors).await,
            Err(error) => Some(parse_error(&error).into_json()),
        },
    };
    if let Some(answer) = answer {
        drop(shared.out.send(answer).await);
    }
}

async fn answer_batch(shared: &Arc<Shared>, text: &[u8]) -> Option<Box<RawValue>> {
    let calls: Vec<&RawValue> = match serde_json::from_slice(text) {
        Ok(calls) => calls,
        Err(error) => return Some(parse_error(&error).into_json()),
    };
    if calls.is_empty() || calls.len() > BATCH {
        let error = Error::new(Kind::InvalidMessage, format!("a batch holds 1 to {BATCH} calls"));
        return Some(response(Id::Null, error).into_json());
    }
    let answers =
        futures_util::future::join_all(calls.into_iter().map(|raw| answer_one(shared, raw, Vec::new()))).await;
    let answers: Vec<_> = answers.into_iter().flatten().collect();
    if answers.is_empty() {
        return None;
    }
    match serde_json::value::to_raw_value(&answers) {
        Ok(array) => Some(array),
        Err(error) => Some(response(Id::Null, Error::new(Kind::Internal, error.to_string())).into_json()),
    }
}

/// A call as it stands on the wire. `id` absent is a notification; `id: null` is not.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "present")]
    id: Option<Id<'a>>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Id<'de>>, D::Error> {
    Id::deserialize(deserializer).map(Some)
}

async fn answer_one(shared: &Arc<Shared>, raw: &RawValue, descriptors: Vec<OwnedFd>) -> Option<Box<RawValue>> {
    let invalid = |why: &str| Some(response(Id::Null, Error::new(Kind::InvalidMessage, why)).into_json());
    let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(raw.get()) else {
        return invalid("a call is an object with jsonrpc, method, params and id");
    };
    if envelope.jsonrpc.as_deref() != Some("2.0") {
        return invalid("jsonrpc must be \"2.0\"");
    }
    let Some(method) = envelope.method else {
        return invalid("a call needs a method");
    };
    let notification = envelope.id.is_none();
    let id = envelope.id.unwrap_or(Id::Null).into_owned();
    let answer = dispatch(shared, id, &method, envelope.params, descriptors).await;
    answer.filter(|_| !notification)
}

async fn dispatch(
    shared: &Arc<Shared>,
    id: Id<'static>,
    method: &str,
    params: Option<&RawValue>,
    descriptors: Vec<OwnedFd>,
) -> Option<Box<RawValue>> {
    let began = Instant::now();
    let Some((name, callback)) = shared.table.method_with_name(method) else {
        let shown: String = method.chars().take(80).collect();
        let error = Error::new(Kind::UnknownMethod, format!("there is no method {shown:?}")).hint("rpc.discover");
        return Some(response(id, error).into_json());
    };
    let wire_id = serde_json::to_value(&id).unwrap_or(Value::Null);
    let call = Arc::new(Call::new(shared.state.clone(), wire_id, descriptors, shared.out.clone()));
    let mut extensions = Extensions::new();
    extensions.insert(call);
    let connection = ConnectionId(usize::try_from(shared.id).unwrap_or(usize::MAX));
    let owned = Params::new(params.map(RawValue::get)).into_owned();
    let answered = match callback {
        MethodCallback::Sync(f) => f(id, owned, MAX_LINE, extensions),
        MethodCallback::Async(f) => f(id, owned, connection, MAX_LINE, extensions).await,
        MethodCallback::Unsubscription(f) => f(id, owned, connection, MAX_LINE, extensions),
        MethodCallback::Subscription(f) => {
            let Some(permit) = shared.subscriptions.acquire() else {
                let error = Error::new(
                    Kind::WorkspaceBusy,
                    format!("a connection holds at most {SUBSCRIPTIONS} subscriptions"),
                );
                return Some(response(id, error).into_json());
            };
            let sink = MethodSink::new(shared.out.clone());
            let state = SubscriptionState { conn_id: connection, id_provider: &Numbers, subscription_permit: permit };
            // The sink has carried the response already if it was accepted.
            let answered = f(id, owned, sink, state, extensions).await;
            if answered.is_success() {
                return None;
            }
            answered
        }
    };
    if audited(name) {
        let outcome = outcome_of(&answered);
        tracing::debug!(method = name, outcome, "call");
        shared
            .audit
            .record(AuditEntry {
                id: ulid::Ulid::new().to_string().to_lowercase(),
                time: Timestamp::now(),
                uid: shared.peer.uid,
                pid: shared.peer.pid,
                method: name.to_owned(),
                target: params.and_then(|p| target_of(p.get())),
                outcome,
                took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            })
            .await;
    }
    Some(answered.into_json())
}

/// Calls that only look are not in the audit log.
fn audited(method: &str) -> bool {
    !matches!(
        method,
        "audit.search"
            | "daemon.doctor"
            | "daemon.status"
            | "rpc.discover"
            | "workspace.list"
            | "workspace.show"
            | "run.list"
            | "run.report"
            | "run.show"
            | "run.subscribe"
            | "run.unsubscribe"
            | "checkpoint.list"
            | "exec.resize"
    )
}

fn outcome_of(answered: &MethodResponse) -> String {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<protocol::message::WireError>,
    }
    if answered.is_success() {
        return "ok".into();
    }
    serde_json::from_str::<Answer>(answered.as_json().get())
        .ok()
        .and_then(|a| a.error)
        .map_or_else(|| "error".into(), |e| Error::from(e).kind().to_string())
}

/// The workspace, run or project that a call names.
fn target_of(params: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        workspace: Option<Value>,
        run: Option<Value>,
        project: Option<Value>,
    }
    let named: Named = serde_json::from_str(params).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    named
        .workspace
        .or(named.run)
        .or(named.project)
        .and_then(|v| text(&v).or_else(|| text(v.get("name")?)).or_else(|| text(v.get("project")?)))
}

fn parse_error(error: &serde_json::Error) -> MethodResponse {
    let mut answer = Error::new(Kind::InvalidMessage, format!("not JSON: {error}"));
    answer.code = -32700;
    response(Id::Null, answer)
}

fn response(id: Id<'_>, error: Error) -> MethodResponse {
    MethodResponse::error(id, super::methods::wire_error(error))
}

/// Subscription ids: numbers, unique over the daemon's life.
#[derive(Debug)]
struct Numbers;

impl IdProvider for Numbers {
    fn next_id(&self) -> SubscriptionId<'static> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        SubscriptionId::Num(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
