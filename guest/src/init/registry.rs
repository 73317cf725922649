//! Who supervises, and what becomes of everybody else that PID 1 adopts.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guest::run::End;
use nix::cmsg_space;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::unistd::Pid;

use crate::authority::{self, Message};
use crate::{runs, tree};

/// Supervisors at once; no guest has as many processes.
const MOST: usize = 4096;
/// Datagrams read at a stretch: more is a flood, and then nobody is judged in this round.
const STRETCH: usize = 4096;
/// How long the end of a dead supervisor's tree may hold back the run's end.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Registry {
    socket: UnixDatagram,
    runs: PathBuf,
    supervisors: HashMap<Pid, Supervisor>,
    /// Runs whose supervisors ended, and when.
    ended: Vec<(String, Instant)>,
}

struct Supervisor {
    started: u64,
    run: Option<String>,
}

impl AsFd for Registry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Registry {
    /// `runs` is the directory of runs' directories.
    pub fn new(runs: PathBuf) -> io::Result<Self> {
        let socket = UnixDatagram::bind_addr(&authority::address()?)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(Self { socket, runs, supervisors: HashMap::new(), ended: Vec::new() })
    }

    /// A child of PID 1 was reaped.
    pub fn ended(&mut self, pid: Pid) {
        if let Some(run) = self.supervisors.remove(&pid).and_then(|supervisor| supervisor.run) {
            self.ended.push((run, Instant::now()));
        }
    }

    /// Hears who registered, ends who may not stay, writes what dead supervisors could not.
    /// True if there is more to do soon. `own` knows PID 1's own children.
    pub fn settle(&mut self, own: impl Fn(Pid) -> bool) -> bool {
        // In this order: who is adopted by now has registered before.
        let adopted = tree::children(Pid::this());
        if !self.hear() {
            return true;
        }
        let strays: Vec<Pid> = adopted.into_iter().filter(|&pid| !own(pid) && !self.is_supervisor(pid)).collect();
        for &stray in &strays {
            for pid in tree::descendants(stray).into_iter().chain([stray]) {
                // It may have ended by itself.
                let _gone = kill(pid, Signal::SIGKILL);
            }
        }
        self.write_ends(strays.is_empty());
        !strays.is_empty() || !self.ended.is_empty()
    }

    fn is_supervisor(&self, pid: Pid) -> bool {
        self.supervisors.get(&pid).is_some_and(|known| tree::start_time(pid) == Some(known.started))
    }

    fn write_ends(&mut self, quiet: bool) {
        let runs = &self.runs;
        self.ended.retain(|(id, since)| {
            if !quiet && since.elapsed() < PATIENCE {
                return true;
            }
            let directory = runs.join(id);
            if directory.is_dir() && directory.join(guest::run::END).symlink_metadata().is_err() {
                // The directory is the guest's own: it may refuse, and harms itself only.
                let _refused = runs::write_end(&directory, &End::SupervisorKilled);
            }
            false
        });
    }

    /// Reads what was said; false if there was more than can be heard at a stretch.
    fn hear(&mut self) -> bool {
        for _ in 0..STRETCH {
            match self.receive() {
                Ok(Some((message, pid))) => {
                    if let (Some(answer), Ok(to)) = (self.answer(message, pid), authority::answer_address(pid)) {
                        // Who asked and does not listen gets none.
                        let _unheard = self.socket.send_to_addr(&[answer], &to);
                    }
                }
                Ok(None) => {}
                Err(_) => return true,
            }
        }
        false
    }

    /// The next message, with the process that it came from.
    fn receive(&self) -> nix::Result<Option<(Message, Pid)>> {
        let mut bytes = [0; authority::MAX];
        let mut space = cmsg_space!(libc::ucred);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let sender = received.cmsgs().ok().and_then(|mut all| {
            all.find_map(|message| match message {
                ControlMessageOwned::ScmCredentials(sender) => Some(Pid::from_raw(sender.pid())),
                _ => None,
            })
        });
        let length = received.bytes;
        Ok(Message::decode(&bytes[..length]).zip(sender))
    }

    fn answer(&mut self, message: Message, pid: Pid) -> Option<u8> {
        let as_answer = |yes| if yes { authority::YES } else { authority::NO };
        match message {
            Message::Exec => {
                self.register(pid, None);
                None
            }
            Message::Run(id) => Some(as_answer(self.supervisor_of(&id).is_none() && self.register(pid, Some(id)))),
            Message::Cancel(id) => {
                let told = self.supervisor_of(&id).is_some_and(|pid| kill(pid, Signal::SIGTERM).is_ok());
                Some(as_answer(told))
            }
        }
    }

    fn supervisor_of(&self, id: &str) -> Option<Pid> {
        let (pid, _) = self.supervisors.iter().find(|(_, known)| known.run.as_deref() == Some(id))?;
        self.is_supervisor(*pid).then_some(*pid)
    }

    fn register(&mut self, pid: Pid, run: Option<String>) -> bool {
        if self.supervisors.len() >= MOST {
            self.supervisors.retain(|&pid, known| tree::start_time(pid) == Some(known.started));
        }
        let Some(started) = tree::start_time(pid) else { return false };
        // A run's supervisor that says something else later remains the run's.
        if self.supervisors.len() >= MOST || (self.is_supervisor(pid) && run.is_none()) {
            return false;
        }
        self.supervisors.insert(pid, Supervisor { started, run });
        true
    }
}
