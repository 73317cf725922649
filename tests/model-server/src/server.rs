//! The listener, a thread per connection, and the decision per request.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::anthropic;
use crate::http::{self, Refused, Request};
use crate::log::{Exchange, Log, Verdict};
use crate::script::{Fault, Script};

/// Connections at one time; more are closed at once.
const CONNECTIONS: usize = 64;
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(300);
/// A client that does not read its answer is let go.
const STUCK: Duration = Duration::from_secs(30);
const JSON: (&str, &str) = ("content-type", "application/json");

/// A running server; it ends with its owner.
#[derive(Debug)]
pub struct ModelServer {
    shared: Arc<Shared>,
    addr: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    script: Script,
    log: Log,
    /// Requests seen per step, for faults that come a number of times.
    asked: Mutex<HashMap<usize, u32>>,
    open: Mutex<HashMap<u64, TcpStream>>,
    closed: Condvar,
    stopping: AtomicBool,
}

impl ModelServer {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// The script could never end, or no port is free.
    pub fn start(script: Script) -> Result<Self> {
        Self::serve(script, SocketAddr::from(([127, 0, 0, 1], 0)), None)
    }

    /// Listens on `listen`; appends every exchange as one JSON line to `log` before its answer is sent.
    ///
    /// # Errors
    /// The script could never end, the log cannot be opened, or the address is taken.
    pub fn serve(script: Script, listen: SocketAddr, log: Option<&Path>) -> Result<Self> {
        script.check()?;
        let log = match log {
            None => Log::default(),
            Some(path) => {
                let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
                Log::to_file(file.with_context(|| format!("cannot write the log {}", path.display()))?)
            }
        };
        let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            script,
            log,
            asked: Mutex::default(),
            open: Mutex::default(),
            closed: Condvar::new(),
            stopping: AtomicBool::new(false),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("model-server".into()).spawn(move || accept(&listener, &shared))?
        };
        Ok(Self { shared, addr, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What an agent or a proxy takes as its base URL; without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Every request so far, oldest first (at most the last 1024).
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.log.all()
    }

    /// Waits until `done` holds for the exchanges; false when `limit` passed first.
    pub fn wait(&self, limit: Duration, done: impl Fn(&[Exchange]) -> bool) -> bool {
        self.shared.log.wait(limit, done)
    }

    /// Why requests were refused; empty after a run that went by the script.
    pub fn refusals(&self) -> Vec<String> {
        self.exchanges()
            .into_iter()
            .filter_map(|exchange| match exchange.verdict {
                Verdict::Refused(why) => Some(why),
                Verdict::Step(_) | Verdict::Fault(_) | Verdict::Side => None,
            })
            .collect()
    }

    /// Whether the last step was answered: the agent did everything the script asked for.
    pub fn finished(&self) -> bool {
        let last = self.shared.script.steps.len() - 1;
        self.exchanges().iter().any(|exchange| exchange.verdict == Verdict::Step(last))
    }

    /// Serves until the process ends.
    pub fn join(mut self) {
        if let Some(accepting) = self.accepting.take() {
            // It ends only by a panic, which has been printed.
            let _ = accepting.join();
        }
    }
}

impl Shared {
    /// Waits, but not beyond the server's end.
    fn pause(&self, time: Duration) {
        let running = |_: &mut HashMap<u64, TcpStream>| !self.stopping.load(Ordering::SeqCst);
        let waited = self.closed.wait_timeout_while(lock(&self.open), time, running);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        let Some(accepting) = self.accepting.take() else {
            return;
        };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; where even that fails it is left behind.
        let woken = TcpStream::connect_timeout(&self.addr, Duration::from_secs(5)).is_ok();
        if woken {
            let _ = accepting.join();
        }
        let mut open = lock(&self.shared.open);
        self.shared.closed.notify_all();
        for stream in open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        while !open.is_empty() {
            let (left, timed_out) =
                self.shared.closed.wait_timeout(open, Duration::from_secs(5)).unwrap_or_else(PoisonError::into_inner);
            if timed_out.timed_out() {
                return;
            }
            open = left;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (id, stream) in (0_u64..).zip(listener.incoming()) {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if lock(&shared.open).len() >= CONNECTIONS {
            continue;
        }
        let Ok(handle) = stream.try_clone() else {
            continue;
        };
        lock(&shared.open).insert(id, handle);
        let ours = Arc::clone(shared);
        let spawned = std::thread::Builder::new().name("connection".into()).spawn(move || {
            // A client that goes in mid-answer is an ordinary end.
            let _ = connection(&stream, &ours);
            let _ = stream.shutdown(Shutdown::Both);
            lock(&ours.open).remove(&id);
            ours.closed.notify_all();
        });
        if spawned.is_err() {
            lock(&shared.open).remove(&id);
        }
    }
}

fn connection(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(STUCK))?;
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream);
    let mut out = stream;
    loop {
        match http::read(&mut input, &mut out) {
            Ok(Some(request)) => {
                let keep = request.keep;
                if !answer(request, shared, &mut input, &mut out)? || !keep {
                    return Ok(());
                }
            }
            Ok(None) | Err(Refused::Gone) => return Ok(()),
            Err(Refused::Status(status, why)) => {
                let body = anthropic::error(status, why).to_string();
                http::whole(&mut out, status, &[JSON, ("connection", "close")], body.as_bytes(), false)?;
                // What the client still sends is read away, bounded: closing over unread bytes would reset the answer.
                stream.set_read_timeout(Some(Duration::from_secs(1)))?;
                out.shutdown(Shutdown::Write)?;
                io::copy(&mut input.take(2 * http::BODY as u64), &mut io::sink())?;
                return Ok(());
            }
        }
    }
}

/// What to send.
enum Answer {
    /// A status with a JSON body.
    Json(u16, Value, Option<u32>),
    /// The message, as events where the client asked for a stream.
    Message(Value, Ending),
}

/// How an answer ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Complete,
    Cut,
    Silent,
    /// Complete, with this pause before each event.
    Slow(Duration),
}

/// Answers one request; false: the connection ends here.
fn answer(request: Request, shared: &Shared, input: &mut impl Read, out: &mut &TcpStream) -> io::Result<bool> {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
    let (verdict, answer) = decide(&request, &body, shared);
    let (bare, streaming) = (request.method == "HEAD", body["stream"] == true);
    shared.log.add(Exchange {
        method: request.method,
        target: request.target,
        headers: request.headers,
        body,
        verdict,
    })?;
    match answer {
        Answer::Json(status, body, retry_after) => {
            let seconds = retry_after.map(|seconds| seconds.to_string());
            let mut headers = vec![JSON, ("request-id", "req_scripted")];
            if let Some(seconds) = &seconds {
                headers.push(("retry-after", seconds));
            }
            http::whole(out, status, &headers, body.to_string().as_bytes(), bare)?;
            Ok(true)
        }
        Answer::Message(message, ending) if streaming => stream(&message, ending, shared, input, out),
        Answer::Message(message, ending @ (Ending::Complete | Ending::Slow(_))) => {
            if let Ending::Slow(pause) = ending {
                shared.pause(pause);
            }
            http::whole(out, 200, &[JSON, ("request-id", "req_scripted")], message.to_string().as_bytes(), bare)?;
            Ok(true)
        }
        // Without a stream there is no middle: nothing comes, then the end; or nothing at all.
        Answer::Message(_, Ending::Cut) => Ok(false),
        Answer::Message(_, Ending::Silent) => {
            wait_for_end(input);
            Ok(false)
        }
    }
}

fn stream(
    message: &Value,
    ending: Ending,
    shared: &Shared,
    input: &mut impl Read,
    out: &mut &TcpStream,
) -> io::Result<bool> {
    let headers = [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache"),
        ("request-id", "req_scripted"),
    ];
    http::begin(out, 200, &headers)?;
    let events = anthropic::events(message);
    let sent = match ending {
        Ending::Complete | Ending::Slow(_) => events.len(),
        // The opening and half of the first text.
        Ending::Cut | Ending::Silent => 4,
    };
    for event in events.iter().take(sent) {
        if let Ending::Slow(pause) = ending {
            shared.pause(pause);
        }
        http::chunk(out, event.as_bytes())?;
    }
    match ending {
        Ending::Complete | Ending::Slow(_) => {
            http::chunk(out, b"")?;
            Ok(true)
        }
        Ending::Cut => Ok(false),
        Ending::Silent => {
            wait_for_end(input);
            Ok(false)
        }
    }
}

/// Until the client goes, or we are stopped (which closes the connection). An idle limit counts as gone.
fn wait_for_end(input: &mut impl Read) {
    let mut byte = [0];
    while input.read(&mut byte).is_ok_and(|read| read > 0) {}
}

fn decide(request: &Request, body: &Value, shared: &Shared) -> (Verdict, Answer) {
    let path = request.target.split('?').next().unwrap_or_default();
    match (request.method.as_str(), path) {
        ("POST", "/v1/messages") => conversation(request, body, shared),
        ("POST", "/v1/messages/count_tokens") => (Verdict::Side, Answer::Json(200, json!({"input_tokens": 100}), None)),
        ("HEAD", _) => (Verdict::Side, Answer::Json(200, json!({}), None)),
        ("GET", path) if path.ends_with("/models") => {
            let models =
                json!({"data": [{"type": "model", "id": "scripted", "display_name": "Scripted"}], "has_more": false});
            (Verdict::Side, Answer::Json(200, models, None))
        }
        _ => refuse(404, format!("nothing at {} {path}", request.method)),
    }
}

fn refuse(status: u16, why: String) -> (Verdict, Answer) {
    let body = anthropic::error(status, &format!("script: {why}"));
    (Verdict::Refused(why), Answer::Json(status, body, None))
}

fn conversation(request: &Request, body: &Value, shared: &Shared) -> (Verdict, Answer) {
    if body.is_null() {
        return refuse(400, "the body is no JSON".into());
    }
    if http::header(&request.headers, "anthropic-version").is_none() {
        return refuse(400, "the header anthropic-version is missing".into());
    }
    if shared.script.key.is_some() && http::header(&request.headers, "x-api-key") != shared.script.key.as_deref() {
        return refuse(401, "the key is not the one that is taken here".into());
    }
    if anthropic::is_side(body) {
        let message = anthropic::side(&shared.script, &body["model"]);
        return (Verdict::Side, Answer::Message(message, Ending::Complete));
    }
    let index = match shared.script.due(&anthropic::progress(body)) {
        Ok(index) => index,
        // 400 is the one error that agents do not repeat.
        Err(why) => return refuse(400, why),
    };
    let asked = {
        let mut counts = lock(&shared.asked);
        let count = counts.entry(index).or_default();
        let before = *count;
        *count = count.saturating_add(1);
        before
    };
    let message = || anthropic::message(&shared.script, index, &body["model"]);
    match shared.script.steps[index].fault(asked) {
        None => (Verdict::Step(index), Answer::Message(message(), Ending::Complete)),
        Some(Fault::Status { status, retry_after, .. }) => {
            let body = anthropic::error(*status, "a fault on cue");
            (Verdict::Fault(index), Answer::Json(*status, body, *retry_after))
        }
        Some(Fault::Cut { .. }) => (Verdict::Fault(index), Answer::Message(message(), Ending::Cut)),
        Some(Fault::Silent { .. }) => (Verdict::Fault(index), Answer::Message(message(), Ending::Silent)),
        // Late, but answered: the step is done.
        Some(Fault::Slow { pause_ms, .. }) => {
            (Verdict::Step(index), Answer::Message(message(), Ending::Slow(Duration::from_millis(*pause_ms))))
        }
    }
}
