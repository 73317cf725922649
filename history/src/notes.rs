//! What a scan has to say of single paths, bounded however many a guest makes.

/// Paths with a remark each: the first so many, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Path and why, in no particular order.
    pub list: Vec<(Vec<u8>, String)>,
    /// How many there were; the list is cut when this is larger than its length.
    pub total: u64,
}

impl Notes {
    pub(crate) fn add(&mut self, path: Vec<u8>, why: String, limit: usize) {
        self.total += 1;
        if self.list.len() < limit {
            self.list.push((path, why));
        }
    }

    /// As lines for a reader, names neutralised.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.list.iter().map(|(path, why)| format!("{}: {why}", crate::names::show(path))).collect();
        lines.sort();
        let more = self.total.saturating_sub(self.list.len() as u64);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines
    }
}
