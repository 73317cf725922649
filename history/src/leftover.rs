//! What a rollback leaves: names that no checkpoint holds, and that came after the one that was gone back to.
//!
//! No checkpoint knows what of this was there at its time; the file system does: it keeps when each file was made, and nobody in a
//! guest can set that. A directory that is left out whole counts by its own time; what changed inside one that was there stays.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use fs::{Kind, Root};

use crate::notes::Note;
use crate::{Error, Result, names};

/// Paths that are named.
const NAMED: usize = 20;
/// Names that are counted inside of directories that are left out whole.
const COUNTED: u64 = 200_000;
/// Levels of them that are counted: each holds a descriptor.
const DEEPEST: usize = 32;

/// What is left, or was moved away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Files, links and directories by their own name; a directory that is left out whole is one.
    pub names: u64,
    /// With all that lies in those directories.
    pub files: u64,
    /// There may be more files than were counted.
    pub uncounted: bool,
    /// Some of the names.
    pub first: Vec<Vec<u8>>,
    /// Names that could not be moved away, with why.
    pub unmoved: Vec<(Vec<u8>, String)>,
}

#[derive(Default)]
struct Found {
    leftovers: Leftovers,
    /// Opened, and made, when there is something to move.
    into: Option<Root>,
}

/// Meets every name that a scan leaves out.
pub(crate) struct Sweep<'a> {
    /// Milliseconds since 1970: when the checkpoint was made that was gone back to.
    since_ms: i64,
    /// That checkpoint is the base, before which there was nothing.
    to_base: bool,
    /// Only below these; all if there are none.
    paths: &'a [Vec<u8>],
    /// Where to move them.
    into: Option<&'a Path>,
    found: Mutex<Found>,
}

impl<'a> Sweep<'a> {
    pub(crate) fn new(since_ms: i64, to_base: bool, paths: &'a [Vec<u8>]) -> Self {
        Self { since_ms, to_base, paths, into: None, found: Mutex::default() }
    }

    /// One that meets the same and moves it away.
    pub(crate) fn moving_into(&self, into: &'a Path) -> Self {
        Self { into: Some(into), ..Self::new(self.since_ms, self.to_base, self.paths) }
    }

    /// What was met since the last time that this was asked.
    pub(crate) fn take(&self) -> Leftovers {
        let mut found = std::mem::take(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner).leftovers);
        found.first.sort();
        found
    }

    /// Counts the name of `note`, which lies in `directory`, and moves it away where that is wanted; whether it is still there.
    pub(crate) fn meet(&self, directory: &Root, note: &Note) -> Result<bool> {
        let name = names::as_path(names::split(&note.path).1);
        if !self.wants(&note.path) {
            return Ok(true);
        }
        let Ok(stat) = directory.stat(name) else { return Ok(true) };
        let came_after = stat.born.map_or(self.to_base, |born| {
            born.sec.saturating_mul(1000).saturating_add(i64::from(born.nsec / 1_000_000)) >= self.since_ms
        });
        if !came_after {
            return Ok(true);
        }
        let inside = match stat.kind {
            Kind::Directory => count(directory, name),
            _ => (1, false),
        };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = match self.into {
            Some(into) => Some(move_into(found.open(into)?, directory, &note.path)),
            None => None,
        };
        let found = &mut found.leftovers;
        if let Some(Err(why)) = &moved {
            if found.unmoved.len() < NAMED {
                found.unmoved.push((note.path.clone(), why.to_string()));
            }
            return Ok(true);
        }
        found.names += 1;
        found.files += inside.0;
        found.uncounted |= inside.1;
        if found.first.len() < NAMED {
            found.first.push(note.path.clone());
        }
        Ok(moved.is_none())
    }

    fn wants(&self, path: &[u8]) -> bool {
        self.paths.is_empty()
            || self.paths.iter().any(|wanted| {
                let wanted = wanted.strip_suffix(b"/").unwrap_or(wanted);
                path.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
            })
    }
}

impl Found {
    fn open(&mut self, into: &Path) -> Result<&Root> {
        if self.into.is_none() {
            std::fs::create_dir_all(into).map_err(Error::io("make", into))?;
        }
        match &mut self.into {
            Some(into) => Ok(into),
            none => Ok(none.insert(Root::open(into)?)),
        }
    }
}

/// Moves `path`, whose last name lies in `directory`, to the same path below `into`.
fn move_into(into: &Root, directory: &Root, path: &[u8]) -> fs::Result<()> {
    let (above, name) = names::split(path);
    let to = into.make_dirs(names::as_path(above), 0o700)?;
    directory.move_to(names::as_path(name), &to, names::as_path(name))
}

/// How many files lie in a directory at any depth; true if there may be more.
fn count(parent: &Root, name: &Path) -> (u64, bool) {
    let (mut files, mut names, mut more) = (0, 0, false);
    let mut stack: Vec<(Root, usize)> = Vec::new();
    match parent.dir(name) {
        Ok(top) => stack.push((top, 0)),
        Err(_) => return (0, true),
    }
    while let Some((directory, depth)) = stack.pop() {
        let Ok(entries) = directory.entries() else {
            more = true;
            continue;
        };
        for entry in entries.map_while(std::result::Result::ok) {
            names += 1;
            if names > COUNTED {
                return (files, true);
            }
            match entry.kind {
                // Siblings wait on the stack with a descriptor each, so that is bounded as well.
                Kind::Directory if depth < DEEPEST && stack.len() < DEEPEST * DEEPEST / 4 => {
                    match directory.dir(Path::new(&entry.name)) {
                        Ok(inner) => stack.push((inner, depth + 1)),
                        Err(_) => more = true,
                    }
                }
                Kind::Directory => more = true,
                _ => files += 1,
            }
        }
    }
    (files, more)
}
