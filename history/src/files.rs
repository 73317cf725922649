//! The files of one directory and how they were seen, in two pieces of memory: a piece for each name would take as much again, and
//! would lie between others when it is given back.

use crate::cache::Seen;

/// Pushed in any order, looked up when sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    names: Vec<u8>,
    items: Vec<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    /// Where its name lies.
    start: u32,
    length: u16,
    seen: Seen,
}

impl Files {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn reserve(&mut self, files: usize) {
        self.items.reserve_exact(files);
    }

    /// Names of a file system are short, and a walk holds no more of them than it may weigh.
    pub(crate) fn push(&mut self, name: &[u8], seen: Seen) {
        let start = u32::try_from(self.names.len()).expect("the names of a directory are bounded");
        let length = u16::try_from(name.len()).expect("a name is short");
        self.names.extend_from_slice(name);
        self.items.push(Item { start, length, seen });
    }

    pub(crate) fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        other.iter().for_each(|(name, seen)| self.push(name, *seen));
    }

    pub(crate) fn get(&self, at: usize) -> Option<(&[u8], &Seen)> {
        self.items.get(at).map(|item| (self.name(item), &item.seen))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Seen)> {
        self.items.iter().map(|item| (self.name(item), &item.seen))
    }

    pub(crate) fn seen_mut(&mut self) -> impl Iterator<Item = &mut Seen> {
        self.items.iter_mut().map(|item| &mut item.seen)
    }

    /// Where `name` is, in what is sorted.
    pub(crate) fn find(&self, name: &[u8]) -> Option<usize> {
        self.items.binary_search_by(|item| self.name(item).cmp(name)).ok()
    }

    pub(crate) fn sort(&mut self) {
        let names = &self.names;
        self.items.sort_unstable_by(|a, b| text(names, a).cmp(text(names, b)));
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&Seen) -> bool) {
        self.items.retain(|item| keep(&item.seen));
    }

    /// Gives back what is reserved beyond what is held.
    pub(crate) fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.items.shrink_to_fit();
    }

    fn name(&self, item: &Item) -> &[u8] {
        text(&self.names, item)
    }
}

fn text<'a>(names: &'a [u8], item: &Item) -> &'a [u8] {
    let start = item.start as usize;
    &names[start..start + usize::from(item.length)]
}
