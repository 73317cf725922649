//! The build context: walked beneath the project without following links, without what
//! `.dockerignore` names and without secrets, as an archive and its hash.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use sha2::{Digest, Sha256};

use super::ignore::Ignore;
use super::{Error, ImageRequest, SecretGate, dockerfile};

/// Files and directories of one context.
const MAX_ENTRIES: usize = 1_000_000;
/// Bytes of one context's files.
const MAX_BYTES: u64 = 32 << 30;
/// A Dockerfile or a .dockerignore.
const MAX_TEXT: u64 = 1 << 20;
/// How much of a file the secret gate sees.
const HEAD: usize = 64 << 10;
/// How many left-out files are named; the rest is counted.
const MAX_NAMED: usize = 1000;
/// Part of every hash: a change of what is built on top must build anew.
const RECIPE: &str = "vcoding image 1";
/// A Dockerfile outside of its context goes in under this name.
const FOREIGN_DOCKERFILE: &str = ".vcoding.Dockerfile";

/// A file that was kept out of the build, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// Relative to the context.
    pub path: PathBuf,
    pub why: String,
}

/// A context, ready to be sent.
#[derive(Debug)]
pub struct Prepared {
    /// Of everything that decides the image, 16 hex digits.
    pub hash: String,
    /// The archive, in an unlinked file.
    pub archive: File,
    /// The Dockerfile's name in it.
    pub dockerfile: String,
    /// At most 1000; not what .dockerignore names.
    pub left_out: Vec<LeftOut>,
}

/// Reads the context. Blocking. The archive is written to an unlinked file in `scratch`.
///
/// # Errors
/// [`Error::Outside`] for paths through links or out of the project, [`Error::CopiesSecret`] for a
/// Dockerfile that names what was kept out, [`Error::TooLarge`], [`Error::Context`].
pub fn prepare(request: &ImageRequest, is_secret: SecretGate<'_>, scratch: &Path) -> Result<Prepared, Error> {
    let source = Source::open(request)?;
    let mut archive = Archive::new(scratch, &source.root)?;
    archive.hash_settings(request, &source);
    let mut left_out = BTreeSet::new();
    // The builder wants both, whatever .dockerignore says of them.
    archive.text(&source.dockerfile_name, &source.dockerfile)?;
    if let Some(rules) = &source.rules {
        archive.text(".dockerignore", rules)?;
    }
    source.walk(&mut |&Entry { path, stat, dir, ignored }| {
        let mut leave = |why: String| {
            if left_out.len() < MAX_NAMED {
                left_out.insert(LeftOut { path: path.to_owned(), why });
            }
            Ok(false)
        };
        if path == Path::new(".dockerignore") || path == Path::new(&source.dockerfile_name) {
            return Ok(true);
        }
        if path.file_name() == Some(OsStr::new(".git")) {
            return leave("a repository's whole history; the build gets the files only".to_owned());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => match is_secret(path, &[]) {
                Some(why) => leave(why),
                None if ignored => Ok(true),
                None => archive.directory(path, &stat).map(|()| true),
            },
            FileType::Symlink => archive.link(path, &stat, dir).map(|()| true),
            FileType::RegularFile => {
                let file = archive.open(path, dir)?;
                let mut head = Vec::new();
                (&file).take(HEAD as u64).read_to_end(&mut head).map_err(|e| archive.error(path, e))?;
                match is_secret(path, &head) {
                    Some(why) => leave(why),
                    None => archive.file(path, &head, file).map(|()| true),
                }
            }
            _ => leave("neither file, directory nor link".to_owned()),
        }
    })?;
    let left_out: Vec<_> = left_out.into_iter().collect();
    let text = String::from_utf8_lossy(&source.dockerfile);
    for (line, copied) in dockerfile::copied(&text) {
        if let Some(kept) =
            left_out.iter().find(|kept| !kept.path.as_os_str().is_empty() && copied.starts_with(&kept.path))
        {
            return Err(Error::CopiesSecret {
                dockerfile: request.dockerfile.clone(),
                line,
                path: copied,
                why: kept.why.clone(),
            });
        }
    }
    let (hash, archive) = archive.finish()?;
    Ok(Prepared { hash, archive, dockerfile: source.dockerfile_name, left_out })
}

/// A hash of the context's list (names, sizes, times, inodes) and the settings: no file's content
/// but the Dockerfile's is read. Equal fingerprints mean the same image; other ones mean nothing.
/// Blocking.
///
/// # Errors
/// As [`prepare`].
pub fn fingerprint(request: &ImageRequest) -> Result<String, Error> {
    let source = Source::open(request)?;
    let mut hash = Sha256::new();
    settings(&mut hash, request, &source);
    source.walk(&mut |&Entry { path, stat, .. }| {
        field(&mut hash, path.as_os_str().as_bytes());
        for number in [
            u64::from(stat.st_mode),
            stat.st_ino,
            stat.st_size.cast_unsigned(),
            stat.st_mtime.cast_unsigned(),
            stat.st_mtime_nsec,
            stat.st_ctime.cast_unsigned(),
            stat.st_ctime_nsec,
        ] {
            hash.update(number.to_le_bytes());
        }
        Ok(path.file_name() != Some(OsStr::new(".git")))
    })?;
    Ok(hex(&hash))
}

/// The opened context and what steers its walk.
struct Source {
    context: OwnedFd,
    /// For messages.
    root: PathBuf,
    dockerfile: Vec<u8>,
    dockerfile_name: String,
    rules: Option<Vec<u8>>,
    ignore: Ignore,
}

/// What a walk comes upon.
struct Entry<'a> {
    /// Relative to the context.
    path: &'a Path,
    stat: Stat,
    /// The directory that holds it.
    dir: &'a OwnedFd,
    /// An ignored directory in which something may be taken back; it is not sent itself.
    ignored: bool,
}

/// Called with each entry that may matter, parents first; false leaves a directory unread.
type Visit<'a> = &'a mut dyn FnMut(&Entry<'_>) -> Result<bool, Error>;

impl Source {
    fn open(request: &ImageRequest) -> Result<Self, Error> {
        let directory = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let project = rustix::fs::open(&request.project, directory, Mode::empty())
            .map_err(|e| Error::Context { path: request.project.clone(), source: e.into() })?;
        let inner = plain(&request.context)?;
        let root = request.project.join(&inner);
        let context = beneath(&project, &inner, directory).map_err(|e| broken(&root, e))?;
        let outer = plain(&request.dockerfile)?;
        let dockerfile = text(&project, &outer).map_err(|e| broken(&request.project.join(&outer), e))?;
        let dockerfile_name = match outer.strip_prefix(&inner).ok().and_then(Path::to_str) {
            Some(name) => name.to_owned(),
            None => FOREIGN_DOCKERFILE.to_owned(),
        };
        // The Dockerfile's own rules come before the context's.
        let mut own = outer.clone().into_os_string();
        own.push(".dockerignore");
        let mut rules = optional(&project, Path::new(&own)).map_err(|e| broken(&request.project.join(&own), e))?;
        if rules.is_none() {
            let name = Path::new(".dockerignore");
            rules = optional(&context, name).map_err(|e| broken(&root.join(name), e))?;
        }
        let ignore = rules.as_deref().map(|rules| Ignore::parse(&String::from_utf8_lossy(rules))).unwrap_or_default();
        Ok(Self { context, root, dockerfile, dockerfile_name, rules, ignore })
    }

    /// One directory is open at a time; what waits is a list of names, bounded with the entries.
    fn walk(&self, visit: Visit<'_>) -> Result<(), Error> {
        let mut waiting = vec![PathBuf::new()];
        let mut seen = 0;
        while let Some(parent) = waiting.pop() {
            let at = |e: rustix::io::Errno| broken(&self.root.join(&parent), e);
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let dir = beneath(&self.context, &parent, flags).map_err(at)?;
            let mut names = Vec::new();
            for entry in Dir::read_from(&dir).map_err(at)? {
                let name = entry.map_err(at)?.file_name().to_bytes().to_vec();
                if name == b"." || name == b".." {
                    continue;
                }
                seen += 1;
                if seen > MAX_ENTRIES {
                    let why = format!("more than {MAX_ENTRIES} files; name what is not needed in .dockerignore");
                    return Err(Error::TooLarge { path: self.root.clone(), why });
                }
                names.push(OsString::from_vec(name));
            }
            names.sort();
            let mut directories = Vec::new();
            for name in names {
                let path = parent.join(&name);
                let stat = match rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    // It went since the directory was read.
                    Err(rustix::io::Errno::NOENT) => continue,
                    Err(e) => return Err(broken(&self.root.join(&path), e)),
                };
                let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                let ignored = self.ignore.excludes(&path);
                if ignored && !(is_directory && self.ignore.takes_back()) {
                    continue;
                }
                if visit(&Entry { path: &path, stat, dir: &dir, ignored })? && is_directory {
                    directories.push(path);
                }
            }
            waiting.extend(directories.into_iter().rev());
        }
        Ok(())
    }
}

/// A relative path without `..`; `.` is empty.
fn plain(path: &Path) -> Result<PathBuf, Error> {
    let outside = |why| Error::Outside { path: path.to_owned(), why };
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err(outside("it has .. in it")),
            Component::RootDir | Component::Prefix(_) => return Err(outside("it must be relative to the project")),
        }
    }
    Ok(plain)
}

/// Never through a link, never out.
fn beneath(dir: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(dir, path, flags | OFlags::NONBLOCK, Mode::empty(), resolve)
}

fn broken(path: &Path, error: rustix::io::Errno) -> Error {
    match error {
        rustix::io::Errno::LOOP => Error::Outside { path: path.to_owned(), why: "it is or goes through a link" },
        rustix::io::Errno::XDEV => Error::Outside { path: path.to_owned(), why: "it leads out of the project" },
        other => Error::Context { path: path.to_owned(), source: other.into() },
    }
}

fn optional(dir: &OwnedFd, path: &Path) -> rustix::io::Result<Option<Vec<u8>>> {
    match text(dir, path) {
        Ok(text) => Ok(Some(text)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(other) => Err(other),
    }
}

fn text(dir: &OwnedFd, path: &Path) -> rustix::io::Result<Vec<u8>> {
    let fd = beneath(dir, path, OFlags::RDONLY | OFlags::CLOEXEC)?;
    if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(rustix::io::Errno::INVAL);
    }
    let mut bytes = Vec::new();
    let read = File::from(fd).take(MAX_TEXT + 1).read_to_end(&mut bytes);
    if read.is_err() || bytes.len() as u64 > MAX_TEXT {
        return Err(rustix::io::Errno::FBIG);
    }
    Ok(bytes)
}

/// The archive as it grows, with its hash. Times are kept out of the hash.
struct Archive {
    tar: tar::Builder<File>,
    hash: Sha256,
    bytes: u64,
    root: PathBuf,
}

impl Archive {
    fn new(scratch: &Path, root: &Path) -> Result<Self, Error> {
        let file = unlinked(scratch).map_err(|source| Error::Context { path: scratch.to_owned(), source })?;
        let mut tar = tar::Builder::new(file);
        tar.mode(tar::HeaderMode::Deterministic);
        Ok(Self { tar, hash: Sha256::new(), bytes: 0, root: root.to_owned() })
    }

    fn hash_settings(&mut self, request: &ImageRequest, source: &Source) {
        settings(&mut self.hash, request, source);
    }

    fn error(&self, path: &Path, source: std::io::Error) -> Error {
        Error::Context { path: self.root.join(path), source }
    }

    fn header(&mut self, kind: tar::EntryType, path: &Path, mode: u32, size: u64, mtime: i64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        // No set-id from a context; the builder decides about owners.
        header.set_mode(mode & 0o1777);
        header.set_size(size);
        header.set_mtime(u64::try_from(mtime).unwrap_or_default());
        field(&mut self.hash, &[kind.as_byte()]);
        field(&mut self.hash, path.as_os_str().as_bytes());
        field(&mut self.hash, &(mode & 0o1777).to_le_bytes());
        header
    }

    fn text(&mut self, name: &str, content: &[u8]) -> Result<(), Error> {
        let path = Path::new(name);
        let mut header = self.header(tar::EntryType::Regular, path, 0o644, content.len() as u64, 0);
        field(&mut self.hash, content);
        self.tar.append_data(&mut header, path, content).map_err(|e| self.error(path, e))
    }

    fn directory(&mut self, path: &Path, stat: &Stat) -> Result<(), Error> {
        let mut header = self.header(tar::EntryType::Directory, path, stat.st_mode, 0, stat.st_mtime);
        self.tar.append_data(&mut header, path, std::io::empty()).map_err(|e| self.error(path, e))
    }

    fn link(&mut self, path: &Path, stat: &Stat, dir: &OwnedFd) -> Result<(), Error> {
        let name = path.file_name().unwrap_or_default();
        let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(|e| self.error(path, e.into()))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        let mut header = self.header(tar::EntryType::Symlink, path, 0o777, 0, stat.st_mtime);
        field(&mut self.hash, target.as_os_str().as_bytes());
        self.tar.append_link(&mut header, path, target).map_err(|e| self.error(path, e))
    }

    fn open(&self, path: &Path, dir: &OwnedFd) -> Result<File, Error> {
        let name = Path::new(path.file_name().unwrap_or_default());
        let fd = beneath(dir, name, OFlags::RDONLY | OFlags::CLOEXEC).map_err(|e| broken(&self.root.join(path), e))?;
        Ok(File::from(fd))
    }

    fn file(&mut self, path: &Path, head: &[u8], rest: File) -> Result<(), Error> {
        let metadata = rest.metadata().map_err(|e| self.error(path, e))?;
        let size = metadata.len().max(head.len() as u64);
        self.bytes += size;
        if self.bytes > MAX_BYTES {
            let why = format!("more than {} GiB; name what is not needed in .dockerignore", MAX_BYTES >> 30);
            return Err(Error::TooLarge { path: self.root.clone(), why });
        }
        let (mode, mtime) = {
            use std::os::unix::fs::MetadataExt;
            (metadata.mode(), metadata.mtime())
        };
        let mut header = self.header(tar::EntryType::Regular, path, mode, size, mtime);
        field(&mut self.hash, &size.to_le_bytes());
        let mut hashed = Hashed { hash: &mut self.hash, content: head.chain(rest), left: size };
        let appended = self.tar.append_data(&mut header, path, &mut hashed);
        let left = hashed.left;
        appended.map_err(|e| self.error(path, e))?;
        if left > 0 {
            return Err(self.error(path, std::io::Error::other("it was cut off while it was read; try again")));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(String, File), Error> {
        let failed = |source| Error::Context { path: self.root.clone(), source };
        self.tar.finish().map_err(failed)?;
        let failed = |source| Error::Context { path: self.root.clone(), source };
        let mut file = self.tar.into_inner().map_err(failed)?;
        let failed = |source| Error::Context { path: self.root.clone(), source };
        file.flush().and_then(|()| file.rewind()).map_err(failed)?;
        Ok((hex(&self.hash), file))
    }
}

/// Exactly the announced bytes, hashed as they pass: a file that grows meanwhile is read as it was.
struct Hashed<'a, R> {
    hash: &'a mut Sha256,
    content: R,
    left: u64,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.content.read(&mut buffer[..most])?;
        self.hash.update(&buffer[..n]);
        self.left -= n as u64;
        Ok(n)
    }
}

fn settings(hash: &mut Sha256, request: &ImageRequest, source: &Source) {
    field(hash, RECIPE.as_bytes());
    field(hash, source.dockerfile_name.as_bytes());
    field(hash, &source.dockerfile);
    field(hash, source.rules.as_deref().unwrap_or_default());
    field(hash, request.target.as_deref().unwrap_or_default().as_bytes());
    field(hash, &(request.args.len() as u64).to_le_bytes());
    for (name, value) in &request.args {
        field(hash, name.as_bytes());
        field(hash, value.as_bytes());
    }
}

/// With its length, so that no two lists of fields look alike.
fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

/// 64 bits name an image among those of one workspace.
fn hex(hash: &Sha256) -> String {
    hash.clone().finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A file without a name in `dir`.
pub(super) fn unlinked(dir: &Path) -> std::io::Result<File> {
    match rustix::fs::open(dir, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => Ok(File::from(fd)),
        // Not every file system has it.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
            let path = dir.join(format!(".build-context-{}", ulid::Ulid::new()));
            let fd = rustix::fs::openat(
                CWD,
                &path,
                OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW,
                Mode::RUSR | Mode::WUSR,
            )?;
            std::fs::remove_file(&path)?;
            Ok(File::from(fd))
        }
        Err(other) => Err(other.into()),
    }
}
