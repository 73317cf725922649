//! The objects that the user's repository lacks, as one pack.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::graft::Made;
use crate::object::Kind;
use crate::pack::{self, Deflater, Writer};
use crate::store::Store;
use crate::tree::{self, Mode, Strict};
use crate::{Error, Id, Result};

/// Writes what is missing of these trees, and the commits. What the repository has is not looked into: it is whole.
pub(super) fn transfer(
    store: &Store,
    repository: &git2::Repository,
    made: &Made,
    trees: &[Id],
    commits: &[Vec<u8>],
) -> Result<()> {
    let packs = repository.commondir().join("objects/pack");
    std::fs::create_dir_all(&packs).map_err(Error::io("make", &packs))?;
    pack::sweep(&packs, false)?;
    let odb = repository.odb().map_err(Error::git("open the project's objects"))?;
    let has = |id: Id| odb.exists_ext(id.oid(), git2::OdbLookupFlags::NO_REFRESH);
    let nothing = HashSet::new();
    let writer = Writer::new(&packs, &nothing);
    let mut deflater = Deflater::new();
    let mut stack = trees.to_vec();
    let mut seen = HashSet::new();
    while let Some(id) = stack.pop() {
        if !seen.insert(id) || has(id) {
            continue;
        }
        let bytes = match made.get(&id) {
            Some(bytes) => bytes.clone(),
            // It is in no pack of a history, since git knows it unasked.
            None if id == Id::EMPTY_TREE => Vec::new(),
            None => store.read(Kind::Tree, id)?,
        };
        for entry in tree::read(id, &bytes, Strict::Project)? {
            match entry.mode {
                Mode::Directory => stack.push(entry.id),
                // A submodule's commit lies in another repository.
                Mode::Commit => {}
                Mode::File | Mode::Executable | Mode::Symlink => {
                    if seen.insert(entry.id) && !has(entry.id) {
                        writer.add(&mut deflater, Kind::Blob, &store.read(Kind::Blob, entry.id)?)?;
                    }
                }
            }
        }
        writer.add(&mut deflater, Kind::Tree, &bytes)?;
    }
    for commit in commits {
        writer.add(&mut deflater, Kind::Commit, commit)?;
    }
    if let Some(pack) = writer.finish()?.pack {
        for extension in ["pack", "idx"] {
            own(&pack.with_extension(extension), repository.commondir())?;
        }
        odb.refresh().map_err(Error::git("look at the new pack"))?;
    }
    Ok(())
}

/// Gives what root made in a repository to the repository's owner; anybody else makes only what is theirs.
pub(super) fn own(path: &Path, like: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(like).map_err(Error::io("look at", like))?;
    std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid())).map_err(Error::io("set the owner of", path))
}
