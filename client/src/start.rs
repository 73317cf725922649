//! Making sure that a daemon listens.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use protocol::daemon::DaemonFile;
use protocol::{Error, Kind};

use crate::{Client, Places};

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

/// The socket that `daemon.json` names.
fn announced(file: &Path) -> Option<PathBuf> {
    let text = std::fs::read(file).ok()?;
    let file: DaemonFile = serde_json::from_slice(&text).ok()?;
    Some(file.socket)
}

/// Connects, starting a daemon first where none listens. With an explicit socket none is
/// started: whoever names a socket means the daemon behind it.
///
/// # Errors
/// [`Kind::DaemonUnreachable`] with what the daemon said when it did not start.
pub fn connect_or_start(places: &Places) -> Result<Client, Error> {
    let first = match connect(places) {
        Ok(client) => return Ok(client),
        Err(e) if places.explicit_socket.is_some() => return Err(e),
        Err(e) => e,
    };
    // A directory that is not ours alone does not get better by a new daemon.
    if first.message.contains("not a directory of yours") {
        return Err(first);
    }
    let program = daemon_program();
    let child = Command::new(&program)
        .arg("--detach")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| {
            Error::new(Kind::DaemonUnreachable, format!("{} cannot be started: {e}", program.display()))
                .hint("put vcodingd beside vcodingctl, or set VCODING_DAEMON to its path")
        })?;
    match readiness(child) {
        Ok(()) => connect(places),
        // Another client's daemon may have won the lock in the meantime.
        Err(said) => connect(places).map_err(|_| {
            Error::new(Kind::DaemonUnreachable, format!("vcodingd did not start: {said}")).hint("vcodingd")
        }),
    }
}

/// `VCODING_DAEMON`, or `vcodingd` beside this program, or the one on PATH.
fn daemon_program() -> PathBuf {
    if let Some(path) = std::env::var_os("VCODING_DAEMON").filter(|p| !p.is_empty()) {
        return path.into();
    }
    std::env::current_exe()
        .ok()
        .map(|exe| exe.with_file_name("vcodingd"))
        .filter(|path| path.is_file())
        .unwrap_or_else(|| OsStr::new("vcodingd").into())
}

/// A detached daemon writes `ready` to its standard output once it listens, and then closes
/// both pipes; one that cannot start says why on standard error and exits.
fn readiness(mut child: Child) -> Result<(), String> {
    let out = child.stdout.take().expect("stdout was piped");
    let err = child.stderr.take().expect("stderr was piped");
    let mut line = String::new();
    let ready = BufReader::new(out).read_line(&mut line).is_ok() && line.trim_end() == "ready";
    if ready {
        return Ok(());
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
