//! A daemon that plays scripts on a real socket.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use protocol::Error;
use serde_json::{Value, json};

/// One thing the daemon does after a call.
#[derive(Debug, Clone)]
pub enum Step {
    Progress(Value),
    /// A `run.event` notification's `result`.
    Item(Value),
    Answer(Value),
    Refuse(Error),
    /// Goes on only when that method was called on this connection (and answers it).
    Await(&'static str),
    /// Goes on only when the test opens it.
    Gate,
    /// Closes the connection.
    HangUp,
}

type Scripts = HashMap<&'static str, Vec<Vec<Step>>>;

/// A listening daemon; its directory is the state directory.
pub struct Fake {
    pub directory: tempfile::TempDir,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
    stop: Arc<AtomicBool>,
    gate: mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Answers each method by its script. A method named several times plays one after the
    /// other, the last again and again.
    pub fn start(scripts: &[(&'static str, Vec<Step>)]) -> Self {
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let directory = tempfile::Builder::new().permissions(own).tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("d.sock")).unwrap();
        let mut by_method = Scripts::new();
        for (method, script) in scripts {
            by_method.entry(method).or_default().push(script.clone());
        }
        let calls = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (gate, opened) = mpsc::channel();
        let thread = std::thread::spawn({
            let (calls, stop) = (calls.clone(), stop.clone());
            move || {
                for connection in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    Connection::new(connection.unwrap(), &mut by_method, &calls, &opened).serve();
                }
            }
        });
        Self { directory, calls, stop, gate, thread: Some(thread) }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("d.sock")
    }

    pub fn open_gate(&self) {
        self.gate.send(()).unwrap();
    }

    /// Waits until a method was called.
    pub fn called(&self, method: &str) {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while self.calls().iter().all(|(called, _)| called != method) {
            assert!(std::time::Instant::now() < deadline, "{method} was never called");
            std::thread::yield_now();
        }
    }

    /// Every call so far: method and parameters.
    pub fn calls(&self) -> Vec<(String, Value)> {
        self.calls.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(self.socket()));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the fake daemon panicked");
        }
    }
}

struct Connection<'a> {
    lines: BufReader<UnixStream>,
    /// What one script says arrives at once, however busy the machine is.
    out: BufWriter<UnixStream>,
    scripts: &'a mut Scripts,
    calls: &'a Mutex<Vec<(String, Value)>>,
    opened: &'a mpsc::Receiver<()>,
}

impl<'a> Connection<'a> {
    fn new(
        stream: UnixStream,
        scripts: &'a mut Scripts,
        calls: &'a Mutex<Vec<(String, Value)>>,
        opened: &'a mpsc::Receiver<()>,
    ) -> Self {
        let out = BufWriter::new(stream.try_clone().unwrap());
        Self { out, lines: BufReader::new(stream), scripts, calls, opened }
    }

    fn serve(&mut self) {
        while let Some((id, method)) = self.next_call() {
            if !self.play(&id, &method) {
                return;
            }
        }
    }

    fn next_call(&mut self) -> Option<(Value, String)> {
        // A client that went away is one of the things that are tested.
        let _ = self.out.flush();
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(n) if n > 0 => {}
            _ => return None,
        }
        let call: Value = serde_json::from_str(&line).unwrap();
        let method = call["method"].as_str().unwrap().to_owned();
        self.calls.lock().unwrap().push((method.clone(), call["params"].clone()));
        Some((call["id"].clone(), method))
    }

    /// False when the connection is over.
    fn play(&mut self, id: &Value, method: &str) -> bool {
        let Some(scripts) = self.scripts.get_mut(method) else {
            return self.send(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": format!("no method {method}")}}));
        };
        let script = if scripts.len() > 1 { scripts.remove(0) } else { scripts[0].clone() };
        script.into_iter().all(|step| match step {
            Step::Progress(progress) => {
                self.send(&json!({"jsonrpc": "2.0", "method": "progress", "params": {"id": id, "progress": progress}}))
            }
            Step::Item(item) => self
                .send(&json!({"jsonrpc": "2.0", "method": "run.event", "params": {"subscription": 7, "result": item}})),
            Step::Answer(result) => self.send(&json!({"jsonrpc": "2.0", "id": id, "result": result})),
            Step::Refuse(error) => self.send(&json!({"jsonrpc": "2.0", "id": id, "error": error})),
            Step::Await(awaited) => loop {
                match self.next_call() {
                    Some((id, method)) if method == awaited => break self.play(&id, &method),
                    Some(_) => {}
                    None => break false,
                }
            },
            Step::Gate => {
                let _ = self.out.flush();
                self.opened.recv_timeout(Duration::from_secs(30)).is_ok()
            }
            Step::HangUp => {
                let _ = self.out.flush();
                false
            }
        })
    }

    fn send(&mut self, message: &Value) -> bool {
        writeln!(self.out, "{message}").is_ok()
    }
}
