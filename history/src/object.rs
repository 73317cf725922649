//! Objects as git stores them: a kind and bytes.

use sha1_checked::{CollisionResult, Digest, Sha1};

use crate::{Error, Id, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Commit,
    Tree,
    Blob,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
        }
    }

    /// Its number in a pack's entry header.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Commit => 1,
            Self::Tree => 2,
            Self::Blob => 3,
        }
    }

    pub(crate) fn git(self) -> git2::ObjectType {
        match self {
            Self::Commit => git2::ObjectType::Commit,
            Self::Tree => git2::ObjectType::Tree,
            Self::Blob => git2::ObjectType::Blob,
        }
    }
}

/// The name of an object. Content that was made to collide is refused: the store would keep only the first of two such files, and a
/// later rollback would be wrong. That detection costs about a tenth of a first scan, and the content is a stranger's.
pub(crate) fn id(kind: Kind, content: &[u8]) -> Result<Id> {
    let mut hasher = Sha1::new();
    hasher.update(format!("{} {}\0", kind.name(), content.len()));
    hasher.update(content);
    match hasher.try_finalize() {
        CollisionResult::Ok(hash) => Ok(Id::new(hash.into())),
        CollisionResult::Mitigated(_) | CollisionResult::Collision(_) => Err(Error::Collision),
    }
}

/// SHA-1 as a mere checksum over bytes of our own making (packs, indexes, records): no detection, several times faster.
pub(crate) fn checksum() -> Sha1 {
    Sha1::builder().detect_collision(false).build()
}

/// Ends a [`checksum`].
pub(crate) fn sum(hasher: Sha1) -> [u8; 20] {
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_gits() {
        assert_eq!(id(Kind::Tree, b"").unwrap(), Id::EMPTY_TREE);
        assert_eq!(id(Kind::Blob, b"hello\n").unwrap().to_string(), "ce013625030ba8dba906f756967f9e9ca394464a");
    }
}
