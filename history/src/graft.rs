//! A tree with some paths taken from another.

use std::collections::BTreeMap;

use crate::tree::{Entry, Mode, Strict, write};
use crate::{Error, Id, Result, names, object};

/// Trees that a graft made, by their id.
pub(crate) type Made = BTreeMap<Id, Vec<u8>>;

/// What stands at a path from now on; `None` removes it.
pub(crate) type Wanted = (Vec<u8>, Standing);
type Standing = Option<(Mode, Id)>;

/// The tree `onto` with each of the `wanted` paths set or removed. Directories that are needed on the way are made, replacing what
/// is no directory; those that lose their last entry go.
pub(crate) fn graft(
    read: &impl Fn(Id) -> Result<Vec<Entry>>,
    onto: Id,
    wanted: &[Wanted],
    strict: Strict,
    made: &mut Made,
) -> Result<Id> {
    let wanted: Vec<(&[u8], Standing)> = wanted.iter().map(|(path, entry)| (path.as_slice(), *entry)).collect();
    Ok(step(read, Some(onto), &wanted, strict, made)?.unwrap_or(Id::EMPTY_TREE))
}

/// One directory, with paths relative to it; `None` if nothing is left in it. As deep as the paths are, which are bounded.
fn step(
    read: &impl Fn(Id) -> Result<Vec<Entry>>,
    onto: Option<Id>,
    wanted: &[(&[u8], Standing)],
    strict: Strict,
    made: &mut Made,
) -> Result<Option<Id>> {
    let before = match onto {
        Some(id) => match made.get(&id) {
            Some(bytes) => crate::tree::read(id, bytes, strict)?,
            None => read(id)?,
        },
        None => Vec::new(),
    };
    let was_empty = before.is_empty();
    let mut entries: BTreeMap<Vec<u8>, Entry> = before.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
    let mut inner: BTreeMap<&[u8], Vec<(&[u8], Standing)>> = BTreeMap::new();
    for &(path, entry) in wanted {
        match path.iter().position(|&byte| byte == b'/') {
            Some(slash) => inner.entry(&path[..slash]).or_default().push((&path[slash + 1..], entry)),
            None => match entry {
                Some((mode, id)) => {
                    entries.insert(path.to_vec(), Entry { name: path.to_vec(), mode, id });
                }
                None => {
                    entries.remove(path);
                }
            },
        }
    }
    for (name, wanted) in inner {
        let below = entries.get(name).filter(|entry| entry.mode.is_directory()).map(|entry| entry.id);
        // A removal below what is no directory removes nothing.
        if below.is_none() && wanted.iter().all(|(_, entry)| entry.is_none()) {
            continue;
        }
        match step(read, below, &wanted, strict, made)? {
            Some(id) => {
                entries.insert(name.to_vec(), Entry { name: name.to_vec(), mode: Mode::Directory, id });
            }
            None => {
                entries.remove(name);
            }
        }
    }
    if entries.is_empty() && !was_empty {
        return Ok(None);
    }
    make(entries.into_values().collect(), strict, made).map(Some)
}

/// Makes one tree.
pub(crate) fn make(mut entries: Vec<Entry>, strict: Strict, made: &mut Made) -> Result<Id> {
    let bytes = write(&mut entries, strict).map_err(|why| Error::damaged(format!("a tree that is none: {why}")))?;
    let id = object::id(object::Kind::Tree, &bytes)?;
    made.insert(id, bytes);
    Ok(id)
}

/// The paths of `wanted` that name nothing and lead nowhere are refused by this.
pub(crate) fn is_plain(path: &[u8]) -> bool {
    !path.is_empty() && path.split(|&byte| byte == b'/').all(|name| names::refused(name).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_set_removed_and_made_way_for() {
        let mut made = Made::new();
        let nothing = |_| Ok(Vec::new());
        let blob = Id::new([7; 20]);
        let file = Some((Mode::File, blob));
        let set = |onto, wanted: &[(&str, Standing)], made: &mut Made| {
            let wanted: Vec<Wanted> = wanted.iter().map(|(path, entry)| (path.as_bytes().to_vec(), *entry)).collect();
            graft(&nothing, onto, &wanted, Strict::History, made).unwrap()
        };
        let one = set(Id::EMPTY_TREE, &[("a/b/c", file), ("x", file)], &mut made);
        let two = set(one, &[("a/b/c", None), ("x/y", file), ("no/such", None)], &mut made);
        let three = set(Id::EMPTY_TREE, &[("x/y", file)], &mut made);
        assert_eq!(two, three, "directories that lost their last entry are gone");
        assert_eq!(set(two, &[("x", None)], &mut made), Id::EMPTY_TREE);
    }
}
