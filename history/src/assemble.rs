//! From what a walk found to the tree object that stands for it.
//!
//! Two things a walk cannot answer alone are asked of the tree before (`reference`):
//!
//! - What could not be read keeps the entry it had, so that going back to this checkpoint does not delete it.
//! - A directory in which only left-out things lie is in the tree if it was before. So both a tree with it and a tree without it can
//!   be reached by a rollback, which must not remove the left-out things and with them the directory.

use std::collections::HashMap;

use crate::object::Kind;
use crate::pack::{Deflater, Writer};
use crate::tree::{self, Entry, Mode, Strict};
use crate::walk::{Listing, Walked};
use crate::{Error, Id, Result, names};

pub(crate) struct Assembled {
    pub(crate) root: Id,
    /// The entries of trees that were not in the store before.
    pub(crate) new: HashMap<Id, Vec<Entry>>,
    /// Directories that are not in it, since only left-out things lie in them; what lies in a directory comes before it.
    pub(crate) hollow: Vec<Vec<u8>>,
}

pub(crate) fn assemble(
    walked: &Walked,
    writer: &Writer<'_>,
    reference: impl Fn(&[u8]) -> Result<Option<Entry>>,
) -> Result<Assembled> {
    let mut deflater = Deflater::new();
    let (mut new, mut hollow) = (HashMap::new(), Vec::new());
    let mut done: HashMap<&[u8], Option<Entry>> = HashMap::new();
    // Backwards: what lies in a directory has its path as a prefix, so it comes before it.
    for (path, listing) in walked.listings.iter().rev() {
        if path.is_empty() && listing.broken {
            return Err(Error::damaged("the work tree cannot be listed"));
        }
        let name = names::split(path).1.to_vec();
        let entry = if listing.broken {
            reference(path)?
        } else {
            match entries(path, listing, &mut done, &reference)? {
                Some(entries) => {
                    let id = write(entries, writer, &mut deflater, &mut new)?;
                    Some(Entry { name, mode: Mode::Directory, id })
                }
                None => {
                    hollow.push(path.clone());
                    None
                }
            }
        };
        done.insert(path, entry);
    }
    let root = done.remove(b"".as_slice()).flatten().map_or(Id::EMPTY_TREE, |entry| entry.id);
    Ok(Assembled { root, new, hollow })
}

/// The entries of one directory; `None` if it is not in the tree at all.
fn entries(
    path: &[u8],
    listing: &Listing,
    done: &mut HashMap<&[u8], Option<Entry>>,
    reference: &impl Fn(&[u8]) -> Result<Option<Entry>>,
) -> Result<Option<Vec<Entry>>> {
    let mut entries: Vec<Entry> = Vec::with_capacity(listing.held.len() + listing.directories.len());
    entries.extend(listing.held.iter().map(|held| Entry { name: held.name.clone(), mode: held.mode, id: held.id }));
    let mut holds_more = listing.holds_more;
    for name in &listing.directories {
        match done.remove(names::join(path, name).as_slice()).flatten() {
            Some(entry) => entries.push(entry),
            None => holds_more = true,
        }
    }
    for name in &listing.failed {
        match reference(&names::join(path, name))? {
            Some(entry) => entries.push(entry),
            None => holds_more = true,
        }
    }
    let hollow = entries.is_empty() && holds_more && !path.is_empty();
    if hollow && !reference(path)?.is_some_and(|entry| entry.mode.is_directory()) {
        return Ok(None);
    }
    Ok(Some(entries))
}

fn write(
    mut entries: Vec<Entry>,
    writer: &Writer<'_>,
    deflater: &mut Deflater,
    new: &mut HashMap<Id, Vec<Entry>>,
) -> Result<Id> {
    let bytes = tree::write(&mut entries, Strict::History)
        .map_err(|why| Error::damaged(format!("the scan made a tree that is none: {why}")))?;
    let id = crate::object::id(Kind::Tree, &bytes)?;
    if !writer.knows(&id) {
        writer.add(deflater, Kind::Tree, &bytes)?;
        new.insert(id, entries);
    }
    Ok(id)
}
