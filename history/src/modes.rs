//! What is known of the project from when it was copied in, beside what its first checkpoint holds: how much of a scan's memory it
//! takes, and the permission bits of its directories, which git's trees cannot hold. Those that differ from the usual are kept for a
//! rollback that makes the directory again.

use std::collections::BTreeMap;
use std::path::Path;

use crate::Result;
use crate::record::{self, Durability, Fields};

const MAGIC: &[u8; 8] = b"VCMODE01";
/// Of a directory of which nothing else is known.
pub(crate) const USUAL: u32 = 0o755;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modes {
    /// What the project weighed.
    weight: u64,
    /// By path, those that are not [`USUAL`].
    modes: BTreeMap<Vec<u8>, u32>,
}

impl Modes {
    /// What a directory of the project with these bits gets: never set-id or sticky, and its owner can always work in it.
    pub(crate) fn granted(mode: u32) -> u32 {
        (mode & 0o777) | 0o700
    }

    pub(crate) fn weigh(&mut self, weight: u64) {
        self.weight = weight;
    }

    /// What the work tree may weigh: so much, or twice what its project did.
    pub(crate) fn most(&self, anyway: u64) -> u64 {
        anyway.max(self.weight.saturating_mul(2))
    }

    pub(crate) fn add(&mut self, path: &[u8], mode: u32) {
        if mode != USUAL {
            self.modes.insert(path.to_vec(), mode);
        }
    }

    pub(crate) fn of(&self, path: &[u8]) -> u32 {
        self.modes.get(path).copied().unwrap_or(USUAL)
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut fields = Fields::default();
        fields.number(self.weight);
        for (path, mode) in &self.modes {
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
        let mut modes = Self { weight: reader.number()?, ..Self::default() };
        while !reader.is_at_end() {
            let path = reader.bytes()?.to_vec();
            modes.modes.insert(path, Self::granted(u32::try_from(reader.number()?).ok()?));
        }
        Some(modes)
    }
}
