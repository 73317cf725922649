//! A pack's index, version 2 (git's Documentation/gitformat-pack).

use std::path::Path;

use sha1_checked::Digest;

use crate::{Error, Id, Result, object};

const MAGIC: [u8; 8] = *b"\xfftOc\0\0\0\x02";
const FAN: usize = 256 * 4;
/// Offsets from here on are in the table of long ones.
const LONG: u64 = 1 << 31;

#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) id: Id,
    pub(super) crc: u32,
    pub(super) offset: u64,
}

/// The index of a pack whose checksum is `pack`; sorts `entries`.
pub(super) fn write(entries: &mut [Entry], pack: &[u8; 20]) -> Vec<u8> {
    entries.sort_unstable_by_key(|entry| entry.id);
    let mut bytes = Vec::with_capacity(MAGIC.len() + FAN + entries.len() * 28 + 40);
    bytes.extend_from_slice(&MAGIC);
    let mut below = 0;
    for first in 0..=255u8 {
        below += entries[below..].iter().take_while(|entry| entry.id.as_bytes()[0] == first).count();
        bytes.extend_from_slice(&u32::try_from(below).expect("a pack's count is 32 bits").to_be_bytes());
    }
    entries.iter().for_each(|entry| bytes.extend_from_slice(entry.id.as_bytes()));
    entries.iter().for_each(|entry| bytes.extend_from_slice(&entry.crc.to_be_bytes()));
    let mut long = Vec::new();
    for entry in &*entries {
        let short = match u32::try_from(entry.offset) {
            Ok(offset) if entry.offset < LONG => offset,
            _ => {
                long.push(entry.offset);
                0x8000_0000 | (u32::try_from(long.len() - 1).expect("fewer than the entries"))
            }
        };
        bytes.extend_from_slice(&short.to_be_bytes());
    }
    long.iter().for_each(|offset| bytes.extend_from_slice(&offset.to_be_bytes()));
    bytes.extend_from_slice(pack);
    let mut hasher = object::checksum();
    hasher.update(&bytes);
    bytes.extend_from_slice(&object::sum(hasher));
    bytes
}

/// The ids in an index file.
pub(crate) fn ids(path: &Path) -> Result<Vec<Id>> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let count = count(&bytes).ok_or_else(|| damaged(path))?;
    let ids = bytes.get(MAGIC.len() + FAN..MAGIC.len() + FAN + count * 20).ok_or_else(|| damaged(path))?;
    Ok(ids.chunks_exact(20).filter_map(Id::from_slice).collect())
}

/// All entries of an index file, by offset.
pub(super) fn entries(path: &Path) -> Result<Vec<Entry>> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let mut entries = parse(&bytes).ok_or_else(|| damaged(path))?;
    entries.sort_unstable_by_key(|entry| entry.offset);
    Ok(entries)
}

fn damaged(path: &Path) -> Error {
    Error::damaged(format!("{} is not a pack's index", path.display()))
}

fn count(bytes: &[u8]) -> Option<usize> {
    if !bytes.starts_with(&MAGIC) {
        return None;
    }
    usize::try_from(word(bytes, MAGIC.len() + FAN - 4)?).ok()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn parse(bytes: &[u8]) -> Option<Vec<Entry>> {
    let count = count(bytes)?;
    let ids = MAGIC.len() + FAN;
    let crcs = ids + count * 20;
    let offsets = crcs + count * 4;
    let long = offsets + count * 4;
    (0..count)
        .map(|number| {
            let id = Id::from_slice(bytes.get(ids + number * 20..ids + number * 20 + 20)?)?;
            let crc = word(bytes, crcs + number * 4)?;
            let short = word(bytes, offsets + number * 4)?;
            let offset = if short & 0x8000_0000 == 0 {
                u64::from(short)
            } else {
                let at = long + usize::try_from(short & 0x7fff_ffff).ok()? * 8;
                u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?)
            };
            Some(Entry { id, crc, offset })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_offsets_are_kept() {
        let mut entries: Vec<_> = [5u64, LONG - 1, LONG, LONG + 7, 1 << 40]
            .into_iter()
            .enumerate()
            .map(|(number, offset)| Entry { id: Id::new([number as u8 * 60; 20]), crc: 7, offset })
            .collect();
        let bytes = write(&mut entries, &[0; 20]);
        let read: Vec<_> = parse(&bytes).unwrap().iter().map(|entry| (entry.id, entry.offset)).collect();
        assert_eq!(read, entries.iter().map(|entry| (entry.id, entry.offset)).collect::<Vec<_>>());
    }
}
