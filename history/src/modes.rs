//! The permission bits of the project's directories, which git's trees cannot hold: those that differ from the usual are kept beside
//! the history when the project is copied in, for a rollback that makes the directory again.

use std::collections::BTreeMap;
use std::path::Path;

use crate::Result;
use crate::record::{self, Durability, Fields};

const MAGIC: &[u8; 8] = b"VCMODE01";
/// Of a directory of which nothing else is known.
pub(crate) const USUAL: u32 = 0o755;

/// By path, those that are not [`USUAL`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modes(BTreeMap<Vec<u8>, u32>);

impl Modes {
    /// What a directory of the project with these bits gets: never set-id or sticky, and its owner can always work in it.
    pub(crate) fn granted(mode: u32) -> u32 {
        (mode & 0o777) | 0o700
    }

    pub(crate) fn add(&mut self, path: &[u8], mode: u32) {
        if mode != USUAL {
            self.0.insert(path.to_vec(), mode);
        }
    }

    pub(crate) fn of(&self, path: &[u8]) -> u32 {
        self.0.get(path).copied().unwrap_or(USUAL)
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut fields = Fields::default();
        for (path, mode) in &self.0 {
            fields.bytes(path);
            fields.number(u64::from(*mode));
        }
        record::save(path, MAGIC, &fields, Durability::Synced)
    }

    /// Without the file, or with one that cannot be read, directories have the usual bits.
    pub(crate) fn load(path: &Path) -> Self {
        record::load(path, MAGIC).ok().flatten().and_then(|content| Self::parse(&content)).unwrap_or_default()
    }

    fn parse(content: &[u8]) -> Option<Self> {
        let mut reader = record::read(content);
        let mut modes = Self::default();
        while !reader.is_at_end() {
            let path = reader.bytes()?.to_vec();
            modes.0.insert(path, Self::granted(u32::try_from(reader.number()?).ok()?));
        }
        Some(modes)
    }
}
