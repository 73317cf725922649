//! Where a work tree came from: what publishing needs to know of the project as it was at the import.

use std::path::Path;

use crate::record::{self, Durability, Fields};
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"VCORIG01";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The project's HEAD, if it had a commit.
    pub(crate) head: Option<String>,
    /// Paths that were there and were not copied: secrets, large files, submodules. The user's branch keeps its own entry for them.
    pub(crate) kept_out: Vec<Vec<u8>>,
}

impl Origin {
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut fields = Fields::default();
        fields.bytes(self.head.as_deref().unwrap_or_default().as_bytes());
        fields.number(self.kept_out.len() as u64);
        self.kept_out.iter().for_each(|path| fields.bytes(path));
        record::save(path, MAGIC, &fields, Durability::Synced)
    }

    /// `None` before the first import.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>> {
        let Some(content) = record::load(path, MAGIC)? else {
            return Ok(None);
        };
        let damaged = || Error::damaged(format!("{} does not say where the work tree came from", path.display()));
        Self::parse(&content).map(Some).ok_or_else(damaged)
    }

    fn parse(content: &[u8]) -> Option<Self> {
        let mut reader = record::read(content);
        let head = String::from_utf8(reader.bytes()?.to_vec()).ok()?;
        let kept_out = (0..reader.number()?).map(|_| Some(reader.bytes()?.to_vec())).collect::<Option<_>>()?;
        Some(Self { head: Some(head).filter(|head| !head.is_empty()), kept_out })
    }
}
