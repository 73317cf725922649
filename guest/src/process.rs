//! Starting a program.
//!
//! By `posix_spawn`, which shares the memory until the exec: cheaper than a fork, and it returns
//! why the exec failed. The child gets descriptors 0–2, every signal at its default, none blocked.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use crate::environment::Environment;

/// A program with all it needs but its descriptors.
pub struct Program {
    /// Without a slash it is looked for in the environment's PATH.
    pub name: Vec<u8>,
    pub argv: Vec<Vec<u8>>,
    pub env: Environment,
    /// Where it begins.
    pub directory: Vec<u8>,
    pub umask: u16,
}

/// Why a program did not start, as a shell would say it.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 127 for what is not there, 126 for what is there and cannot be started.
    pub status: u8,
    pub why: Vec<u8>,
}

impl Refusal {
    pub fn new(status: u8, what: &[u8], why: &str) -> Self {
        Self { status, why: [what, b": ", why.as_bytes()].concat() }
    }
}

/// Where the child's descriptors 0–2 come from.
pub type Stdio<'a> = [BorrowedFd<'a>; 3];

impl Program {
    /// Starts it in its directory with its umask, which become this process's own.
    pub fn start(&self, stdio: Option<Stdio<'_>>, session: bool) -> Result<Pid, Refusal> {
        nix::unistd::chdir(Path::new(std::ffi::OsStr::from_bytes(&self.directory)))
            .map_err(|e| Refusal::new(126, &self.directory, e.desc()))?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(self.umask.into()));
        let path = locate(&self.name, self.env.get(b"PATH").unwrap_or_default())?;
        let refuse = |e: Errno| match e {
            Errno::ENOENT | Errno::ENOTDIR => Refusal::new(127, &self.name, "not found"),
            e => Refusal::new(126, &self.name, e.desc()),
        };
        let strings = |list: &[Vec<u8>]| list.iter().map(|s| CString::new(s.clone())).collect::<Result<Vec<_>, _>>();
        let broken = |_| refuse(Errno::EINVAL);
        let (mut argv, env) = (strings(&self.argv).map_err(broken)?, self.env.strings());
        match spawn(&path, &argv, &env, stdio, session) {
            // A script without its first line: as execvp does.
            Err(Errno::ENOEXEC) => {
                let shell = c"/bin/sh".to_owned();
                argv.splice(..1.min(argv.len()), [shell.clone(), path]);
                spawn(&shell, &argv, &env, stdio, session).map_err(refuse)
            }
            other => other.map_err(refuse),
        }
    }
}

/// The path to execute for a name.
fn locate(name: &[u8], path: &[u8]) -> Result<CString, Refusal> {
    let not_found = || Refusal::new(127, name, "not found");
    if name.contains(&b'/') {
        return CString::new(name).map_err(|_| not_found());
    }
    if name.is_empty() {
        return Err(not_found());
    }
    let mut found_other = None;
    for directory in path.split(|&b| b == b':') {
        let directory = if directory.is_empty() { b".".as_slice() } else { directory };
        let candidate = [directory, b"/", name].concat();
        let Ok(metadata) = std::fs::metadata(std::ffi::OsStr::from_bytes(&candidate)) else { continue };
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            return CString::new(candidate).map_err(|_| not_found());
        }
        found_other.get_or_insert(if metadata.is_dir() { Errno::EISDIR } else { Errno::EACCES });
    }
    Err(found_other.map_or_else(not_found, |e| Refusal::new(126, name, e.desc())))
}

/// Starts `path`; `session` gives it a session and a process group of its own.
pub fn spawn(
    path: &CStr,
    argv: &[CString],
    env: &[CString],
    stdio: Option<Stdio<'_>>,
    session: bool,
) -> Result<Pid, Errno> {
    let mut actions = PosixSpawnFileActions::init()?;
    if let Some(stdio) = stdio {
        for (fd, at) in stdio.iter().zip(0..) {
            actions.add_dup2(fd.as_raw_fd(), at)?;
        }
    }
    let mut attributes = PosixSpawnAttr::init()?;
    let mut flags = PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF;
    if session {
        flags |= PosixSpawnFlags::from_bits_retain(SETSID);
    }
    attributes.set_flags(flags)?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_sigdefault(&crate::sys::every_signal())?;
    posix_spawn(path, &actions, &attributes, argv, env)
}

/// POSIX_SPAWN_SETSID, which the crate leaves out.
const SETSID: i32 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_the_path_that_the_command_gets() {
        assert_eq!(locate(b"sh", b"/nowhere:/bin").unwrap(), c"/bin/sh".to_owned());
        assert_eq!(locate(b"/x/y", b"").unwrap(), c"/x/y".to_owned());
        assert_eq!(locate(b"sh", b"/nowhere"), Err(Refusal { status: 127, why: b"sh: not found".to_vec() }));
        assert_eq!(locate(b"", b"/bin").unwrap_err().status, 127);
    }

    #[test]
    fn what_is_there_and_cannot_be_started_is_another_thing_than_what_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("plain"), "text").unwrap();
        std::fs::create_dir(directory.path().join("dir")).unwrap();
        let path = directory.path().as_os_str().as_bytes();
        assert_eq!(locate(b"plain", path).unwrap_err().status, 126);
        assert_eq!(locate(b"dir", path).unwrap_err().status, 126);
        assert_eq!(locate(b"absent", path).unwrap_err().status, 127);
    }
}
