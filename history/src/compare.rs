//! What differs between two trees, found by going into those directories only whose ids differ.

use crate::tree::{Entry, Mode};
use crate::{Id, Result, names};

/// A path that differs. Directories appear where one of the trees has none there, so that empty ones count too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) path: Vec<u8>,
    pub(crate) old: Option<(Mode, Id)>,
    pub(crate) new: Option<(Mode, Id)>,
}

/// All changes from `old` to `new`; a directory comes before what lies in it. A tree that is not there is `None`.
pub(crate) fn compare(
    read: impl Fn(Id) -> Result<Vec<Entry>>,
    old: Option<Id>,
    new: Option<Id>,
) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    each(read, old, new, |change| changes.push(change))?;
    changes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// How many there are, as [`count`] counts them, of which none is kept.
pub(crate) fn tally(
    read: impl Fn(Id) -> Result<Vec<Entry>>,
    old: Option<Id>,
    new: Option<Id>,
) -> Result<(u64, u64, u64)> {
    let mut counts = (0, 0, 0);
    each(read, old, new, |change| {
        let (added, changed, deleted) = count(&[change]);
        counts = (counts.0 + added, counts.1 + changed, counts.2 + deleted);
    })?;
    Ok(counts)
}

fn each(
    read: impl Fn(Id) -> Result<Vec<Entry>>,
    old: Option<Id>,
    new: Option<Id>,
    mut met: impl FnMut(Change),
) -> Result<()> {
    let mut stack = vec![(Vec::new(), old, new)];
    while let Some((path, old, new)) = stack.pop() {
        if old == new {
            continue;
        }
        let list = |id: Option<Id>| -> Result<Vec<Entry>> {
            let mut entries = id.map_or_else(|| Ok(Vec::new()), &read)?;
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        };
        for (old, new) in pair(list(old)?, list(new)?) {
            let name = old.as_ref().or(new.as_ref()).map(|entry| entry.name.as_slice()).unwrap_or_default();
            let path = names::join(&path, name);
            let side = |entry: &Option<Entry>| entry.as_ref().map(|entry| (entry.mode, entry.id));
            let (old, new) = (side(&old), side(&new));
            if old == new {
                continue;
            }
            let directory = |side: Option<(Mode, Id)>| side.filter(|(mode, _)| mode.is_directory()).map(|(_, id)| id);
            let (old_directory, new_directory) = (directory(old), directory(new));
            if old_directory.is_some() || new_directory.is_some() {
                stack.push((path.clone(), old_directory, new_directory));
            }
            if old_directory.is_none() || new_directory.is_none() {
                met(Change { path, old, new });
            }
        }
    }
    Ok(())
}

/// Entries of both lists side by side, by name.
fn pair(old: Vec<Entry>, new: Vec<Entry>) -> impl Iterator<Item = (Option<Entry>, Option<Entry>)> {
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    std::iter::from_fn(move || match (old.peek(), new.peek()) {
        (None, None) => None,
        (Some(a), Some(b)) if a.name == b.name => Some((old.next(), new.next())),
        (Some(a), Some(b)) if a.name > b.name => Some((None, new.next())),
        (Some(_), _) => Some((old.next(), None)),
        (None, Some(_)) => Some((None, new.next())),
    })
}

/// Files added, changed and deleted; a directory counts where nothing lies in it.
pub(crate) fn count(changes: &[Change]) -> (u64, u64, u64) {
    let mut counts = (0, 0, 0);
    for change in changes {
        let file = |side: Option<(Mode, Id)>| side.filter(|&(mode, id)| !mode.is_directory() || id == Id::EMPTY_TREE);
        match (file(change.old), file(change.new)) {
            (None, Some(_)) => counts.0 += 1,
            (Some(_), Some(_)) => counts.1 += 1,
            (Some(_), None) => counts.2 += 1,
            (None, None) => {}
        }
    }
    counts
}
