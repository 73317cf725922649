//! How supervisors speak to PID 1.
//!
//! Datagrams to an abstract socket, which nobody in the guest can unlink or take over while PID 1
//! lives; the kernel says which process sent each. A command's supervisor does not wait for an
//! answer: PID 1 judges an adopted process only after it has read every datagram that was sent
//! before the adoption.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::unistd::Pid;

const NAME: &[u8] = b"vcoding-init";
const PATIENCE: Duration = Duration::from_secs(5);
/// No message is longer.
pub const MAX: usize = 64;

/// What is said to PID 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// I supervise a command.
    Exec,
    /// I supervise this run. Answered: no if it has a supervisor already.
    Run(String),
    /// Cancel this run. Answered: no if it has no supervisor.
    Cancel(String),
}

impl Message {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Exec => b"1 exec".to_vec(),
            Self::Run(id) => format!("1 run {id}").into_bytes(),
            Self::Cancel(id) => format!("1 cancel {id}").into_bytes(),
        }
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.strip_prefix("1 ")?;
        let id = |id: &str| guest::run::is_id(id).then(|| id.to_owned());
        match text.split_once(' ') {
            None if text == "exec" => Some(Self::Exec),
            Some(("run", rest)) => id(rest).map(Self::Run),
            Some(("cancel", rest)) => id(rest).map(Self::Cancel),
            _ => None,
        }
    }
}

pub const YES: u8 = b'y';
pub const NO: u8 = b'n';

pub fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(NAME)
}

/// Where a process that asks expects the answer: derived from its pid, which the kernel vouches
/// for, so that no address has to be taken from a stranger.
pub fn answer_address(asking: Pid) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("vcoding-asks-{asking}"))
}

/// Registers the calling process as a command's supervisor.
pub fn register() -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(&Message::Exec.encode(), &address()?).map(|_| ())
}

/// Registers the calling process as a run's supervisor; false if the run has one.
pub fn register_run(id: &str) -> io::Result<bool> {
    ask(&Message::Run(id.to_owned()))
}

/// Has a run cancelled; false if there is no such run.
pub fn cancel(id: &str) -> io::Result<bool> {
    ask(&Message::Cancel(id.to_owned()))
}

fn ask(message: &Message) -> io::Result<bool> {
    let socket = UnixDatagram::bind_addr(&answer_address(Pid::this())?)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to_addr(&message.encode(), &address()?)?;
    let mut answer = [0];
    loop {
        let (length, from) = socket.recv_from(&mut answer)?;
        if from.as_abstract_name() == Some(NAME) {
            return Ok(length == 1 && answer[0] == YES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_way_and_others_are_none() {
        let id = "01jd0000000000000000000000".to_owned();
        for message in [Message::Exec, Message::Run(id.clone()), Message::Cancel(id)] {
            let bytes = message.encode();
            assert!(bytes.len() <= MAX);
            assert_eq!(Message::decode(&bytes), Some(message));
        }
        for bad in ["", "1 exec ", "2 exec", "1 run ../../../etc/passwd", "1 run ", "1 cancel", "\u{ff}"] {
            assert_eq!(Message::decode(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
