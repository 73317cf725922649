//! Removing a directory of any depth and width with the same few descriptors.
//!
//! A walk that goes down needs a descriptor or a path for each level, and a guest can nest 40,000 directories. So the tree is
//! flattened instead: of each directory found below the victim, the files are unlinked and the directories that hold something are
//! renamed up into the victim itself, where they are met again. Each directory moves once, two descriptors are open, and no path is
//! longer than one name.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, chmod, renameat, unlinkat};
use rustix::io::Errno;

use crate::replace::temporary_name;
use crate::stat::Kind;
use crate::{Error, Result, Root};

/// Removes `name` in `parent`, whatever it is. Missing is fine.
pub(crate) fn all(parent: &Root, name: &OsStr) -> Result<()> {
    let path = Path::new(name);
    match unlinkat(parent.as_fd(), path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM | Errno::ACCESS) => {}
        Err(errno) => return Err(Error::new("remove", path, errno)),
    }
    loop {
        match unlinkat(parent.as_fd(), path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(Error::new("remove", path, errno)),
        }
        // Once more when something was put in between; each turn removes what it finds, so this ends when the writers do.
        match enter(parent, path) {
            Ok(victim) => contents(&victim)?,
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
    }
}

/// Empties `victim`.
pub(crate) fn contents(victim: &Root) -> Result<()> {
    loop {
        let mut found = false;
        // What is renamed up while the listing runs may or may not appear in it; the next turn meets it.
        for entry in victim.entries()? {
            let entry = entry?;
            found = true;
            let name = Path::new(&entry.name);
            if entry.kind == Kind::Directory {
                flatten(victim, name)?;
            } else {
                unlink(victim, name)?;
            }
        }
        if !found {
            return Ok(());
        }
    }
}

/// Removes the directory `name` of `victim`; the directories in it that are not empty move up into `victim`.
fn flatten(victim: &Root, name: &Path) -> Result<()> {
    match unlinkat(victim.as_fd(), name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR) => return unlink(victim, name),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(errno) => return Err(Error::new("remove", name, errno)),
    }
    let directory = match enter(victim, name) {
        Ok(directory) => directory,
        Err(error) if error.is_missing() => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in directory.entries()? {
        let entry = entry?;
        let inner = Path::new(&entry.name);
        if entry.kind == Kind::Directory {
            lift(&directory, inner, victim)?;
        } else {
            unlink(&directory, inner)?;
        }
    }
    match unlinkat(victim.as_fd(), name, AtFlags::REMOVEDIR) {
        // Not empty any more: the next turn over the victim comes by again.
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(errno) => Err(Error::new("remove", name, errno)),
    }
}

/// Removes the directory `name` of `directory` if it is empty, else moves it up into `victim`.
fn lift(directory: &Root, name: &Path, victim: &Root) -> Result<()> {
    match unlinkat(directory.as_fd(), name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => {}
        Err(Errno::NOTDIR) => return unlink(directory, name),
        Err(errno) => return Err(Error::new("remove", name, errno)),
    }
    let mut opened = false;
    loop {
        match renameat(directory.as_fd(), name, victim.as_fd(), temporary_name()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // A temporary name that is taken: the next one.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            // Moving a directory writes its `..`, which its owner may have forbidden itself.
            Err(Errno::ACCESS) if !opened => {
                enter(directory, name)?;
                opened = true;
            }
            Err(errno) => return Err(Error::new("move", name, errno)),
        }
    }
}

fn unlink(directory: &Root, name: &Path) -> Result<()> {
    match unlinkat(directory.as_fd(), name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // It became a directory since it was listed; the next turn meets it as one.
        Err(Errno::ISDIR) => Ok(()),
        Err(errno) => Err(Error::new("remove", name, errno)),
    }
}

/// Opens a directory that is to be emptied, making it ours to read and write where its mode forbids it.
fn enter(parent: &Root, name: &Path) -> Result<Root> {
    let held = parent.handle(name)?;
    let proc = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held.as_fd()));
    let stat = crate::stat::of(held.as_fd(), Path::new("")).map_err(|errno| Error::new("look at", name, errno))?;
    if stat.mode & 0o700 != 0o700 {
        // By descriptor, since `fchmodat` follows links. Where it is refused, the open below says why.
        let _ = chmod(&proc, Mode::RWXU);
    }
    parent.dir(name)
}
