//! A directory's names, in the order the kernel gives them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType};

use crate::stat::{self, Kind};
use crate::{Error, Result, Root};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: OsString,
    pub kind: Kind,
}

/// Iterator over the names of one directory, without `.` and `..`. Names that come or go meanwhile may or may not be seen.
pub struct Entries<'root> {
    root: &'root Root,
    dir: Dir,
}

impl<'root> Entries<'root> {
    pub(crate) fn of(root: &'root Root) -> Result<Self> {
        let dir = Dir::read_from(root.as_fd()).map_err(|errno| Error::new("list", Path::new("."), errno))?;
        Ok(Self { root, dir })
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.dir.next()? {
                Ok(entry) => entry,
                Err(errno) => return Some(Err(Error::new("list", Path::new("."), errno))),
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                // Some file systems do not tell in the listing.
                FileType::Unknown => match stat::of(self.root.as_fd(), Path::new(name)) {
                    Ok(stat) => stat.kind,
                    Err(rustix::io::Errno::NOENT) => continue,
                    Err(errno) => return Some(Err(Error::new("look at", &PathBuf::from(name), errno))),
                },
                known => Kind::of(known),
            };
            return Some(Ok(Entry { name: name.to_os_string(), kind }));
        }
    }
}
