//! Artifacts out of the work tree: files by their names, of any size.
//!
//! Both ends are walked beneath a directory that is held open: no link of the guest's is followed, none of the project's is written
//! through, none is made. A file is whole or not there.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fs::{Kind, Root};
use gix_glob::wildmatch;
use gix_glob::wildmatch::Mode;
use protocol::transfer::{CollectResult, Collected, Flagged};
use protocol::workspace::LeftOut;

/// Names that are looked at in one work tree.
const MOST_NAMES: u64 = 2_000_000;
/// What lies deeper is left out. Each level holds a descriptor.
const DEEPEST: usize = 64;
/// All matching paths together.
const PATH_BYTES: usize = 16 << 20;
/// Files that are named to a client; all are counted.
const NAMED: usize = 1000;
/// Read and written at a time.
const CHUNK: usize = 1 << 20;
/// What the user may do with a file; never set-id, never sticky.
const MODES: u32 = 0o777;

#[derive(Debug, Clone)]
pub struct Request {
    /// As in a shell: `*` ends at a slash, `**` does not; one that names a directory means all in it.
    pub patterns: Vec<Vec<u8>>,
    /// Where the files go, below their own directories; made if it is missing.
    pub to: PathBuf,
    /// Replaces what is there and differs.
    pub force: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("nothing in the work tree matches {}", .patterns.join(", "))]
    NoMatch { patterns: Vec<String> },
    #[error("the work tree has more names than can be looked through, or more that match than can be held")]
    TooMany,
    #[error("{path}")]
    To { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Files(#[from] fs::Error),
    /// Nothing was written.
    #[error("what comes home could not be watched")]
    Unwatched(#[source] std::io::Error),
    #[error("nobody waits for the files any more")]
    Abandoned,
}

/// Copies what matches out of `tree`; asks `abandoned` now and then, and tells `before` which paths are about to be written. Blocking.
///
/// # Errors
/// [`Error`]; what was collected before stays.
pub fn collect(
    tree: &Path,
    request: &Request,
    abandoned: &dyn Fn() -> bool,
    before: &dyn Fn(&[PathBuf]) -> std::io::Result<()>,
) -> Result<CollectResult, Error> {
    let unusable = |source| Error::To { path: request.to.clone(), source };
    let from = Root::open(tree)?;
    let mut walk = Walk { request, abandoned, matches: Vec::new(), held: 0, skipped: Skipped::default(), names: 0 };
    walk.directory(&from, Path::new(""), 0, false)?;
    if walk.matches.is_empty() && walk.skipped.total == 0 {
        let patterns = request.patterns.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect();
        return Err(Error::NoMatch { patterns });
    }
    walk.matches.sort_unstable();
    before(&walk.matches).map_err(Error::Unwatched)?;
    std::fs::create_dir_all(&request.to).map_err(unusable)?;
    let to = Root::open(&request.to)?;
    let mut result = CollectResult::default();
    let mut skipped = walk.skipped;
    for path in &walk.matches {
        if abandoned() {
            return Err(Error::Abandoned);
        }
        match one(&from, &to, path, request.force, abandoned) {
            Ok(Done::Copied(size)) => {
                result.total += 1;
                result.bytes += size;
                if result.files.len() < NAMED {
                    result.files.push(Collected { path: path.as_os_str().to_owned().into(), size });
                }
                if let Some(why) = super::obeyed::policy().flag(path.as_os_str().as_bytes()) {
                    result.flagged_total += 1;
                    if result.flagged.len() == NAMED {
                        continue;
                    }
                    result.flagged.push(Flagged { path: path.as_os_str().to_owned().into(), why: why.to_owned() });
                }
            }
            Ok(Done::Same) => result.same += 1,
            Ok(Done::InTheWay) => {
                result.in_the_way_total += 1;
                if result.in_the_way.len() < NAMED {
                    result.in_the_way.push(path.as_os_str().to_owned().into());
                }
            }
            Ok(Done::Gone) => skipped.add(path, "was gone, or another thing, when it was to be copied"),
            Ok(Done::Unreadable(why)) => skipped.add(path, &why),
            Err(error) => return Err(error),
        }
    }
    (result.skipped, result.skipped_total) = (skipped.named, skipped.total);
    Ok(result)
}

enum Done {
    Copied(u64),
    /// It is there already.
    Same,
    InTheWay,
    /// Or another thing, since it was seen.
    Gone,
    /// Held by a lease, or not for the daemon to read.
    Unreadable(String),
}

/// What matched and does not come along: all are counted, some are named.
#[derive(Default)]
struct Skipped {
    named: Vec<LeftOut>,
    total: u64,
}

impl Skipped {
    fn add(&mut self, path: &Path, why: &str) {
        self.total += 1;
        if self.named.len() < NAMED {
            self.named.push(LeftOut { path: path.as_os_str().to_owned().into(), why: why.to_owned() });
        }
    }
}

struct Walk<'a> {
    request: &'a Request,
    abandoned: &'a dyn Fn() -> bool,
    matches: Vec<PathBuf>,
    held: usize,
    skipped: Skipped,
    names: u64,
}

impl Walk<'_> {
    fn directory(&mut self, root: &Root, below: &Path, depth: usize, all: bool) -> Result<(), Error> {
        for entry in root.entries()? {
            let Ok(entry) = entry else { continue };
            self.names += 1;
            if self.names > MOST_NAMES {
                return Err(Error::TooMany);
            }
            if self.names.is_multiple_of(4096) && (self.abandoned)() {
                return Err(Error::Abandoned);
            }
            let path = below.join(&entry.name);
            let wanted = all || self.request.patterns.iter().any(|pattern| fits(pattern, &path));
            match entry.kind {
                // Whatever it is: the host's git would obey it.
                _ if history::is_git_directory(entry.name.as_bytes()) => {}
                Kind::Directory if depth >= DEEPEST => self.skipped.add(&path, "lies too deep"),
                Kind::Directory => match root.dir(Path::new(&entry.name)) {
                    Ok(inner) => self.directory(&inner, &path, depth + 1, wanted)?,
                    Err(error) if error.is_missing() => {}
                    Err(error) if wanted => self.skipped.add(&path, &error.to_string()),
                    Err(_) => {}
                },
                Kind::File if wanted => {
                    self.held += path.as_os_str().len();
                    if self.held > PATH_BYTES {
                        return Err(Error::TooMany);
                    }
                    self.matches.push(path);
                }
                Kind::Symlink if wanted => self.skipped.add(&path, "is a link"),
                _ if wanted => self.skipped.add(&path, "is no regular file"),
                _ => {}
            }
        }
        Ok(())
    }
}

fn fits(pattern: &[u8], path: &Path) -> bool {
    let pattern = pattern.strip_suffix(b"/").unwrap_or(pattern);
    wildmatch(pattern.into(), path.as_os_str().as_bytes().into(), Mode::NO_MATCH_SLASH_LITERAL)
}

fn one(from: &Root, to: &Root, path: &Path, force: bool, abandoned: &dyn Fn() -> bool) -> Result<Done, Error> {
    let mut source = match from.open_file(path) {
        Ok(source) => source,
        Err(fs::Error::NotRegular { .. } | fs::Error::Blocked { .. }) => return Ok(Done::Gone),
        Err(error) if error.is_missing() => return Ok(Done::Gone),
        Err(error) => return Ok(Done::Unreadable(error.to_string())),
    };
    let stat = fs::Stat::of_file(&source)?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        match to.make_dirs(parent, 0o755) {
            Ok(_) => {}
            // A file, or a link that could lead anywhere.
            Err(fs::Error::NotDirectory { .. } | fs::Error::Blocked { .. }) => return Ok(Done::InTheWay),
            Err(error) => return Err(error.into()),
        }
    }
    match to.stat(path) {
        Ok(there) if there.kind == Kind::File && there.size == stat.size => {
            if same(&mut source, &mut to.open_file(path)?, path)? {
                return Ok(Done::Same);
            }
            source.rewind().map_err(|e| Error::To { path: path.to_owned(), source: e })?;
            if !force {
                return Ok(Done::InTheWay);
            }
        }
        // A directory is never replaced by a file.
        Ok(there) if !force || there.kind == Kind::Directory => return Ok(Done::InTheWay),
        Ok(_) => {}
        Err(error) if error.is_missing() => {}
        Err(error) => return Err(error.into()),
    }
    let mut copied = 0;
    // A file that grows is copied as long as it was.
    let mut source = source.take(stat.size);
    to.replace_when_whole(path, stat.mode & MODES, |file| {
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = source.read(&mut buffer)?;
            if read == 0 {
                return file.sync_all();
            }
            if abandoned() {
                return Err(std::io::Error::other("nobody waits for it any more"));
            }
            file.write_all(&buffer[..read])?;
            copied += read as u64;
        }
    })?;
    Ok(Done::Copied(copied))
}

fn same(a: &mut File, b: &mut File, path: &Path) -> Result<bool, Error> {
    let failed = |source| Error::To { path: path.to_owned(), source };
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let read = a.read(&mut left).map_err(failed)?;
        if read == 0 {
            return Ok(true);
        }
        match b.read_exact(&mut right[..read]) {
            Ok(()) if left[..read] == right[..read] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct World {
        dir: tempfile::TempDir,
    }

    impl World {
        fn new(files: &[(&str, &str)]) -> Self {
            let world = Self { dir: tempfile::tempdir().unwrap() };
            std::fs::create_dir(world.tree()).unwrap();
            for (path, text) in files {
                let path = world.tree().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            world
        }

        fn tree(&self) -> PathBuf {
            self.dir.path().join("tree")
        }

        fn to(&self) -> PathBuf {
            self.dir.path().join("to/deep")
        }

        fn collect(&self, patterns: &[&str], force: bool) -> Result<CollectResult, Error> {
            let patterns = patterns.iter().map(|p| p.as_bytes().to_vec()).collect();
            collect(&self.tree(), &Request { patterns, to: self.to(), force }, &|| false, &|_| Ok(()))
        }

        fn names(&self, patterns: &[&str]) -> Vec<String> {
            self.collect(patterns, false).unwrap().files.iter().map(|file| file.path.to_text().into_owned()).collect()
        }
    }

    #[test]
    fn patterns_are_those_of_a_shell_and_a_directory_means_all_in_it() {
        let files: Vec<_> =
            ["a.whl", "dist/b.whl", "dist/sub/c.whl", "dist/d.txt", ".git/config"].map(|p| (p, p)).into();
        let names = |patterns: &[&str]| World::new(&files).names(patterns);
        assert_eq!(names(&["*.whl"]), ["a.whl"]);
        assert_eq!(names(&["**/*.whl"]), ["a.whl", "dist/b.whl", "dist/sub/c.whl"]);
        assert_eq!(names(&["dist/*.whl", "dist/d.txt"]), ["dist/b.whl", "dist/d.txt"]);
        assert_eq!(names(&["dist/"]), ["dist/b.whl", "dist/d.txt", "dist/sub/c.whl"]);
        assert_eq!(names(&["**"]), ["a.whl", "dist/b.whl", "dist/d.txt", "dist/sub/c.whl"], "git's own stays");
        let disguised = [("dist/.git", "gitdir: m"), ("dist/.GIT", "x"), ("dist/git~1", "x"), ("dist/a", "a")];
        assert_eq!(World::new(&disguised).names(&["dist"]), ["dist/a"]);
        let none = World::new(&files).collect(&["*.zip"], false).unwrap_err();
        assert_eq!(none.to_string(), "nothing in the work tree matches *.zip");
    }

    #[test]
    fn what_is_there_and_differs_stays_unless_forced() {
        let world = World::new(&[("a", "new"), ("b", "same"), ("c", "file")]);
        std::fs::create_dir_all(world.to().join("c")).unwrap();
        std::fs::write(world.to().join("a"), "old").unwrap();
        std::fs::write(world.to().join("b"), "same").unwrap();
        let first = world.collect(&["*"], false).unwrap();
        assert_eq!((first.total, first.same, first.in_the_way_total), (0, 1, 2));
        assert_eq!(std::fs::read_to_string(world.to().join("a")).unwrap(), "old");
        let forced = world.collect(&["*"], true).unwrap();
        assert_eq!((forced.total, forced.in_the_way.len()), (1, 1), "a directory is not replaced");
        assert_eq!(std::fs::read_to_string(world.to().join("a")).unwrap(), "new");
    }

    #[test]
    fn nothing_is_followed_in_and_nothing_written_through_a_link() {
        let world = World::new(&[("dist/a", "a"), ("linked/b", "b")]);
        let outside = world.dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "secret").unwrap();
        symlink(&outside, world.tree().join("way-out")).unwrap();
        symlink(outside.join("secret"), world.tree().join("dist/secret")).unwrap();
        nix::unistd::mkfifo(&world.tree().join("dist/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::create_dir_all(world.to()).unwrap();
        symlink(&outside, world.to().join("linked")).unwrap();
        let done = world.collect(&["dist", "way-out"], false).unwrap();
        assert_eq!((done.total, done.skipped_total), (1, 3), "{done:?}");
        assert!(!world.to().join("dist/secret").exists() && !world.to().join("way-out").exists());
        let through = world.collect(&["linked"], true);
        assert_eq!(through.unwrap().in_the_way_total, 1);
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn modes_come_along_without_set_id_and_no_temporary_is_left() {
        let world = World::new(&[("tool", "x")]);
        let mode = |path: PathBuf, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        mode(world.tree().join("tool"), 0o6755);
        world.collect(&["tool"], false).unwrap();
        let seen = std::fs::metadata(world.to().join("tool")).unwrap().permissions().mode();
        assert_eq!(seen & 0o7777, 0o755);
        // Given up in the middle of a file.
        std::fs::write(world.tree().join("tool"), vec![7; 3 * CHUNK]).unwrap();
        let other = world.dir.path().join("other");
        let asked = std::cell::Cell::new(0);
        let abandoned = collect(
            &world.tree(),
            &Request { patterns: vec![b"*".to_vec()], to: other.clone(), force: false },
            &|| asked.replace(asked.get() + 1) > 2,
            &|_| Ok(()),
        );
        assert!(abandoned.is_err() && asked.get() > 2, "{abandoned:?}");
        assert_eq!(std::fs::read_dir(other).unwrap().count(), 0);
    }

    #[test]
    fn what_the_host_may_run_is_named_and_what_lies_too_deep_stops_nothing() {
        let world = World::new(&[(".envrc", "x"), ("Makefile", "x"), ("a", "a")]);
        let deep: PathBuf = std::iter::repeat_n("d", DEEPEST + 5).collect();
        std::fs::create_dir_all(world.tree().join(&deep)).unwrap();
        std::fs::write(world.tree().join(&deep).join("x"), "x").unwrap();
        let done = world.collect(&["**"], false).unwrap();
        assert_eq!((done.total, done.flagged.len(), done.skipped_total), (3, 2, 1), "{done:?}");
    }
}
