//! Where a work tree came from: what publishing needs to know of the project as it was at the import.

use std::path::Path;

use crate::record::{self, Durability, Fields};
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"VCORIG02";
/// The one before did not say whether the checkout was sparse.
const OLDER: &[u8; 8] = b"VCORIG01";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The project's HEAD, if it had a commit.
    pub(crate) head: Option<String>,
    /// Paths that were there and were not copied: secrets, large files, submodules. The user's branch keeps its own entry for them.
    pub(crate) kept_out: Vec<Vec<u8>>,
    /// Tracked files were not there, since the checkout was sparse.
    pub(crate) sparse: bool,
}

impl Origin {
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut fields = Fields::default();
        fields.bytes(self.head.as_deref().unwrap_or_default().as_bytes());
        fields.number(self.kept_out.len() as u64);
        self.kept_out.iter().for_each(|path| fields.bytes(path));
        fields.number(u64::from(self.sparse));
        record::save(path, MAGIC, &fields, Durability::Synced)
    }

    /// `None` before the first import.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>> {
        let (content, older) = match record::load(path, MAGIC) {
            Ok(None) => return Ok(None),
            Ok(Some(content)) => (content, false),
            Err(error) => match record::load(path, OLDER) {
                Ok(Some(content)) => (content, true),
                _ => return Err(error),
            },
        };
        let damaged = || Error::damaged(format!("{} does not say where the work tree came from", path.display()));
        Self::parse(&content, older).map(Some).ok_or_else(damaged)
    }

    fn parse(content: &[u8], older: bool) -> Option<Self> {
        let mut reader = record::read(content);
        let head = String::from_utf8(reader.bytes()?.to_vec()).ok()?;
        let kept_out = (0..reader.number()?).map(|_| Some(reader.bytes()?.to_vec())).collect::<Option<_>>()?;
        let sparse = !older && reader.number()? != 0;
        Some(Self { head: Some(head).filter(|head| !head.is_empty()), kept_out, sparse })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_record_is_read_and_the_newer_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("origin");
        let mut fields = Fields::default();
        fields.bytes(b"0123");
        fields.number(1);
        fields.bytes(b".env");
        record::save(&path, OLDER, &fields, Durability::Synced).unwrap();
        let older = Origin::load(&path).unwrap().unwrap();
        assert_eq!(older, Origin { head: Some("0123".into()), kept_out: vec![b".env".to_vec()], sparse: false });
        let newer = Origin { sparse: true, ..older };
        newer.save(&path).unwrap();
        assert_eq!(Origin::load(&path).unwrap(), Some(newer));
    }
}
