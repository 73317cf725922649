//! What each file's content was called when it was last read, so that an unchanged file is not read again.
//!
//! A file is unchanged if `statx` says the same as before ([`Key`]); the guest can set `mtime` but not `ctime`. Ways around that:
//!
//! - A change within the clock's grain of the last one leaves the times alone. What was that young when it was read is [`racy`] and
//!   is read again.
//! - A store into a mapped page that is dirty already changes no time at all. When a run has ended, what was read while the guest
//!   ran and had changed shortly before that is read again ([`Seen::suspect`]).
//!
//! A file may also be as `statx` remembers it and its content not, where the machine lost its power between the two: what was seen
//! before the machine was started is read again.
//!
//! The saved file is a hint: when it is missing or damaged, everything is read. A content that a cache names is in the store.

use std::collections::HashMap;
use std::path::Path;

use fs::{Stat, Time};

use crate::record::{self, Durability, Fields, Reader};
use crate::tree::{Entry, Mode};
use crate::{Id, Result, rules};

const MAGIC: &[u8; 8] = b"VCSCAN03";
/// Coarser than the clock that any kernel stamps files with.
const GRAIN_MS: i64 = 10;
/// How long before its reading a file's last change may lie for a mapped page to be still dirty. The kernel writes back after 30
/// seconds.
const DIRTY_MS: i64 = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    dev: u64,
    ino: u64,
    size: u64,
    mode: u32,
    mtime: Time,
    ctime: Time,
}

impl Key {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { dev: stat.dev, ino: stat.ino, size: stat.size, mode: stat.mode, mtime: stat.mtime, ctime: stat.ctime }
    }

    pub(crate) fn mode(&self) -> Mode {
        if self.mode & 0o100 != 0 { Mode::Executable } else { Mode::File }
    }

    fn changed_ms(&self) -> i64 {
        let latest = self.mtime.max(self.ctime);
        latest.sec.saturating_mul(1000).saturating_add(i64::from(latest.nsec / 1_000_000))
    }
}

/// A file as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) key: Key,
    pub(crate) id: Id,
    /// When, in milliseconds since 1970.
    pub(crate) read_ms: i64,
    /// Changed so shortly before the scan that a further change may not show.
    pub(crate) racy: bool,
    /// Read while nothing could write to it.
    pub(crate) settled: bool,
}

impl Seen {
    /// Whether a mapped write may have passed unseen since.
    pub(crate) fn suspect(&self) -> bool {
        !self.settled && self.read_ms.saturating_sub(self.key.changed_ms()) < DIRTY_MS
    }
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
    directories: HashMap<Vec<u8>, Vec<(Vec<u8>, Seen)>>,
    /// Not saved: a tree is quickly made again.
    trees: HashMap<Vec<u8>, Tree>,
}

impl Cache {
    pub(crate) fn directory(&self, path: &[u8]) -> &[(Vec<u8>, Seen)] {
        self.directories.get(path).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn tree(&self, path: &[u8]) -> Option<&Tree> {
        self.trees.get(path)
    }

    pub(crate) fn set_trees(&mut self, trees: HashMap<Vec<u8>, Tree>) {
        self.trees = trees;
    }

    /// Sets what is known of a directory's files, which are sorted by name.
    pub(crate) fn put(&mut self, path: &[u8], files: Vec<(Vec<u8>, Seen)>) {
        debug_assert!(files.is_sorted_by(|a, b| a.0 < b.0));
        if files.is_empty() {
            self.directories.remove(path);
        } else {
            self.directories.insert(path.to_vec(), files);
        }
    }

    /// Marks what is as young as `end_ms`; for files that we wrote ourselves and saw afterwards.
    pub(crate) fn mark_racy(&mut self, end_ms: i64) {
        for (_, seen) in self.directories.values_mut().flatten() {
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
            for (name, seen) in files {
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
            files.retain(|(_, seen)| in_store(&seen.id));
            // A search in it relies on the order.
            files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
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
            let files = (0..reader.number()?).map(|_| Some((reader.bytes()?.to_vec(), read(&mut reader)?)));
            let files = files.collect::<Option<Vec<_>>>()?;
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
    let Key { dev, ino, size, mode, mtime, ctime } = seen.key;
    for number in [dev, ino, size, u64::from(mode)] {
        fields.number(number);
    }
    for time in [mtime, ctime] {
        fields.signed(time.sec);
        fields.number(u64::from(time.nsec));
    }
    fields.raw(seen.id.as_bytes());
    fields.signed(seen.read_ms);
    fields.number(u64::from(seen.racy) | u64::from(seen.settled) << 1);
}

fn read(reader: &mut Reader<'_>) -> Option<Seen> {
    let (dev, ino, size) = (reader.number()?, reader.number()?, reader.number()?);
    let mode = u32::try_from(reader.number()?).ok()?;
    let mut time = || Some(Time { sec: reader.signed()?, nsec: u32::try_from(reader.number()?).ok()? });
    let (mtime, ctime) = (time()?, time()?);
    let id = Id::from_slice(reader.raw(20)?)?;
    let read_ms = reader.signed()?;
    let flags = reader.number()?;
    let key = Key { dev, ino, size, mode, mtime, ctime };
    Some(Seen { key, id, read_ms, racy: flags & 1 != 0, settled: flags & 2 != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(changed_ms: i64, read_ms: i64, settled: bool) -> Seen {
        let time = Time { sec: changed_ms / 1000, nsec: u32::try_from(changed_ms % 1000).unwrap() * 1_000_000 };
        let key = Key { dev: 1, ino: 1 << 40, size: 3, mode: 0o644, mtime: time, ctime: time };
        Seen { key, id: Id::EMPTY_TREE, read_ms, racy: true, settled }
    }

    #[test]
    fn what_changed_shortly_before_a_scan_is_racy() {
        assert!(racy(&seen(1_000_000, 0, false).key, 1_000_005));
        assert!(racy(&seen(1_000_000, 0, false).key, 999_000));
        assert!(!racy(&seen(1_000_000, 0, false).key, 1_000_011));
    }

    #[test]
    fn what_was_read_soon_after_its_change_beside_a_running_guest_is_suspect() {
        assert!(seen(1_000_000, 1_030_000, false).suspect());
        assert!(!seen(1_000_000, 1_030_000, true).suspect());
        assert!(!seen(1_000_000, 1_070_000, false).suspect());
    }

    #[test]
    fn a_cache_is_saved_and_a_damaged_one_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scan-cache");
        let mut cache = Cache::default();
        cache.put(b"", vec![(b"a".to_vec(), seen(3, 4, false)), (b"b\xff".to_vec(), seen(1, 2, true))]);
        cache.put(b"dir/sub", vec![(b"x".to_vec(), seen(5, -6, false))]);
        cache.save(&path).unwrap();
        let load = |path: &Path| Cache::load(path, |_| true);
        assert_eq!(load(&path), cache);
        assert!(Cache::load(&path, |_| false).directory(b"").is_empty(), "what the store does not hold is read again");
        let content = record::load(&path, MAGIC).unwrap().unwrap();
        assert_eq!(Cache::parse(&content, &boot()), Some(cache));
        assert_eq!(Cache::parse(&content, b"before the last start"), None);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(load(&path), Cache::default());
        assert_eq!(load(&dir.path().join("none")), Cache::default());
    }
}
