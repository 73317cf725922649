//! The way to the model endpoint: from the port that agents know to the one that the host forwards.
//!
//! PID 1 listens and hands the listener in as descriptor 0. While the host's end is absent (its
//! daemon restarts) connections wait here, bounded in number and time.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Connections at once, those that wait included; more wait in the listener's queue.
const MOST: usize = 64;
/// How long a connection waits for the host's end.
const PATIENCE: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_millis(100);
/// A relay's threads do nothing but copy.
const STACK: usize = 64 << 10;
const BUFFER: usize = 32 << 10;

pub fn run(port: &str) -> u8 {
    let Ok(port) = port.parse() else { return 2 };
    let Ok(listener) = io::stdin().as_fd().try_clone_to_owned().map(TcpListener::from) else { return 1 };
    serve(&listener, port, PATIENCE);
    1
}

/// Relays until accepting fails for good.
fn serve(listener: &TcpListener, port: u16, patience: Duration) {
    let places = Arc::new(Places::default());
    loop {
        let place = Places::take(&places);
        match listener.accept() {
            Ok((stream, _)) => {
                // Without a thread the connection is closed, and its caller tries again.
                let _closed = thread(move || {
                    relay(&stream, port, patience);
                    drop(place);
                });
            }
            // Descriptors may be short for a while.
            Err(e) if e.raw_os_error() == Some(libc::EBADF) || e.raw_os_error() == Some(libc::EINVAL) => return,
            Err(_) => std::thread::sleep(RETRY),
        }
    }
}

fn thread(work: impl FnOnce() + Send + 'static) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().stack_size(STACK).spawn(work)
}

fn relay(caller: &TcpStream, port: u16, patience: Duration) {
    let Some(host) = connect(caller, port, patience) else { return };
    let (Ok(from), Ok(to)) = (caller.try_clone(), host.try_clone()) else { return };
    // Small writes are events of a stream: none may wait for the next.
    let _slower = (caller.set_nodelay(true), host.set_nodelay(true));
    let Ok(up) = thread(move || copy(&from, &to)) else { return };
    copy(&host, caller);
    // Its panic would have been a copy that ended.
    let _ended = up.join();
}

/// A connection to the host's end, waited for as long as the caller stays.
fn connect(caller: &TcpStream, port: u16, patience: Duration) -> Option<TcpStream> {
    let until = Instant::now() + patience;
    loop {
        if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            return Some(stream);
        }
        if Instant::now() > until || gone(caller) {
            return None;
        }
        std::thread::sleep(RETRY);
    }
}

fn gone(stream: &TcpStream) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0)
}

/// Copies until the end, and passes the end on. A failure ends both directions.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return close(from, to),
        };
        if to.write_all(&buffer[..length]).is_err() {
            return close(from, to);
        }
    }
    // The other side may have gone.
    let _gone = to.shutdown(Shutdown::Write);
}

fn close(from: &TcpStream, to: &TcpStream) {
    // Either may have gone.
    let _gone = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[derive(Default)]
struct Places {
    taken: Mutex<usize>,
    freed: Condvar,
}

struct Place(Arc<Places>);

impl Places {
    fn take(this: &Arc<Self>) -> Place {
        let taken = this.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = this.freed.wait_while(taken, |taken| *taken >= MOST).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Place(Arc::clone(this))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay to `port`, on a port that is returned; its thread ends with the test program.
    fn start(port: u16, patience: Duration) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        std::thread::spawn(move || serve(&listener, port, patience));
        own
    }

    /// A port that nobody listens on: bound once, and let go.
    fn absent() -> u16 {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn a_connection_waits_for_the_other_end_and_passes_both_ways_with_the_half_close() {
        let port = absent();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, start(port, PATIENCE))).unwrap();
        client.write_all(b"early").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let late = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let (mut host, _) = late.accept().unwrap();
        let mut text = String::new();
        host.read_to_string(&mut text).unwrap();
        host.write_all(b"answer").unwrap();
        drop(host);
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "earlyanswer");
    }

    #[test]
    fn waiting_has_an_end() {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, start(absent(), Duration::ZERO))).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    }
}
