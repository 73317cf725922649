//! The environment of a session.
//!
//! sshd drops the image's ENV; so the host wrote it to a file that is loaded here, for plain `ssh`
//! too. Later wins: the image, then what sshd and we know of the session, then the frame.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use guest::places;

/// A longer file of ours is cut: the whole environment has to fit beside a command's arguments.
const MAX_FILE: u64 = 1 << 20;
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<Vec<u8>, Vec<u8>>);

impl Environment {
    /// The image's, with what belongs to the session.
    pub fn of_session(shell: &[u8]) -> Self {
        let mut all = Self::default();
        for entry in read(places::ENVIRONMENT).split(|&b| b == 0) {
            all.add(entry);
        }
        if all.get(b"PATH").is_none() {
            all.set(b"PATH", PATH);
        }
        for (name, value) in std::env::vars_os() {
            let name = name.into_vec();
            if name == b"TERM" || name == b"LANG" || name.starts_with(b"LC_") || name.starts_with(b"SSH_") {
                all.set(&name, value.as_bytes());
            }
        }
        let user = places::USER.as_bytes();
        for (name, value) in [("HOME", places::HOME.as_bytes()), ("USER", user), ("LOGNAME", user), ("SHELL", shell)] {
            all.set(name.as_bytes(), value);
        }
        all
    }

    /// Adds `NAME=value`; what is not of the form is left out.
    pub fn add(&mut self, entry: &[u8]) {
        if let Some(at) = entry.iter().position(|&b| b == b'=').filter(|&at| at > 0) {
            self.set(&entry[..at], &entry[at + 1..]);
        }
    }

    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    pub fn strings(&self) -> Vec<CString> {
        // A NUL cannot be in here: neither the file's entries nor a frame's hold one.
        self.0.iter().filter_map(|(n, v)| CString::new([n.as_slice(), b"=", v].concat()).ok()).collect()
    }

    fn set(&mut self, name: &[u8], value: &[u8]) {
        self.0.insert(name.to_vec(), value.to_vec());
    }
}

/// The user's real shell.
pub fn shell() -> Vec<u8> {
    match line(places::SHELL) {
        Some(shell) if shell.starts_with(b"/") => shell,
        _ => b"/bin/sh".to_vec(),
    }
}

/// Where commands begin: what the host wrote, if it lies in the work tree and is there.
pub fn directory() -> Vec<u8> {
    let work = places::WORK.as_bytes();
    line(places::DIRECTORY)
        .filter(|at| {
            let path = Path::new(OsStr::from_bytes(at));
            path.starts_with(places::WORK)
                && !path.components().any(|c| c == std::path::Component::ParentDir)
                && path.is_dir()
        })
        .unwrap_or_else(|| work.to_vec())
}

fn line(name: &str) -> Option<Vec<u8>> {
    let content = read(name);
    content.split(|&b| b == b'\n').next().filter(|line| !line.is_empty()).map(<[u8]>::to_vec)
}

/// A file that the host wrote; empty if there is none.
fn read(name: &str) -> Vec<u8> {
    let mut content = Vec::new();
    if let Ok(file) = std::fs::File::open(Path::new(places::ETC).join(name)) {
        // What was read before an error is as good as nothing more being there.
        let _partly = file.take(MAX_FILE).read_to_end(&mut content);
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_entries_win_and_odd_ones_are_left_out() {
        let mut all = Environment::default();
        for entry in [b"A=1".as_slice(), b"=x", b"B", b"A=2=3", b"C=\xff"] {
            all.add(entry);
        }
        assert_eq!(all.strings(), [c"A=2=3".to_owned(), CString::new(b"C=\xff".to_vec()).unwrap()]);
    }
}
