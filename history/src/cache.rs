//! What each file's content was called when it was last read, so that an unchanged file is not read again.
//!
//! A file is unchanged if `statx` says the same as before ([`Key`]). Its `ctime` tells: the guest cannot set it, and whatever sets
//! another time, size or mode moves it on. Ways around that:
//!
//! - A change within the clock's grain of the last one leaves the times alone. What was that young when it was read is [`racy`] and
//!   is read again.
//! - A store into a mapped page that is dirty already changes no time at all. When a run has ended, what was read while the guest
//!   ran and had changed shortly before that is read again ([`suspect`]).
//!
//! A file may also be as `statx` remembers it and its content not, where the machine lost its power between the two: what was seen
//! before the machine was started is read again.
//!
//! The saved file is a hint: when it is missing or damaged, everything is read. A content that a cache names is in the store.

use std::collections::HashMap;
use std::path::Path;

use fs::{Stat, Time};

use crate::files::Files;
use crate::record::{self, Durability, Fields, Reader};
use crate::tree::{Entry, Mode};
use crate::{Id, Result, rules};

const MAGIC: &[u8; 8] = b"VCSCAN04";
/// Coarser than the clock that any kernel stamps files with.
const GRAIN_MS: i64 = 10;
/// How long before its reading a file's last change may lie for a mapped page to be still dirty. The kernel writes back after 30
/// seconds.
const DIRTY_MS: i64 = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    ino: u64,
    size: u64,
    changed_sec: i64,
    changed_nsec: u32,
    mode: u32,
}

impl Key {
    pub(crate) fn of(stat: &Stat) -> Self {
        let Time { sec, nsec } = stat.ctime;
        Self { ino: stat.ino, size: stat.size, changed_sec: sec, changed_nsec: nsec, mode: stat.mode }
    }

    pub(crate) fn mode(&self) -> Mode {
        if self.mode & 0o100 != 0 { Mode::Executable } else { Mode::File }
    }

    fn changed_ms(&self) -> i64 {
        self.changed_sec.saturating_mul(1000).saturating_add(i64::from(self.changed_nsec / 1_000_000))
    }
}

/// A file as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) key: Key,
    pub(crate) id: Id,
    /// Changed so shortly before the scan that a further change may not show.
    pub(crate) racy: bool,
    /// Whether a mapped write may pass unseen after it: it was read soon after its change, while something could write to it.
    pub(crate) suspect: bool,
}

/// Whether a mapped write may pass unseen after a file with this key was read at `read_ms`, while something could write to it.
pub(crate) fn suspect(key: &Key, read_ms: i64) -> bool {
    read_ms.saturating_sub(key.changed_ms()) < DIRTY_MS
}

/// Whether a file with this key, read by a scan that began at `start_ms`, could change again without a sign.
pub(crate) fn racy(key: &Key, start_ms: i64) -> bool {
    key.changed_ms() >= start_ms - GRAIN_MS
}

/// The tree of a directory, which stands for the files that the cache has of it and for these other entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) id: Id,
    /// In git's order.
    pub(crate) others: Vec<Entry>,
}

/// By directory: the files' names, sorted, and how they were seen.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Cache {
    directories: HashMap<Vec<u8>, Files>,
    /// Not saved: a tree is quickly made again.
    trees: HashMap<Vec<u8>, Tree>,
}

impl Cache {
    pub(crate) fn directory(&self, path: &[u8]) -> Option<&Files> {
        self.directories.get(path)
    }

    pub(crate) fn tree(&self, path: &[u8]) -> Option<&Tree> {
        self.trees.get(path)
    }

    pub(crate) fn set_trees(&mut self, trees: HashMap<Vec<u8>, Tree>) {
        self.trees = trees;
    }

    /// Sets what is known of a directory's files, which are sorted by name.
    pub(crate) fn put(&mut self, path: Vec<u8>, files: Files) {
        debug_assert!(files.iter().is_sorted_by(|a, b| a.0 < b.0));
        if files.is_empty() {
            self.directories.remove(&path);
        } else {
            self.directories.insert(path, files);
        }
    }

    /// Marks what is as young as `end_ms`; for files that we wrote ourselves and saw afterwards.
    pub(crate) fn mark_racy(&mut self, end_ms: i64) {
        for seen in self.directories.values_mut().flat_map(Files::seen_mut) {
            seen.racy = racy(&seen.key, end_ms);
        }
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut fields = Fields::default();
        fields.bytes(&boot());
        fields.bytes(rules::TEMPLATE);
        for (directory, files) in &self.directories {
            fields.bytes(directory);
            fields.number(files.len() as u64);
            for (name, seen) in files.iter() {
                fields.bytes(name);
                write(&mut fields, seen);
            }
        }
        record::save(path, MAGIC, &fields, Durability::Cache)
    }

    /// Whatever is wrong with the file, the answer is an empty cache; what the store does not hold is not in it.
    pub(crate) fn load(path: &Path, in_store: impl Fn(&Id) -> bool) -> Self {
        let mut cache = match record::load(path, MAGIC) {
            Ok(Some(content)) => Self::parse(&content, &boot()).unwrap_or_default(),
            Ok(None) | Err(_) => Self::default(),
        };
        for files in cache.directories.values_mut() {
            files.retain(|seen| in_store(&seen.id));
            // A search in it relies on the order.
            files.sort();
        }
        cache
    }

    fn parse(content: &[u8], boot: &[u8]) -> Option<Self> {
        let mut reader = record::read(content);
        if reader.bytes()? != boot {
            return None;
        }
        let mut cache = Self::default();
        // The files in it passed the rules of their time, of which this is the part that no import renews.
        if reader.bytes()? != rules::TEMPLATE {
            return None;
        }
        while !reader.is_at_end() {
            let directory = reader.bytes()?.to_vec();
            let mut files = Files::default();
            for _ in 0..reader.number()? {
                let name = reader.bytes()?;
                u16::try_from(name.len()).ok()?;
                files.push(name, read(&mut reader)?);
            }
            files.shrink();
            cache.directories.insert(directory, files);
        }
        Some(cache)
    }
}

/// Another one each time the machine is started; where that cannot be told, each time it is asked for.
fn boot() -> Vec<u8> {
    let pid_and_time = || format!("{} {:?}", std::process::id(), std::time::SystemTime::now()).into_bytes();
    std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_else(|_| pid_and_time())
}

fn write(fields: &mut Fields, seen: &Seen) {
    let Key { ino, size, changed_sec, changed_nsec, mode } = seen.key;
    for number in [ino, size, u64::from(mode)] {
        fields.number(number);
    }
    fields.signed(changed_sec);
    fields.number(u64::from(changed_nsec));
    fields.raw(seen.id.as_bytes());
    fields.number(u64::from(seen.racy) | u64::from(seen.suspect) << 1);
}

fn read(reader: &mut Reader<'_>) -> Option<Seen> {
    let (ino, size) = (reader.number()?, reader.number()?);
    let mode = u32::try_from(reader.number()?).ok()?;
    let (changed_sec, changed_nsec) = (reader.signed()?, u32::try_from(reader.number()?).ok()?);
    let id = Id::from_slice(reader.raw(20)?)?;
    let flags = reader.number()?;
    let key = Key { ino, size, changed_sec, changed_nsec, mode };
    Some(Seen { key, id, racy: flags & 1 != 0, suspect: flags & 2 != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(changed_ms: i64) -> Key {
        let nsec = u32::try_from(changed_ms % 1000).unwrap() * 1_000_000;
        Key { ino: 1 << 40, size: 3, changed_sec: changed_ms / 1000, changed_nsec: nsec, mode: 0o644 }
    }

    fn seen(changed_ms: i64, suspect: bool) -> Seen {
        Seen { key: key(changed_ms), id: Id::EMPTY_TREE, racy: true, suspect }
    }

    #[test]
    fn what_changed_shortly_before_a_scan_is_racy() {
        assert!(racy(&key(1_000_000), 1_000_005));
        assert!(racy(&key(1_000_000), 999_000));
        assert!(!racy(&key(1_000_000), 1_000_011));
    }

    #[test]
    fn what_was_read_soon_after_its_change_beside_a_running_guest_is_suspect() {
        assert!(suspect(&key(1_000_000), 1_030_000));
        assert!(!suspect(&key(1_000_000), 1_070_000));
    }

    #[test]
    fn a_cache_is_saved_and_a_damaged_one_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scan-cache");
        let mut cache = Cache::default();
        let files = |files: &[(&[u8], Seen)]| {
            let mut made = Files::default();
            files.iter().for_each(|(name, seen)| made.push(name, *seen));
            made
        };
        cache.put(Vec::new(), files(&[(b"a", seen(3, false)), (b"b\xff", seen(1, true))]));
        cache.put(b"dir/sub".to_vec(), files(&[(b"x", seen(5, false))]));
        cache.save(&path).unwrap();
        let load = |path: &Path| Cache::load(path, |_| true);
        assert_eq!(load(&path), cache);
        assert!(
            Cache::load(&path, |_| false).directory(b"").is_some_and(Files::is_empty),
            "what the store does not hold is read again"
        );
        let content = record::load(&path, MAGIC).unwrap().unwrap();
        assert_eq!(Cache::parse(&content, &boot()), Some(cache));
        assert_eq!(Cache::parse(&content, b"before the last start"), None);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(load(&path), Cache::default());
        assert_eq!(load(&dir.path().join("none")), Cache::default());
    }
}
