//! Making sure that a daemon listens.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use protocol::daemon::DaemonFile;
use protocol::{Error, Kind};

use crate::{Client, Places};

/// How long a state directory may be held by a daemon that does not listen.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(50);
/// Before each line of a starting daemon that is for its user.
pub const NOTICE: &str = "notice: ";
/// What a daemon says that finds the directory taken.
const LOCKED: &str = "another vcodingd";

/// Connects to the daemon that is there.
///
/// # Errors
/// [`Kind::DaemonUnreachable`].
pub fn connect(places: &Places) -> Result<Client, Error> {
    match &places.explicit_socket {
        Some(socket) => Client::connect(socket),
        None => match announced(&places.daemon_file()) {
            Some(socket) if socket != places.socket => {
                Client::connect(&socket).or_else(|_| Client::connect(&places.socket))
            }
            _ => Client::connect(&places.socket),
        },
    }
}

/// The socket at which a daemon is looked for first.
pub fn socket(places: &Places) -> PathBuf {
    let announced = || announced(&places.daemon_file());
    places.explicit_socket.clone().or_else(announced).unwrap_or_else(|| places.socket.clone())
}

/// The socket that `daemon.json` names.
fn announced(file: &Path) -> Option<PathBuf> {
    let text = std::fs::read(file).ok()?;
    let file: DaemonFile = serde_json::from_slice(&text).ok()?;
    Some(file.socket)
}

/// Hears what a daemon that is started here has to say to its user.
pub type Told = fn(&str);

/// Connects, starting a daemon first where none listens. Where a socket is named that is not this
/// state directory's own, none is started: whoever names it means the daemon behind it, and which
/// state that has nobody here knows.
///
/// # Errors
/// [`Kind::DaemonUnreachable`] with what the daemon said when it did not start, or why none was.
pub fn connect_or_start(places: &Places, told: Told) -> Result<Client, Error> {
    connect_or_begin(places, told).map(|client| client.starting(places, told))
}

fn connect_or_begin(places: &Places, told: Told) -> Result<Client, Error> {
    let first = match connect(places) {
        Ok(client) => return Ok(client),
        Err(e) if places.explicit_socket.as_ref().is_some_and(|named| *named != places.socket) => {
            return Err(not_started_there(e, places));
        }
        Err(e) => e,
    };
    // A directory that is not ours alone does not get better by a new daemon.
    if first.message.contains("not a directory of yours") {
        return Err(first);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match start().and_then(|child| readiness(child, told)) {
            Ok(()) => return connect(places),
            Err(said) => {
                // Another client's daemon may have won the lock, or one that is ending may hold it still.
                if let Ok(client) = connect(places) {
                    return Ok(client);
                }
                if !said.contains(LOCKED) || Instant::now() >= deadline {
                    return Err(did_not_start(&said));
                }
            }
        }
        std::thread::sleep(AGAIN);
    }
}

fn not_started_there(error: Error, places: &Places) -> Error {
    if error.kind() != Kind::DaemonUnreachable {
        return error;
    }
    let (state, own) = (places.state.display(), places.socket.display());
    let why = format!("none is started there: the one of {state} listens at {own}");
    Error::new(Kind::DaemonUnreachable, format!("{}; {why}", error.message))
        .hint("vcodingctl daemon start, without --socket and VCODING_SOCKET")
}

/// What the daemon said of why, with its hint if it had one.
fn did_not_start(said: &str) -> Error {
    let hint = said.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap_or("vcodingctl daemon logs");
    let why: Vec<&str> = said.lines().filter(|line| !line.starts_with("hint: ")).collect();
    let why = why.join("\n");
    let why = why.strip_prefix("error: ").unwrap_or(&why);
    Error::new(Kind::DaemonUnreachable, format!("vcodingd did not start: {why}")).hint(hint)
}

/// Starts the program in the background.
fn start() -> Result<Child, String> {
    let program = daemon_program();
    Command::new(&program)
        .arg("--detach")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| {
            format!(
                "{} cannot be started: {e}; put vcodingd beside vcodingctl, or set VCODING_DAEMON to its path",
                program.display()
            )
        })
}

/// `VCODING_DAEMON`, or `vcodingd` beside this program, or the one on PATH.
pub fn daemon_program() -> PathBuf {
    if let Some(path) = std::env::var_os("VCODING_DAEMON").filter(|p| !p.is_empty()) {
        return path.into();
    }
    std::env::current_exe()
        .ok()
        .map(|exe| exe.with_file_name("vcodingd"))
        .filter(|path| path.is_file())
        .unwrap_or_else(|| OsStr::new("vcodingd").into())
}

/// A detached daemon writes its notices and `ready` to its standard output once it listens, and then
/// closes both pipes; one that cannot start says why on standard error and exits.
fn readiness(mut child: Child, told: Told) -> Result<(), String> {
    let out = child.stdout.take().expect("stdout was piped");
    let err = child.stderr.take().expect("stderr was piped");
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        match line.strip_prefix(NOTICE) {
            Some(notice) => told(notice),
            None if line == "ready" => return Ok(()),
            None => {}
        }
    }
    let mut said = String::new();
    for line in BufReader::new(err).lines().map_while(Result::ok).take(20) {
        if !said.is_empty() {
            said.push('\n');
        }
        said.push_str(&line);
    }
    let status = child.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
    Err(if said.is_empty() { status } else { said })
}
