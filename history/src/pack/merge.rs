//! Many small packs made one.
//!
//! A lookup asks pack after pack, and with a thousand of them libgit2 is fifty times slower. Since entries are whole, merging is
//! copying their bytes.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Writer, index, list};
use crate::{Error, Result};

/// From this many packs on, the small ones are merged.
const MANY: usize = 32;
/// A pack of this size stays as it is: copying it again and again would cost more than looking into it.
const LARGE: u64 = 64 << 20;
/// The checksum at a pack's end.
const TRAILER: u64 = 20;

/// Merges the small packs of `directory` if there are many. The old ones go only after the new one is durable, so a kill in between
/// leaves objects twice, never none.
pub(crate) fn merge(directory: &Path) -> Result<bool> {
    let packs = list(directory)?;
    if packs.len() < MANY {
        return Ok(false);
    }
    let mut small: Vec<PathBuf> = Vec::new();
    for pack in packs {
        let file = pack.with_extension("pack");
        if std::fs::metadata(&file).map_err(Error::io("look at", &file))?.len() < LARGE {
            small.push(pack);
        }
    }
    if small.len() < 2 {
        return Ok(false);
    }
    let nothing = HashSet::new();
    let writer = Writer::new(directory, &nothing);
    let mut seen = HashSet::new();
    for pack in &small {
        copy(pack, &writer, &mut seen)?;
    }
    let merged = writer.finish()?.pack;
    // Packs are named by their content: where one held all that the others did, the merged one is that one.
    for pack in small.iter().filter(|pack| Some(*pack) != merged.as_ref()) {
        // The index first: without it the pack is one that a kill left.
        for extension in ["idx", "pack"] {
            let path = pack.with_extension(extension);
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(true)
}

fn copy(pack: &Path, writer: &Writer<'_>, seen: &mut HashSet<crate::Id>) -> Result<()> {
    let entries = index::entries(&pack.with_extension("idx"))?;
    let path = pack.with_extension("pack");
    let file = File::open(&path).map_err(Error::io("open", &path))?;
    let end = file.metadata().map_err(Error::io("look at", &path))?.len().saturating_sub(TRAILER);
    let mut buffer = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let next = entries.get(number + 1).map_or(end, |next| next.offset);
        let length = next.checked_sub(entry.offset).and_then(|length| usize::try_from(length).ok());
        let length = length.ok_or_else(|| Error::damaged(format!("{} does not fit its index", path.display())))?;
        if !seen.insert(entry.id) {
            continue;
        }
        buffer.resize(length, 0);
        file.read_exact_at(&mut buffer, entry.offset).map_err(Error::io("read", &path))?;
        let mut crc = flate2::Crc::new();
        crc.update(&buffer);
        if crc.sum() != entry.crc {
            return Err(Error::damaged(format!("{} does not fit its index", path.display())));
        }
        writer.append(entry.id, entry.crc, &buffer)?;
    }
    Ok(())
}
