//! What a scan has to say of single paths, by class, bounded however many a guest makes.
//!
//! Whoever decides by it decides by the [`Class`]: names and reasons are for readers, and the names are a stranger's.

/// Why a path is not in a history, or not as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A directory that its tool makes again, known by its name.
    Cache,
    /// What the project's own rules ignore.
    ProjectIgnored,
    /// A key or the like, kept out when the project was copied in.
    Secret,
    /// Over the limit for one file.
    TooLarge,
    /// The inside of another repository, or a submodule.
    OtherRepository,
    /// A fifo, socket or device.
    Special,
    /// A name that no tree can hold.
    BadName,
    /// Moved out of the way by a rollback.
    MovedAside,
    /// A name that we make for a moment.
    Temporary,
    /// Lies too deep to be walked.
    TooDeep,
    /// A directory that would have been one name too many.
    TooMany,
    /// Could not be read now; it keeps the entry that it had.
    Unreadable,
    /// In the history, with a remark.
    Remark,
}

impl Class {
    pub const ALL: [Self; 13] = [
        Self::Cache,
        Self::ProjectIgnored,
        Self::Secret,
        Self::TooLarge,
        Self::OtherRepository,
        Self::Special,
        Self::BadName,
        Self::MovedAside,
        Self::Temporary,
        Self::TooDeep,
        Self::TooMany,
        Self::Unreadable,
        Self::Remark,
    ];

    /// Whether somebody's work may be in it that no checkpoint has: it was neither made to be thrown away nor kept out by the
    /// project's own word.
    #[must_use]
    pub fn is_work(self) -> bool {
        match self {
            Self::TooLarge
            | Self::OtherRepository
            | Self::Special
            | Self::BadName
            | Self::MovedAside
            | Self::TooDeep
            | Self::TooMany
            | Self::Unreadable => true,
            Self::Cache | Self::ProjectIgnored | Self::Secret | Self::Temporary | Self::Remark => false,
        }
    }

    /// Whether it is only told who asks for it: there is nothing to do about it.
    #[must_use]
    pub fn is_aside(self) -> bool {
        matches!(self, Self::Cache | Self::ProjectIgnored)
    }

    /// Whether it could not be looked at; the path keeps the entry that it had.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::TooDeep | Self::TooMany | Self::Unreadable)
    }
}

/// A path with a remark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    pub path: Vec<u8>,
    pub class: Class,
    pub why: String,
}

impl Note {
    pub(crate) fn new(path: Vec<u8>, class: Class, why: impl Into<String>) -> Self {
        Self { path, class, why: why.into() }
    }

    /// Path and reason, the name neutralised.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}: {}", crate::names::show(&self.path), self.why)
    }

    /// As a line for a reader.
    #[must_use]
    pub fn line(&self) -> String {
        let word = if self.class.is_failure() || self.class == Class::Remark { "" } else { "left out: " };
        format!("{word}{}", self.text())
    }
}

/// Paths with a remark each: of every class the first so many, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// In no particular order.
    list: Vec<Note>,
    /// In the order of [`Class::ALL`].
    counts: [Count; Class::ALL.len()],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    total: u64,
    listed: usize,
}

impl Notes {
    /// Counts it, and lists it unless its class has `limit` already.
    pub(crate) fn add(&mut self, note: Note, limit: usize) {
        let count = &mut self.counts[note.class as usize];
        count.total += 1;
        if count.listed < limit {
            count.listed += 1;
            self.list.push(note);
        }
    }

    /// Adds all of `other`, of which no more is listed than `limit` allows.
    pub(crate) fn merge(&mut self, other: Self, limit: usize) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            mine.total += theirs.total - theirs.listed as u64;
        }
        for note in other.list {
            self.add(note, limit);
        }
    }

    /// How many there were of a class, listed or not.
    #[must_use]
    pub fn count(&self, class: Class) -> u64 {
        self.counts[class as usize].total
    }

    /// How many there were that `wanted` picks, listed or not.
    #[must_use]
    pub fn total(&self, wanted: impl Fn(Class) -> bool) -> u64 {
        Class::ALL.into_iter().filter(|class| wanted(*class)).map(|class| self.count(class)).sum()
    }

    /// Those that are listed and that `wanted` picks, in the order of their paths.
    #[must_use]
    pub fn listed(&self, wanted: impl Fn(Class) -> bool) -> Vec<&Note> {
        let mut listed: Vec<&Note> = self.list.iter().filter(|note| wanted(note.class)).collect();
        listed.sort_unstable();
        listed
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total(|_| true) == 0
    }

    /// As lines for a reader, but for what is only told who asks.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let told = |class: Class| !class.is_aside();
        let listed = self.listed(told);
        let mut lines: Vec<String> = listed.iter().map(|note| note.line()).collect();
        let more = self.total(told).saturating_sub(lines.len() as u64);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines
    }
}

/// Paths of one kind, each with why: the first so many, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Path and why.
    pub list: Vec<(Vec<u8>, String)>,
    /// How many there were; the list is cut when this is larger than its length.
    pub total: u64,
}

impl Named {
    pub(crate) fn add(&mut self, path: Vec<u8>, why: String, limit: usize) {
        self.total += 1;
        if self.list.len() < limit {
            self.list.push((path, why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_counted_where_they_stand() {
        for (at, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, at, "{class:?}");
        }
    }

    #[test]
    fn many_of_one_class_hide_none_of_another_and_all_are_counted() {
        let mut notes = Notes::default();
        for number in 0..1000 {
            notes.add(Note::new(format!("s{number}").into_bytes(), Class::Special, "a fifo"), 10);
        }
        notes.add(Note::new(b"large".to_vec(), Class::TooLarge, "larger than 1 byte"), 10);
        let mut other = notes.clone();
        other.add(Note::new(b"node_modules".to_vec(), Class::Cache, ""), 10);
        assert_eq!(other.lines(), notes.lines(), "nobody has to do anything about a cache");
        let mut both = Notes::default();
        both.merge(notes.clone(), 10);
        both.merge(notes.clone(), 10);
        assert_eq!((both.count(Class::Special), both.listed(|_| true).len()), (2000, 12));
        assert_eq!((notes.count(Class::Special), notes.count(Class::TooLarge)), (1000, 1));
        assert_eq!(notes.total(Class::is_work), 1001);
        let lines = notes.lines();
        assert_eq!(lines.len(), 12, "{lines:?}");
        assert!(lines.contains(&"left out: large: larger than 1 byte".to_owned()), "{lines:?}");
        assert_eq!(lines.last().unwrap(), "and 990 more");
    }
}
