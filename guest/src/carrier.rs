//! The `stream` carrier: standard input and output joined with the carrier socket.
//!
//! The engine's exec runs it where the host cannot reach the socket in the run directory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use guest::places;

pub fn run() -> u8 {
    match join() {
        Ok(()) => 0,
        Err(e) => {
            crate::say(format!("carrier: {e}").as_bytes());
            1
        }
    }
}

/// Until the socket's other side has said all it had to say.
fn join() -> io::Result<()> {
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut socket = UnixStream::connect(Path::new(places::RUN).join(places::CARRIER))?;
    let mut other = socket.try_clone()?;
    // Not joined: it may wait for input that never comes, and ends with the process.
    std::thread::Builder::new().spawn(move || {
        let _ended = copy(&mut input, &mut other);
        // Whoever is gone need not be told.
        let _gone = other.shutdown(Shutdown::Write);
    })?;
    copy(&mut socket, &mut output)
}

/// By plain reads and writes: the standard library's copy splices between pipe and socket, which
/// was seen to keep bytes back that the other side waits for.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&buffer[..length])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
