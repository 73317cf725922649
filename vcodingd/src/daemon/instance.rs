//! One daemon a state directory.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use client::Places;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use protocol::daemon::DaemonFile;
use protocol::{Error, Kind};

use crate::rpc::listener::private_directory;

/// How often a lock that is held is asked for again.
const AGAIN: Duration = Duration::from_millis(20);

/// The lock on the state directory; it ends with the process, however that ends.
#[derive(Debug)]
pub(super) struct Instance {
    _lock: Flock<File>,
}

impl Instance {
    /// With `patience` for a daemon that is ending: who hands a socket over starts the next one at once.
    pub(super) fn claim(places: &Places, patience: Duration) -> Result<Self, Error> {
        let state = &places.state;
        let unusable = |e: &dyn std::fmt::Display| {
            Error::new(Kind::InvalidConfiguration, format!("the state directory cannot be used: {e}"))
                .hint(format!("ls -ld {}", state.display()))
        };
        private_directory(state).map_err(|e| unusable(&e))?;
        let path = state.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| unusable(&format!("{}: {e}", path.display())))?;
        let until = Instant::now() + patience;
        let mut file = file;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self { _lock: lock }),
                Err((again, Errno::EWOULDBLOCK)) if Instant::now() < until => file = again,
                Err((_, Errno::EWOULDBLOCK)) => return Err(owned_by_another(places)),
                Err((_, e)) => return Err(unusable(&format!("{}: {e}", path.display()))),
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Writes `daemon.json`, by which clients find the socket.
    pub(super) fn announce(&self, places: &Places) -> Result<(), Error> {
        let path = places.daemon_file();
        let write = || {
            let temporary = path.with_extension("json.new");
            let content = serde_json::to_vec(&DaemonFile {
                socket: places.socket.clone(),
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").into(),
            })?;
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(&content)?;
            std::fs::rename(&temporary, &path)
        };
        write().map_err(|e: std::io::Error| Error::new(Kind::Internal, format!("{}: {e}", path.display())))
    }
}

fn owned_by_another(places: &Places) -> Error {
    let other =
        std::fs::read(places.daemon_file()).ok().and_then(|text| serde_json::from_slice::<DaemonFile>(&text).ok());
    let who = other.map_or_else(String::new, |d| format!(" (pid {}, version {})", d.pid, d.version));
    Error::new(Kind::DaemonRunning, format!("another vcodingd{who} owns {}", places.state.display()))
        .hint("vcodingctl daemon status")
}
