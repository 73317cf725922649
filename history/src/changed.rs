//! The files in which one checkpoint differs from another, looked at one at a time and never beyond a bound.

use crate::compare::compare;
use crate::history::History;
use crate::object::Kind;
use crate::tree::Mode;
use crate::{Id, Result};

/// What stands at a path that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing any more.
    Gone,
    File(Vec<u8>),
    /// A file that is longer than what is read.
    TooLarge,
    /// A link, or another repository.
    Other,
}

impl History {
    /// Hands `look` what stands in `to` at each changed path that `wanted` picks, in the order of the paths. One content is held at a
    /// time, of at most `most` bytes; what is longer is not read, however little of it is on the disk.
    pub fn each_changed(
        &self,
        from: Id,
        to: Id,
        most: u64,
        wanted: &dyn Fn(&[u8]) -> bool,
        look: &mut dyn FnMut(&[u8], Standing),
    ) -> Result<()> {
        let tree = |id| self.checkpoint_at(id).map(|checkpoint| Some(checkpoint.tree));
        let changes = compare(|id| self.store.read_tree(id), tree(from)?, tree(to)?)?;
        for change in changes.iter().filter(|change| wanted(&change.path)) {
            let standing = match change.new {
                None | Some((Mode::Directory, _)) => match change.old {
                    None | Some((Mode::Directory, _)) => continue,
                    Some(_) => Standing::Gone,
                },
                Some((Mode::File | Mode::Executable, id)) if self.store.size(id)? > most => Standing::TooLarge,
                Some((Mode::File | Mode::Executable, id)) => Standing::File(self.store.read(Kind::Blob, id)?),
                Some((Mode::Symlink | Mode::Commit, _)) => Standing::Other,
            };
            look(&change.path, standing);
        }
        Ok(())
    }
}
