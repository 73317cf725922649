//! A directory held open, and what can be done below it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Uid, chownat, mkdirat, openat, readlinkat, renameat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::open::{self, Patience};
use crate::replace::{Temporary, temporary_name};
use crate::stat::{self, Kind, Stat};
use crate::{Entries, Error, Result, remove};

/// A directory held open. All paths given to its methods are relative to it and made of plain names.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    patience: Arc<Patience>,
}

impl Root {
    /// Opens a directory by a path that is the host's own and therefore followed as usual.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            openat(rustix::fs::CWD, path, flags, Mode::empty()).map_err(|errno| Error::new("open", path, errno))?;
        Ok(Self { fd, patience: Arc::new(Patience::new(Patience::DEFAULT)) })
    }

    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The directory `rel`; an empty path is this directory once more. It shares this root's patience.
    pub fn dir(&self, rel: &Path) -> Result<Self> {
        let rel = if rel.as_os_str().is_empty() { Path::new(".") } else { plain(rel)? };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = open::beneath(self.as_fd(), rel, flags, Mode::empty(), &self.patience)
            .map_err(|errno| Error::new("open", rel, errno))?;
        Ok(Self { fd, patience: Arc::clone(&self.patience) })
    }

    /// Opens for reading what must be a regular file.
    pub fn open_file(&self, rel: &Path) -> Result<File> {
        let rel = plain(rel)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = open::beneath(self.as_fd(), rel, flags, Mode::empty(), &self.patience)
            .map_err(|errno| Error::new("open", rel, errno))?;
        let found = stat::of(fd.as_fd(), Path::new("")).map_err(|errno| Error::new("look at", rel, errno))?;
        if found.kind != Kind::File {
            return Err(Error::NotRegular { path: rel.to_path_buf() });
        }
        Ok(File::from(fd))
    }

    /// Makes a file that must not exist yet, and opens it for writing.
    pub fn create_new(&self, rel: &Path, mode: u32) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        open::beneath(self.as_fd(), plain(rel)?, flags, Mode::from_raw_mode(mode & 0o7777), &self.patience)
            .map(File::from)
            .map_err(|errno| Error::new("create", rel, errno))
    }

    /// Gives `rel` the content that `content` writes, by a temporary name and a rename: what was there before, a link to elsewhere
    /// included, is replaced and not written through. The mode is exact, whatever the process's mask. Not synced.
    pub fn replace(&self, rel: &Path, mode: u32, content: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
        let (parent, name) = self.parent_of(rel)?;
        let parent = parent.as_fd();
        let new = Temporary::create(parent, Mode::RUSR | Mode::WUSR, &self.patience)
            .map_err(|errno| Error::new("write", rel, errno))?;
        put(new, parent, name, rel, mode, content)
    }

    /// As [`Root::replace`], for what takes long to write: it has no name until it is whole, so that a kill leaves nothing of it. One
    /// step slower a file.
    pub fn replace_when_whole(
        &self,
        rel: &Path,
        mode: u32,
        content: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<()> {
        let (parent, name) = self.parent_of(rel)?;
        let parent = parent.as_fd();
        let new = Temporary::nameless(parent, Mode::RUSR | Mode::WUSR, &self.patience)
            .map_err(|errno| Error::new("write", rel, errno))?;
        put(new, parent, name, rel, mode, content)
    }

    /// Makes one directory, which must not exist yet.
    pub fn make_dir(&self, rel: &Path, mode: u32) -> Result<()> {
        let (parent, name) = self.parent_of(rel)?;
        mkdirat(parent.as_fd(), Path::new(name), Mode::from_raw_mode(mode & 0o7777))
            .map_err(|errno| Error::new("make the directory", rel, errno))
    }

    /// Gives the directory `rel` exactly these permission bits, whatever the process's mask; an empty path means this directory.
    pub fn set_dir_mode(&self, rel: &Path, mode: u32) -> Result<()> {
        let directory = self.dir(rel)?;
        rustix::fs::fchmod(&directory.fd, Mode::from_raw_mode(mode & 0o777))
            .map_err(|errno| Error::new("set the mode of", rel, errno))
    }

    /// Makes a directory and those above it, as far as they are missing, and opens it.
    pub fn make_dirs(&self, rel: &Path, mode: u32) -> Result<Self> {
        let mut at = self.dir(Path::new(""))?;
        if rel.as_os_str().is_empty() {
            return Ok(at);
        }
        for component in plain(rel)?.components() {
            let name = Path::new(component.as_os_str());
            at = match at.dir(name) {
                Ok(dir) => dir,
                Err(Error::NotFound { .. }) => {
                    match at.make_dir(name, mode) {
                        Ok(()) | Err(Error::Exists { .. }) => {}
                        Err(error) => return Err(error),
                    }
                    at.dir(name)?
                }
                Err(error) => return Err(error),
            };
        }
        Ok(at)
    }

    /// Makes a symbolic link; `target` may be any bytes, it is not looked at.
    pub fn symlink(&self, target: &OsStr, rel: &Path) -> Result<()> {
        let (parent, name) = self.parent_of(rel)?;
        symlinkat(Path::new(target), parent.as_fd(), Path::new(name))
            .map_err(|errno| Error::new("make the link", rel, errno))
    }

    /// As [`Root::replace`], with a symbolic link.
    pub fn replace_link(&self, target: &OsStr, rel: &Path) -> Result<()> {
        let (parent, name) = self.parent_of(rel)?;
        let parent = parent.as_fd();
        let refused = |errno| Error::new("make the link", rel, errno);
        let temporary = temporary_name();
        symlinkat(Path::new(target), parent, &temporary).map_err(refused)?;
        renameat(parent, &temporary, parent, Path::new(name)).map_err(|errno| {
            // Best effort, as for a temporary file.
            let _ = unlinkat(parent, &temporary, AtFlags::empty());
            refused(errno)
        })
    }

    pub fn read_link(&self, rel: &Path) -> Result<OsString> {
        let (parent, name) = self.parent_of(rel)?;
        let target = readlinkat(parent.as_fd(), Path::new(name), Vec::new())
            .map_err(|errno| Error::new("read the link", rel, errno))?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// What `rel` is, a link not followed; an empty path asks about this directory.
    pub fn stat(&self, rel: &Path) -> Result<Stat> {
        if rel.as_os_str().is_empty() {
            return stat::of(self.as_fd(), rel).map_err(|errno| Error::new("look at", rel, errno));
        }
        let (parent, name) = self.parent_of(rel)?;
        stat::of(parent.as_fd(), Path::new(name)).map_err(|errno| Error::new("look at", rel, errno))
    }

    /// Gives `rel` an owner; of a link itself, not of what it names. An empty path means this directory.
    pub fn chown(&self, rel: &Path, uid: u32, gid: u32) -> Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        let done = if rel.as_os_str().is_empty() {
            chownat(self.as_fd(), rel, uid, gid, flags)
        } else {
            let (parent, name) = self.parent_of(rel)?;
            chownat(parent.as_fd(), Path::new(name), uid, gid, flags)
        };
        done.map_err(|errno| Error::new("set the owner of", rel, errno))
    }

    /// Unlinks a file, link, fifo, socket or device.
    pub fn remove_file(&self, rel: &Path) -> Result<()> {
        let (parent, name) = self.parent_of(rel)?;
        unlinkat(parent.as_fd(), Path::new(name), AtFlags::empty()).map_err(|errno| Error::new("remove", rel, errno))
    }

    /// Removes a directory if it is empty; false if it is not.
    pub fn remove_dir(&self, rel: &Path) -> Result<bool> {
        let (parent, name) = self.parent_of(rel)?;
        match unlinkat(parent.as_fd(), Path::new(name), AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(errno) => Err(Error::new("remove", rel, errno)),
        }
    }

    /// Renames below this root; what `to` was is replaced as `rename(2)` does.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (old, old_name) = self.parent_of(from)?;
        let (new, new_name) = self.parent_of(to)?;
        renameat(old.as_fd(), Path::new(old_name), new.as_fd(), Path::new(new_name))
            .map_err(|errno| Error::new("rename", from, errno))
    }

    /// Renames `from` to `to` below another root on the same file system; what `to` was is replaced as `rename(2)` does.
    pub fn move_to(&self, from: &Path, other: &Self, to: &Path) -> Result<()> {
        let (old, old_name) = self.parent_of(from)?;
        let (new, new_name) = other.parent_of(to)?;
        renameat(old.as_fd(), Path::new(old_name), new.as_fd(), Path::new(new_name))
            .map_err(|errno| Error::new("move", from, errno))
    }

    /// Syncs the directory itself: names made, renamed or removed in it.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.fd).map_err(|errno| Error::new("sync", Path::new("."), errno))
    }

    /// Syncs everything of the filesystem it lies on: content and names.
    pub fn sync_filesystem(&self) -> Result<()> {
        rustix::fs::syncfs(&self.fd).map_err(|errno| Error::new("sync the filesystem of", Path::new("."), errno))
    }

    pub fn entries(&self) -> Result<Entries<'_>> {
        Entries::of(self)
    }

    /// Removes `rel`, whatever it is and however deep. Missing is fine.
    pub fn remove_all(&self, rel: &Path) -> Result<()> {
        let (parent, name) = split(rel)?;
        match self.dir(parent) {
            Ok(parent) => remove::all(&parent, name),
            Err(error) if error.is_missing() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes everything in this directory, not itself.
    pub fn clear(&self) -> Result<()> {
        remove::contents(self)
    }

    /// A descriptor that only names `rel`: nothing was opened, so the mode does not matter and no device notices.
    pub(crate) fn handle(&self, rel: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY;
        open::beneath(self.as_fd(), rel, flags, Mode::empty(), &self.patience)
            .map_err(|errno| Error::new("open", rel, errno))
    }

    /// The directory in which the last name of `rel` lies, and that name.
    fn parent_of<'path>(&self, rel: &'path Path) -> Result<(Parent<'_>, &'path OsStr)> {
        let (parent, name) = split(rel)?;
        if parent.as_os_str().is_empty() {
            return Ok((Parent::Here(self.as_fd()), name));
        }
        Ok((Parent::Below(self.handle(parent)?), name))
    }
}

/// Where a name lies: in the root itself, which is open already, or in a directory that was opened for it.
enum Parent<'root> {
    Here(BorrowedFd<'root>),
    Below(OwnedFd),
}

impl Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Here(fd) => *fd,
            Self::Below(fd) => fd.as_fd(),
        }
    }
}

/// Refuses what is not a path of plain names. `openat2` would refuse an escape too; this also refuses what stays inside by `..`.
fn plain(rel: &Path) -> Result<&Path> {
    let names = rel.components().all(|component| matches!(component, Component::Normal(_)));
    if !names || rel.as_os_str().is_empty() || rel.as_os_str().as_bytes().contains(&0) {
        return Err(Error::BadPath { path: PathBuf::from(rel) });
    }
    Ok(rel)
}

fn split(rel: &Path) -> Result<(&Path, &OsStr)> {
    // A single name, as a walk over thousands of them asks for: nothing to take apart.
    let name = rel.as_os_str().as_bytes();
    if !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Ok((Path::new(""), rel.as_os_str()));
    }
    let rel = plain(rel)?;
    match (rel.parent(), rel.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(Error::BadPath { path: PathBuf::from(rel) }),
    }
}

/// Fills the new file and renames it to `name`.
fn put(
    mut new: Temporary<'_>,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    rel: &Path,
    mode: u32,
    content: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<()> {
    content(&mut new.file).map_err(|source| Error::io("write", rel, source))?;
    let mode = Mode::from_raw_mode(mode & 0o7777);
    rustix::fs::fchmod(&new.file, mode).map_err(|errno| Error::new("set the mode of", rel, errno))?;
    new.give_name().map_err(|errno| Error::new("name", rel, errno))?;
    renameat(parent, &new.name, parent, Path::new(name)).map_err(|errno| Error::new("write", rel, errno))?;
    new.renamed = true;
    Ok(())
}
