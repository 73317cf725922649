//! Tree objects: their bytes, and the validator they pass whenever they are written or read back.
//!
//! libgit2 writes and reads raw trees with `..`, slashes, duplicates and odd modes without a word, so this module is what stands
//! between a damaged or forged tree and a rollback that would write outside.

use std::cmp::Ordering;

use crate::{Error, Id, Result, names};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Mode {
    File,
    Executable,
    Symlink,
    Directory,
    /// Only in trees of the user's repository: a submodule's commit.
    Commit,
}

impl Mode {
    pub(crate) fn octal(self) -> &'static str {
        match self {
            Self::File => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
            Self::Directory => "40000",
            Self::Commit => "160000",
        }
    }

    /// Old repositories hold group-writable files and padded directories; a history never does.
    fn parse(octal: &[u8], strict: Strict) -> Option<Self> {
        match octal {
            b"100664" if strict == Strict::Project => return Some(Self::File),
            b"040000" if strict == Strict::Project => return Some(Self::Directory),
            _ => {}
        }
        [Self::File, Self::Executable, Self::Symlink, Self::Directory, Self::Commit]
            .into_iter()
            .find(|mode| mode.octal().as_bytes() == octal)
    }

    pub(crate) fn is_directory(self) -> bool {
        self == Self::Directory
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) mode: Mode,
    pub(crate) id: Id,
}

/// Which trees may hold submodules: those of the user's repository do, a history never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strict {
    History,
    Project,
}

/// An entry whose name is held elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct Item<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) mode: Mode,
    pub(crate) id: Id,
}

impl Entry {
    pub(crate) fn item(&self) -> Item<'_> {
        Item { name: &self.name, mode: self.mode, id: self.id }
    }
}

/// Git's order: by bytes, a directory as if its name ended in a slash.
pub(crate) fn order(a: &Entry, b: &Entry) -> Ordering {
    order_items(&a.item(), &b.item())
}

fn order_items(a: &Item<'_>, b: &Item<'_>) -> Ordering {
    let common = a.name.len().min(b.name.len());
    a.name[..common].cmp(&b.name[..common]).then_with(|| {
        let next = |entry: &Item<'_>| match entry.name.get(common) {
            Some(&byte) => byte,
            None if entry.mode.is_directory() => b'/',
            None => 0,
        };
        next(a).cmp(&next(b)).then(a.name.len().cmp(&b.name.len()))
    })
}

/// The bytes of a tree with these entries, which are brought into git's order.
pub(crate) fn write(entries: &mut [Entry], strict: Strict) -> std::result::Result<Vec<u8>, String> {
    entries.sort_unstable_by(order);
    write_items(entries.iter().map(Entry::item).collect(), strict)
}

/// The bytes of a tree with these entries, in whatever order they come.
pub(crate) fn write_items(mut entries: Vec<Item<'_>>, strict: Strict) -> std::result::Result<Vec<u8>, String> {
    entries.sort_unstable_by(order_items);
    let mut bytes = Vec::with_capacity(entries.iter().map(|entry| entry.name.len() + 28).sum());
    for entry in &entries {
        bytes.extend_from_slice(entry.mode.octal().as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(entry.name);
        bytes.push(0);
        bytes.extend_from_slice(entry.id.as_bytes());
    }
    check(&entries, strict)?;
    Ok(bytes)
}

/// Reads a tree back; `id` is only for the message.
pub(crate) fn read(id: Id, bytes: &[u8], strict: Strict) -> Result<Vec<Entry>> {
    let bad = |why: String| Error::BadTree { id, why };
    let entries = parse(bytes, strict).ok_or_else(|| bad("its bytes are no entries".to_owned()))?;
    check(&entries.iter().map(Entry::item).collect::<Vec<_>>(), strict).map_err(bad)?;
    Ok(entries)
}

fn parse(mut bytes: &[u8], strict: Strict) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(7).position(|&byte| byte == b' ')?;
        let mode = Mode::parse(&bytes[..space], strict)?;
        bytes = &bytes[space + 1..];
        let end = bytes.iter().position(|&byte| byte == 0)?;
        let name = bytes[..end].to_vec();
        let id = Id::from_slice(bytes.get(end + 1..end + 21)?)?;
        bytes = &bytes[end + 21..];
        entries.push(Entry { name, mode, id });
    }
    Some(entries)
}

fn check(entries: &[Item<'_>], strict: Strict) -> std::result::Result<(), String> {
    for entry in entries {
        if let Some(why) = names::refused(entry.name) {
            return Err(format!("{why}: {}", names::show(entry.name)));
        }
        if entry.mode == Mode::Commit && strict == Strict::History {
            return Err(format!("a submodule: {}", names::show(entry.name)));
        }
    }
    for pair in entries.windows(2) {
        if order_items(&pair[0], &pair[1]) != Ordering::Less {
            return Err(format!("out of order: {}", names::show(pair[1].name)));
        }
    }
    // A file and a directory of one name are apart in git's order, so neighbours do not show all duplicates.
    let mut sorted: Vec<&[u8]> = entries.iter().map(|entry| entry.name).collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("twice: {}", names::show(pair[0]))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &[u8], mode: Mode) -> Entry {
        Entry { name: name.to_vec(), mode, id: Id::EMPTY_TREE }
    }

    fn raw(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (mode, name) in entries {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(Id::EMPTY_TREE.as_bytes());
        }
        bytes
    }

    #[test]
    fn a_tree_that_could_lead_out_is_refused_when_read() {
        let bad: [&[(&str, &[u8])]; 14] = [
            &[("100644", b"..")],
            &[("100644", b".")],
            &[("100644", b"a/b")],
            &[("100644", b"")],
            &[("100644", b".git")],
            &[("40000", b".GIT")],
            &[("40000", b"git~1")],
            &[("100600", b"a")],
            &[("104755", b"a")],
            &[("040000", b"a")],
            &[("160000", b"sub")],
            &[("100644", b"b"), ("100644", b"a")],
            &[("100644", b"a"), ("100644", b"a")],
            &[("100644", b"a"), ("100644", b"a.b"), ("40000", b"a")],
        ];
        for entries in bad {
            assert!(
                matches!(read(Id::EMPTY_TREE, &raw(entries), Strict::History), Err(Error::BadTree { .. })),
                "{entries:?}"
            );
        }
        assert!(read(Id::EMPTY_TREE, &raw(&[("160000", b"sub")]), Strict::Project).is_ok());
    }

    #[test]
    fn torn_bytes_are_refused() {
        let whole = raw(&[("100644", b"name")]);
        for end in 1..whole.len() {
            assert!(read(Id::EMPTY_TREE, &whole[..end], Strict::History).is_err(), "{end}");
        }
    }

    #[test]
    fn a_directory_sorts_as_if_it_ended_in_a_slash() {
        let bytes = write(
            &mut [entry(b"a", Mode::Directory), entry(b"a.b", Mode::File), entry(b"a0", Mode::File)],
            Strict::History,
        );
        let names: Vec<_> =
            parse(&bytes.unwrap(), Strict::History).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, [b"a.b".to_vec(), b"a".to_vec(), b"a0".to_vec()]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_as_what_writes_them_again(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(entries) = read(Id::EMPTY_TREE, &bytes, Strict::History) {
                prop_assert_eq!(write(&mut entries.clone(), Strict::History).unwrap(), bytes);
            }
        }

        #[test]
        fn what_is_written_is_read_back(names in prop::collection::btree_set(prop::collection::vec(1u8..=255, 1..12), 0..20)) {
            let entries: Vec<_> = names.iter().enumerate()
                .map(|(number, name)| entry(name, if number % 2 == 0 { Mode::Directory } else { Mode::File })).collect();
            match write(&mut entries.clone(), Strict::History) {
                Ok(bytes) => {
                    let mut back = read(Id::EMPTY_TREE, &bytes, Strict::History).unwrap();
                    back.sort_by(|a, b| a.name.cmp(&b.name));
                    prop_assert_eq!(back, entries);
                }
                Err(_) => prop_assert!(names.iter().any(|name| names::refused(name).is_some())),
            }
        }
    }
}
