//! From what a walk found to the tree object that stands for it.
//!
//! Two things a walk cannot answer alone are asked of the tree before (`reference`):
//!
//! - What could not be read keeps the entry it had, so that going back to this checkpoint does not delete it.
//! - A directory in which only left-out things lie is in the tree if it was before. So both a tree with it and a tree without it can
//!   be reached by a rollback, which must not remove the left-out things and with them the directory.

use std::collections::HashMap;

use crate::cache::{Cache, Tree};
use crate::files::Files;
use crate::object::Kind;
use crate::pack::{Deflater, Writer};
use crate::store::Store;
use crate::tree::{self, Entry, Item, Mode, Strict};
use crate::walk::{Listing, Walked};
use crate::{Error, Id, Result, names};

pub(crate) struct Assembled {
    pub(crate) root: Id,
    /// The bytes of trees that were not in the store before: a third of what their entries take.
    pub(crate) new: HashMap<Id, Vec<u8>>,
    /// Of every directory that is in it, for the next time.
    pub(crate) trees: HashMap<Vec<u8>, Tree>,
    /// Directories that are not in it, since only left-out things lie in them; what lies in a directory comes before it.
    pub(crate) hollow: Vec<Vec<u8>>,
}

impl Assembled {
    /// The entries of one of its trees, or of one that `store` has.
    pub(crate) fn entries(&self, store: &Store, id: Id) -> Result<Vec<Entry>> {
        match self.new.get(&id) {
            Some(bytes) => tree::read(id, bytes, Strict::History),
            None => store.read_tree(id),
        }
    }
}

/// `cache` saves making the tree of a directory in which nothing changed.
pub(crate) fn assemble(
    walked: &mut Walked,
    writer: &Writer<'_>,
    cache: &Cache,
    reference: impl Fn(&[u8]) -> Result<Option<Entry>>,
) -> Result<Assembled> {
    let mut deflater = Deflater::new();
    let mut assembled =
        Assembled { root: Id::EMPTY_TREE, new: HashMap::new(), trees: HashMap::new(), hollow: Vec::new() };
    let mut done: HashMap<&[u8], Option<Entry>> = HashMap::new();
    // Backwards: what lies in a directory has its path as a prefix, so it comes before it.
    for (path, listing) in walked.listings.iter_mut().rev() {
        if path.is_empty() && listing.broken {
            return Err(Error::damaged("the work tree cannot be listed"));
        }
        if listing.batches > 1 {
            listing.files.sort();
        }
        let name = names::split(path).1.to_vec();
        let entry = if listing.broken {
            reference(path)?
        } else if let Some(others) = others(path, listing, &mut done, &reference)? {
            let id = match cache.tree(path) {
                Some(tree) if tree.others == others && same(cache.directory(path), listing) => tree.id,
                _ => {
                    let mut items = Vec::with_capacity(listing.files.len() + others.len());
                    items.extend(files(listing));
                    items.extend(others.iter().map(Entry::item));
                    write(items, writer, &mut deflater, &mut assembled.new)?
                }
            };
            assembled.trees.insert(path.clone(), Tree { id, others });
            Some(Entry { name, mode: Mode::Directory, id })
        } else {
            assembled.hollow.push(path.clone());
            None
        };
        done.insert(path, entry);
    }
    if let Some(root) = done.remove(b"".as_slice()).flatten() {
        assembled.root = root.id;
    }
    Ok(assembled)
}

fn files(listing: &Listing) -> impl Iterator<Item = Item<'_>> {
    listing.files.iter().map(|(name, seen)| Item { name, mode: seen.key.mode(), id: seen.id })
}

/// Whether the files are those that the cache has.
fn same(known: Option<&Files>, listing: &Listing) -> bool {
    listing.as_known == listing.files.len() && listing.files.len() == known.map_or(0, Files::len)
}

/// The entries of one directory that are no files, in git's order; `None` if it is not in the tree at all.
fn others(
    path: &[u8],
    listing: &Listing,
    done: &mut HashMap<&[u8], Option<Entry>>,
    reference: &impl Fn(&[u8]) -> Result<Option<Entry>>,
) -> Result<Option<Vec<Entry>>> {
    let links = listing.links.iter();
    let mut others: Vec<Entry> =
        links.map(|(name, id)| Entry { name: name.clone(), mode: Mode::Symlink, id: *id }).collect();
    let mut holds_more = listing.holds_more;
    for name in &listing.directories {
        match done.remove(names::join(path, name).as_slice()).flatten() {
            Some(entry) => others.push(entry),
            None => holds_more = true,
        }
    }
    for name in &listing.failed {
        match reference(&names::join(path, name))? {
            Some(entry) => others.push(entry),
            None => holds_more = true,
        }
    }
    let empty = others.is_empty() && listing.files.is_empty();
    let hollow = empty && holds_more && !path.is_empty();
    if hollow && !reference(path)?.is_some_and(|entry| entry.mode.is_directory()) {
        return Ok(None);
    }
    others.sort_unstable_by(tree::order);
    Ok(Some(others))
}

fn write(
    items: Vec<Item<'_>>,
    writer: &Writer<'_>,
    deflater: &mut Deflater,
    new: &mut HashMap<Id, Vec<u8>>,
) -> Result<Id> {
    let bytes = tree::write_items(items, Strict::History)
        .map_err(|why| Error::damaged(format!("the scan made a tree that is none: {why}")))?;
    let id = crate::object::id(Kind::Tree, &bytes)?;
    if !writer.knows(&id) {
        writer.add(deflater, Kind::Tree, &bytes)?;
        new.insert(id, bytes);
    }
    Ok(id)
}
