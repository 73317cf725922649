//! PID 1: the carrier socket, a sshd per connection, the relay, and the registry of supervisors.
//!
//! One loop over a few descriptors that never waits for anybody else. It is the authority on
//! which process may outlive its parent: what PID 1 adopts and did not register came from a
//! supervisor or a sshd that was killed, and ends with its tree.

mod log;
mod registry;
mod skeleton;

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guest::places;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use self::log::Log;
use self::registry::Registry;
use crate::{process, say, tree};

/// Connections at once; more wait in the socket's queue.
const CONNECTIONS: usize = 64;
/// How long processes have between TERM and KILL when the guest stops.
const GRACE: Duration = Duration::from_secs(3);
/// How often adopted processes are looked for when nothing tells of them.
const LOOK: Duration = Duration::from_secs(1);
/// How soon again when there is something to do.
const SOON: Duration = Duration::from_millis(5);

/// Where the guest's agents find the model endpoint, and where the host forwards it from.
#[derive(Debug, PartialEq, Eq)]
struct Ports {
    model: u16,
    relay: u16,
}

pub fn run(args: &[&str]) -> u8 {
    // What follows kills every process that it can reach when the guest stops.
    if std::process::id() != 1 {
        say(b"init is for PID 1 of a guest");
        return 2;
    }
    let Some(ports) = arguments(args) else {
        say(b"usage: vcoding-guest init [--model-port PORT --relay-port PORT]");
        return 2;
    };
    match Init::new(ports).and_then(|mut init| init.run()) {
        Ok(()) => 0,
        Err(e) => {
            say(format!("init: {e}").as_bytes());
            1
        }
    }
}

fn arguments(args: &[&str]) -> Option<Option<Ports>> {
    match args {
        [] => Some(None),
        ["--model-port", model, "--relay-port", relay] => {
            Some(Some(Ports { model: model.parse().ok()?, relay: relay.parse().ok()? }))
        }
        _ => None,
    }
}

/// From the engine, or from the guest itself, which may end its own processes anyway.
const SWEEP: Signal = Signal::SIGUSR1;

/// What a signal asks of PID 1.
enum Told {
    /// To end, and everything with it.
    Stop,
    /// To end every other process.
    Sweep,
}

struct Init {
    signals: SignalFd,
    carrier: UnixListener,
    sshd: Option<CString>,
    connections: HashSet<Pid>,
    relay: Option<Relay>,
    registry: Registry,
    log: Log,
}

struct Relay {
    listener: TcpListener,
    port: u16,
    pid: Option<Pid>,
    /// Not before, so that one that cannot start does not keep us busy.
    next: Instant,
}

impl Init {
    fn new(ports: Option<Ports>) -> io::Result<Self> {
        SigSet::all().thread_block()?;
        let mut watched = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, SWEEP] {
            watched.add(signal);
        }
        let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let mut log = Log::new()?;
        if let Err(e) = skeleton::seed(Path::new("/etc/skel"), Path::new(places::HOME)) {
            log.say(format!("the home directory was not filled from /etc/skel: {e}").as_bytes());
        }
        let sshd = places::SSHD.iter().find(|path| Path::new(path).is_file()).and_then(|path| CString::new(*path).ok());
        if sshd.is_none() {
            log.say(b"there is no sshd in this image");
        }
        let relay = ports.map(|ports| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.model))?;
            Ok::<_, io::Error>(Relay { listener, port: ports.relay, pid: None, next: Instant::now() })
        });
        Ok(Self {
            signals,
            carrier: carrier()?,
            sshd,
            connections: HashSet::new(),
            relay: relay.transpose()?,
            registry: Registry::new(PathBuf::from(places::RUN).join(places::RUNS))?,
            log,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut pause = Duration::ZERO;
        loop {
            let [signal, connection] = self.wait(pause)?;
            match signal.then(|| self.told()).flatten() {
                Some(Told::Stop) => {
                    self.stop();
                    return Ok(());
                }
                // By the kernel at one go, so that nothing that forks escapes; nobody may be there.
                Some(Told::Sweep) => drop(kill(Pid::from_raw(-1), Signal::SIGKILL)),
                None => {}
            }
            self.reap();
            self.log.forward();
            self.keep_relay();
            if connection {
                self.connect();
            }
            let (own, relay) = (&self.connections, self.relay.as_ref().and_then(|relay| relay.pid));
            let busy = self.registry.settle(|pid| own.contains(&pid) || relay == Some(pid));
            pause = if busy { SOON } else { LOOK };
        }
    }

    /// Until there is something to do: a signal, a connection, or anything else.
    fn wait(&self, pause: Duration) -> io::Result<[bool; 2]> {
        let may_connect = self.connections.len() < CONNECTIONS && self.sshd.is_some();
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.registry.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.log.as_fd(), PollFlags::POLLIN),
        ];
        if may_connect {
            fds.push(PollFd::new(self.carrier.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = |at: usize| fds.get(at).and_then(PollFd::any) == Some(true);
        Ok([ready(0), ready(3)])
    }

    fn told(&self) -> Option<Told> {
        let mut told = None;
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            told = match signal {
                Some(Signal::SIGCHLD) => told,
                Some(SWEEP) => told.or(Some(Told::Sweep)),
                _ => Some(Told::Stop),
            };
        }
        told
    }

    fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return,
                Ok(ended) => {
                    let Some(pid) = ended.pid() else { continue };
                    self.connections.remove(&pid);
                    self.registry.ended(pid);
                    if let Some(relay) = self.relay.as_mut().filter(|relay| relay.pid == Some(pid)) {
                        relay.pid = None;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// A sshd for a connection that waits.
    fn connect(&mut self) {
        let Some(sshd) = &self.sshd else { return };
        let Ok((socket, _)) = self.carrier.accept() else { return };
        let argv = [sshd.clone(), c"-i".into(), c"-e".into(), c"-f".into(), config()];
        let stdio = [socket.as_fd(), socket.as_fd(), self.log.source()];
        match process::spawn(sshd, &argv, &[], Some(stdio), false) {
            Ok(pid) => {
                self.connections.insert(pid);
            }
            Err(e) => self.log.say(format!("sshd does not start: {}", e.desc()).as_bytes()),
        }
    }

    fn keep_relay(&mut self) {
        let Some(relay) = self.relay.as_mut().filter(|relay| relay.pid.is_none()) else { return };
        if Instant::now() < relay.next {
            return;
        }
        relay.next = Instant::now() + LOOK;
        let Ok(port) = CString::new(relay.port.to_string()) else { return };
        let stderr = io::stderr();
        let stdio: [BorrowedFd<'_>; 3] = [relay.listener.as_fd(), self.log.source(), stderr.as_fd()];
        let path = c"/proc/self/exe";
        match process::spawn(path, &[c"vcoding-guest".into(), c"relay".into(), port], &[], Some(stdio), false) {
            Ok(pid) => relay.pid = Some(pid),
            Err(e) => self.log.say(format!("the relay does not start: {}", e.desc()).as_bytes()),
        }
    }

    /// TERM to all, KILL to what is left; runs whose supervisors did not get to it have an end.
    fn stop(&mut self) {
        let all = Pid::from_raw(-1);
        for (signal, patience) in [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, GRACE)] {
            // Nobody may be there.
            let _nobody = kill(all, signal);
            let until = Instant::now() + patience;
            while Instant::now() < until && !tree::children(Pid::this()).is_empty() {
                self.reap();
                std::thread::sleep(SOON);
            }
        }
        self.reap();
        self.registry.settle(|_| true);
    }
}

/// Binds the carrier socket. What lay at its place before is of an earlier start.
fn carrier() -> io::Result<UnixListener> {
    let path = Path::new(places::RUN).join(places::CARRIER);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(&path);
    nix::sys::stat::umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    debug_assert_eq!(path.metadata()?.permissions().mode() & 0o777, 0o600);
    Ok(listener)
}

fn config() -> CString {
    // Neither name holds a NUL.
    CString::new(format!("{}/{}", places::ETC, places::SSHD_CONFIG)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_together_or_not_at_all() {
        assert_eq!(arguments(&[]), Some(None));
        let both = arguments(&["--model-port", "7001", "--relay-port", "7002"]);
        assert_eq!(both, Some(Some(Ports { model: 7001, relay: 7002 })));
        for bad in [&["--model-port", "7001"][..], &["--model-port", "70010", "--relay-port", "1"], &["x"]] {
            assert_eq!(arguments(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn init_anywhere_else_than_as_pid_1_is_refused() {
        assert_eq!(run(&[]), 2);
    }
}
