//! The branch: whether it may be moved, and moving it.

use std::path::Path;

use crate::record::{self, Durability, Fields};
use crate::{Error, Id, Result};

use super::TRAILER;
use super::objects::own;

const MAGIC: &[u8; 8] = b"VCPUBL01";

/// Where our publishing left each branch, or was about to leave it when it was killed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places(Vec<(String, Vec<Id>)>);

impl Places {
    pub(super) fn load(path: &Path) -> Result<Self> {
        let Some(content) = record::load(path, MAGIC)? else {
            return Ok(Self::default());
        };
        Self::parse(&content)
            .ok_or_else(|| Error::damaged(format!("{} does not say what was published", path.display())))
    }

    fn parse(content: &[u8]) -> Option<Self> {
        let mut reader = record::read(content);
        let mut places = Vec::new();
        while !reader.is_at_end() {
            let branch = String::from_utf8(reader.bytes()?.to_vec()).ok()?;
            let ids = (0..reader.number()?).map(|_| Id::from_slice(reader.raw(20)?)).collect::<Option<_>>()?;
            places.push((branch, ids));
        }
        Some(Self(places))
    }

    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let mut fields = Fields::default();
        for (branch, ids) in &self.0 {
            fields.bytes(branch.as_bytes());
            fields.number(ids.len() as u64);
            ids.iter().for_each(|id| fields.raw(id.as_bytes()));
        }
        record::save(path, MAGIC, &fields, Durability::Synced)
    }

    fn of(&self, branch: &str) -> &[Id] {
        self.0.iter().find(|(name, _)| name == branch).map_or(&[], |(_, ids)| ids.as_slice())
    }

    pub(super) fn add(&mut self, branch: &str, id: Id) {
        match self.0.iter_mut().find(|(name, _)| name == branch) {
            Some((_, ids)) => ids.push(id),
            None => self.0.push((branch.to_owned(), vec![id])),
        }
    }

    /// The branch is there now: older places are forgotten.
    pub(super) fn settle(&mut self, branch: &str, id: Id) {
        if let Some((_, ids)) = self.0.iter_mut().find(|(name, _)| name == branch) {
            *ids = vec![id];
        }
    }
}

/// A branch that may be made or moved.
pub(super) struct Target {
    branch: String,
    /// Where it stands now.
    now: Option<Id>,
    /// Our last publishing left it there, and HEAD has it since.
    taken_in: bool,
}

impl Target {
    /// Refuses a branch that somebody else made or moved, and one that is checked out. An earlier workspace's is taken over once
    /// HEAD has all of it.
    pub(super) fn find(repository: &git2::Repository, branch: &str, places: &Places) -> Result<Self> {
        let name = full(branch);
        let valid = !branch.starts_with('-') && branch != "HEAD" && git2::Reference::is_valid_name(&name);
        if !valid {
            return Err(Error::BadBranch { name: branch.to_owned() });
        }
        if checked_out(repository, &name)? {
            return Err(Error::BranchCheckedOut { branch: branch.to_owned() });
        }
        let (now, taken_in) = match repository.find_reference(&name) {
            Ok(reference) => {
                let exists = || Error::BranchExists { branch: branch.to_owned(), free: free(repository, branch) };
                let now = reference.target().map(Id::of).ok_or_else(exists)?;
                let (ours, in_head) = (places.of(branch).contains(&now), is_in_head(repository, now));
                let lost = || !in_head && !is_content_in_head(repository, now);
                if !ours && (!is_published(repository, now) || lost()) {
                    return Err(exists());
                }
                (Some(now), ours && in_head)
            }
            Err(error) if error.code() == git2::ErrorCode::NotFound => (None, false),
            Err(source) => return Err(Error::Git { doing: "look at the branch", source }),
        };
        Ok(Self { branch: branch.to_owned(), now, taken_in })
    }

    /// The commit that was published last, if the user has taken it in: what comes next grows from there, or merging it would meet
    /// the same changes as somebody else's.
    pub(super) fn taken_in(&self) -> Option<Id> {
        self.now.filter(|_| self.taken_in)
    }

    /// Makes or moves it, if it is still where it was found.
    pub(super) fn move_to(&self, repository: &git2::Repository, new: Id) -> Result<()> {
        let name = full(&self.branch);
        let log = "vcoding: apply";
        let moved = match self.now {
            Some(now) if now == new => return Ok(()),
            Some(now) => repository.reference_matching(&name, new.oid(), true, now.oid(), log),
            None => repository.reference(&name, new.oid(), false, log),
        };
        moved.map_err(|source| match source.code() {
            git2::ErrorCode::Modified | git2::ErrorCode::Exists => {
                Error::BranchExists { branch: self.branch.clone(), free: free(repository, &self.branch) }
            }
            _ => Error::Git { doing: "move the branch", source },
        })?;
        self.give_away(repository)
    }

    /// Files and directories that were made for the reference and its log.
    fn give_away(&self, repository: &git2::Repository) -> Result<()> {
        let common = repository.commondir();
        for top in ["refs/heads", "logs/refs/heads"] {
            let mut path = common.join(top);
            for component in self.branch.split('/') {
                path.push(component);
                if path.symlink_metadata().is_ok() {
                    own(&path, common)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a publishing made the commit, perhaps one of a workspace that is no more.
fn is_published(repository: &git2::Repository, id: Id) -> bool {
    repository.find_commit(id.oid()).is_ok_and(|commit| {
        let message = commit.message_bytes();
        message.windows(TRAILER.len()).any(|part| part == TRAILER.as_bytes())
    })
}

/// Whether nothing is lost when the branch moves away from there.
fn is_in_head(repository: &git2::Repository, id: Id) -> bool {
    let head = repository.head().ok().and_then(|head| head.target());
    head.is_some_and(|head| head == id.oid() || repository.graph_descendant_of(head, id.oid()).unwrap_or(false))
}

/// Whether HEAD has all that was changed there, although by other commits: a squash, a rebase, a cherry-pick.
fn is_content_in_head(repository: &git2::Repository, id: Id) -> bool {
    let compared = || -> std::result::Result<bool, git2::Error> {
        let head = repository.head()?.peel_to_commit()?;
        let before = repository.find_commit(repository.merge_base(head.id(), id.oid())?)?.tree()?;
        let (branch, head) = (repository.find_commit(id.oid())?.tree()?, head.tree()?);
        let mut options = git2::DiffOptions::new();
        options.include_typechange(true).skip_binary_check(true);
        let changes = repository.diff_tree_to_tree(Some(&before), Some(&branch), Some(&mut options))?;
        Ok(changes.deltas().all(|delta| {
            let path = delta.new_file().path().or_else(|| delta.old_file().path());
            let at = |tree: &git2::Tree<'_>| {
                let entry = path.and_then(|path| tree.get_path(path).ok());
                entry.map(|entry| (entry.id(), entry.filemode()))
            };
            at(&branch) == at(&head)
        }))
    };
    // What cannot be compared may be lost.
    compared().unwrap_or(false)
}

/// A name like this one that no branch has.
fn free(repository: &git2::Repository, branch: &str) -> String {
    let taken = |name: &String| repository.find_reference(&full(name)).is_ok();
    let mut names = (2..1000).map(|number| format!("{branch}-{number}"));
    names.find(|name| !taken(name)).unwrap_or_else(|| "ANOTHER-NAME".to_owned())
}

fn full(branch: &str) -> String {
    format!("refs/heads/{branch}")
}

/// Whether a branch is HEAD of the repository or of one of its worktrees.
fn checked_out(repository: &git2::Repository, name: &str) -> Result<bool> {
    let common = repository.commondir();
    let mut heads = vec![common.join("HEAD")];
    let worktrees = common.join("worktrees");
    match std::fs::read_dir(&worktrees) {
        Ok(entries) => {
            for entry in entries {
                heads.push(entry.map_err(Error::io("list", &worktrees))?.path().join("HEAD"));
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("list", &worktrees)(error)),
    }
    let is_it = |path: &std::path::PathBuf| {
        // A worktree without a readable HEAD has nothing checked out.
        std::fs::read_to_string(path)
            .is_ok_and(|text| text.strip_prefix("ref:").is_some_and(|rest| rest.trim() == name))
    };
    Ok(heads.iter().any(is_it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_remembered_until_one_is_certain() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("published");
        let (old, new) = (Id::new([1; 20]), Id::new([2; 20]));
        let mut places = Places::default();
        places.add("vcoding/x", old);
        places.add("vcoding/x", new);
        places.save(&path).unwrap();
        let mut back = Places::load(&path).unwrap();
        assert_eq!(back.of("vcoding/x"), [old, new]);
        assert!(back.of("other").is_empty());
        back.settle("vcoding/x", new);
        assert_eq!(back.of("vcoding/x"), [new]);
    }
}
