//! The work tree as it is now, as a tree object; what the store does not hold yet goes into the pack in the making.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fs::{Root, Stat};

use crate::assemble::{Assembled, assemble};
use crate::cache::{self, Cache, Key, Seen, Tree};
use crate::checkpoint::Activity;
use crate::files::Files;
use crate::leftover::Sweep;
use crate::notes::{Class, Note};
use crate::object::Kind;
use crate::pack::{Deflater, Writer};
use crate::rules::Rules;
use crate::store::Store;
use crate::walk::{Leaf, Place, Visitor, Walked, walk};
use crate::{Error, Id, Result};

/// How often a file that changes while it is read is read again.
const TRIES: usize = 3;
/// Paths with remarks that a scan keeps, of each class.
const NOTES: usize = 100;

/// What a scan goes by.
pub(crate) struct Basis<'a> {
    pub(crate) store: &'a Store,
    pub(crate) cache: &'a Cache,
    pub(crate) rules: &'a Rules,
    pub(crate) max_file: u64,
    /// The tree that answers for what cannot be read.
    pub(crate) reference: Id,
    pub(crate) activity: Activity,
    /// How much the walk may hold.
    pub(crate) most: u64,
    /// Told of every name that is left out.
    pub(crate) sweep: Option<&'a Sweep<'a>>,
}

pub(crate) struct Scanned {
    pub(crate) assembled: Assembled,
    pub(crate) walked: Walked,
    /// How many files had to be read.
    pub(crate) read: u64,
}

/// Scans `root`; new objects are in `writer`, which the caller finishes.
pub(crate) fn scan(root: &Root, basis: &Basis<'_>, writer: &Writer<'_>) -> Result<Scanned> {
    let visitor = Scan {
        cache: basis.cache,
        max_file: basis.max_file,
        activity: basis.activity,
        sweep: basis.sweep,
        writer,
        start_ms: now_ms(),
        read: AtomicU64::new(0),
    };
    let mut walked = walk(root, basis.rules, &visitor, NOTES, basis.most)?;
    let assembled = assemble(&mut walked, writer, basis.cache, |path| basis.store.lookup(basis.reference, path))?;
    Ok(Scanned { assembled, walked, read: visitor.read.into_inner() })
}

/// The stat cache as a walk leaves it that was assembled to these trees.
pub(crate) fn remember(walked: Walked, trees: HashMap<Vec<u8>, Tree>) -> Cache {
    let mut cache = Cache::default();
    cache.set_trees(trees);
    for (path, mut listing) in walked.listings {
        listing.files.shrink();
        cache.put(path, listing.files);
    }
    cache
}

pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

struct Scan<'a> {
    cache: &'a Cache,
    max_file: u64,
    activity: Activity,
    sweep: Option<&'a Sweep<'a>>,
    writer: &'a Writer<'a>,
    start_ms: i64,
    read: AtomicU64,
}

/// A worker's buffers.
pub(crate) struct Local {
    pub(crate) deflater: Deflater,
    pub(crate) content: Vec<u8>,
    /// Where in its directory's part of the cache the next file is likely found: names come sorted, as they are there.
    next: usize,
}

impl Local {
    pub(crate) fn new() -> Self {
        Self { deflater: Deflater::new(), content: Vec::new(), next: 0 }
    }
}

impl Visitor for Scan<'_> {
    type Local = Local;

    fn local(&self) -> Local {
        Local::new()
    }

    fn known(&self, path: &[u8]) -> Option<&Files> {
        self.cache.directory(path)
    }

    fn enter(&self, _path: &[u8], _directory: &Root) -> Result<()> {
        Ok(())
    }

    fn left_out(&self, directory: &Root, note: &Note) -> Result<bool> {
        self.sweep.map_or(Ok(true), |sweep| sweep.meet(directory, note))
    }

    fn file(&self, local: &mut Local, place: &Place<'_>, name: &OsString) -> Result<Leaf> {
        let stat = match place.directory.stat(Path::new(name)) {
            Ok(stat) => stat,
            Err(error) => return Ok(Leaf::Failed(error.to_string())),
        };
        if stat.kind != fs::Kind::File {
            return Ok(Leaf::Failed("changed into something else while it was read".to_owned()));
        }
        if stat.size > self.max_file {
            return Ok(Leaf::LeftOut(Class::TooLarge, too_large(self.max_file)));
        }
        if let Some(seen) = self.unchanged(&mut local.next, place.path, name.as_bytes(), &stat) {
            return Ok(Leaf::AsKnown(seen));
        }
        self.read.fetch_add(1, Ordering::Relaxed);
        let mut still = false;
        let mut last = stat;
        for _ in 0..TRIES {
            match read_once(place.directory, name, self.max_file, &mut local.content) {
                Ok((stat, unchanged)) => (last, still) = (stat, unchanged),
                Err(why) => return Ok(Leaf::Failed(why)),
            }
            if still {
                break;
            }
        }
        if local.content.len() as u64 > self.max_file {
            return Ok(Leaf::LeftOut(Class::TooLarge, too_large(self.max_file)));
        }
        let id = match self.writer.add(&mut local.deflater, Kind::Blob, &local.content) {
            Ok(id) => id,
            Err(error @ Error::Collision) => return Ok(Leaf::Failed(error.to_string())),
            Err(error) => return Err(error),
        };
        let key = Key::of(&last);
        let racy = !still || cache::racy(&key, self.start_ms);
        let suspect = self.activity != Activity::Still && cache::suspect(&key, now_ms());
        let seen = Seen { key, id, racy, suspect };
        Ok(Leaf::File(seen))
    }

    fn link(&self, local: &mut Local, place: &Place<'_>, name: &OsString) -> Result<Leaf> {
        match place.directory.read_link(Path::new(name)) {
            Ok(target) => {
                let id = self.writer.add(&mut local.deflater, Kind::Blob, target.as_bytes())?;
                Ok(Leaf::Link(id))
            }
            Err(error) => Ok(Leaf::Failed(error.to_string())),
        }
    }
}

impl Scan<'_> {
    /// What the cache says of a file, if that still holds.
    fn unchanged(&self, next: &mut usize, path: &[u8], name: &[u8], stat: &Stat) -> Option<Seen> {
        let files = self.cache.directory(path)?;
        let found = match files.get(*next) {
            Some((other, _)) if other == name => *next,
            _ => files.find(name)?,
        };
        *next = found + 1;
        let seen = *files.get(found)?.1;
        let holds = seen.key == Key::of(stat) && !seen.racy;
        (holds && !(self.activity != Activity::Running && seen.suspect)).then_some(seen)
    }
}

/// Reads a file whole; says how it stood afterwards and whether it stayed the same meanwhile.
pub(crate) fn read_once(
    directory: &Root,
    name: &OsString,
    max: u64,
    content: &mut Vec<u8>,
) -> std::result::Result<(Stat, bool), String> {
    content.clear();
    let mut file = directory.open_file(Path::new(name)).map_err(|error| error.to_string())?;
    let before = Stat::of_file(&file).map_err(|error| error.to_string())?;
    // One byte over the limit shows that it grew beyond it.
    let read = (&mut file)
        .take(max.saturating_add(1))
        .read_to_end(content)
        .map_err(|error| format!("cannot be read: {error}"))?;
    let after = Stat::of_file(&file).map_err(|error| error.to_string())?;
    Ok((after, Key::of(&before) == Key::of(&after) && read as u64 == after.size))
}

pub(crate) fn too_large(max: u64) -> String {
    format!("larger than {max} bytes")
}
