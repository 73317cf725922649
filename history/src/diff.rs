//! What changed between two checkpoints, for a reader and for `git apply`.
//!
//! libgit2 compares the two trees inside the bare repository: no work tree, no index and no attributes of the guest take part.
//! Everything is bounded: a patch is cut between two files, so that what is there can be applied.

use git2::{Delta, DiffFindOptions, DiffOptions, Patch};

use crate::history::History;
use crate::{Error, Id, Result};

/// The most bytes of a patch.
pub const MAX_PATCH: usize = 2 << 20;
/// Files beyond this size are named, but their content is not in the patch.
const MAX_CONTENT: u64 = 8 << 20;
/// Renames are looked for among so many files.
const MAX_RENAMES: usize = 1000;

/// What [`History::diff`] answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// By path.
    pub files: Vec<FileChange>,
    /// A unified patch with binary parts, at most [`MAX_PATCH`] bytes, which `git apply` takes.
    pub patch: Vec<u8>,
    /// The patch does not have all files, since it would be too long.
    pub truncated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    pub path: Vec<u8>,
    /// Before a rename.
    pub old_path: Option<Vec<u8>>,
    /// `A`, `M`, `D`, `R` or `T` (type changed), as git writes them.
    pub status: char,
    /// Lines added and deleted; `None` for a binary or very large file.
    pub lines: Option<(u64, u64)>,
}

impl History {
    /// What changed from one checkpoint to another, below `paths` only if there are any.
    pub fn diff(&self, from: Id, to: Id, paths: &[Vec<u8>]) -> Result<Diff> {
        let repository = self.store.repository();
        let tree = |id: Id| -> Result<git2::Tree<'_>> {
            let tree = self.checkpoint_at(id)?.tree;
            repository.find_tree(tree.oid()).map_err(Error::git("read a checkpoint's tree"))
        };
        let (old, new) = (tree(from)?, tree(to)?);
        let mut options = DiffOptions::new();
        // A file that became a link is deleted and added in a patch; only the list of files calls it changed in type.
        options.include_typechange(false).show_binary(true).disable_pathspec_match(true).id_abbrev(40);
        // Whatever the user's configuration says: `git apply` wants these.
        options.old_prefix("a").new_prefix("b");
        options.max_size(i64::try_from(MAX_CONTENT).expect("a small constant"));
        for path in paths {
            options.pathspec(path.as_slice());
        }
        let compare = Error::git("compare two checkpoints");
        let mut diff = repository.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options)).map_err(compare)?;
        if diff.deltas().len() <= MAX_RENAMES {
            let mut find = DiffFindOptions::new();
            find.renames(true).rename_limit(MAX_RENAMES);
            diff.find_similar(Some(&mut find)).map_err(Error::git("look for renames"))?;
        }
        let mut answer = Diff::default();
        // What frees a path before what takes it, as `git apply` wants it where a file becomes a link.
        let mut order: Vec<usize> = (0..diff.deltas().len()).collect();
        order.sort_by_key(|&number| match diff.get_delta(number).map(|delta| delta.status()) {
            Some(Delta::Deleted) => 0,
            Some(Delta::Renamed) => 1,
            _ => 2,
        });
        for number in order {
            self.add(&diff, number, &mut answer)?;
        }
        answer.files.sort_by(|a, b| a.path.cmp(&b.path));
        answer.files.dedup_by(join_type_change);
        Ok(answer)
    }

    fn add(&self, diff: &git2::Diff<'_>, number: usize, answer: &mut Diff) -> Result<()> {
        let delta = diff.get_delta(number).expect("below the number of deltas");
        let path = |file: git2::DiffFile<'_>| file.path_bytes().unwrap_or_default().to_vec();
        let (old, new) = (path(delta.old_file()), path(delta.new_file()));
        let status = match delta.status() {
            Delta::Added => 'A',
            Delta::Deleted => 'D',
            Delta::Renamed => 'R',
            _ => 'M',
        };
        let mut file = FileChange { old_path: (status == 'R').then_some(old), path: new, status, lines: None };
        let size = |file: git2::DiffFile<'_>| self.size(file.id());
        if size(delta.old_file())?.max(size(delta.new_file())?) > MAX_CONTENT {
            answer.truncated = true;
            answer.files.push(file);
            return Ok(());
        }
        let patch = Patch::from_diff(diff, number).map_err(Error::git("make a patch"))?;
        if let Some(mut patch) = patch {
            if !patch.delta().flags().is_binary() {
                let (_, added, deleted) = patch.line_stats().map_err(Error::git("count lines"))?;
                file.lines = Some((added as u64, deleted as u64));
            }
            let room = MAX_PATCH - answer.patch.len();
            // Once a file was left out, the patch ends: what it holds is a beginning, not a selection.
            if answer.truncated || !print(&mut patch, room, &mut answer.patch)? {
                answer.truncated = true;
            }
        }
        answer.files.push(file);
        Ok(())
    }

    fn size(&self, id: git2::Oid) -> Result<u64> {
        if id.is_zero() {
            return Ok(0);
        }
        let odb = self.store.repository().odb().map_err(Error::git("open the history's objects"))?;
        odb.read_header(id).map(|(size, _)| size as u64).map_err(Error::git("look at an object"))
    }
}

/// Makes one change of the deletion and the addition of one path; says whether it did.
fn join_type_change(next: &mut FileChange, first: &mut FileChange) -> bool {
    let joins = next.path == first.path && matches!((first.status, next.status), ('D', 'A') | ('A', 'D'));
    if joins {
        first.status = 'T';
        first.lines = first.lines.zip(next.lines).map(|(a, b)| (a.0 + b.0, a.1 + b.1));
    }
    joins
}

/// Appends a patch if it fits; says whether it did.
fn print(patch: &mut Patch<'_>, room: usize, to: &mut Vec<u8>) -> Result<bool> {
    let text = patch.to_buf().map_err(Error::git("write a patch"))?;
    if text.len() > room {
        return Ok(false);
    }
    to.extend_from_slice(&text);
    Ok(true)
}
