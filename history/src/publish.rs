//! Taking the work home: a branch in the user's repository, while its index and work tree stay as they are.
//!
//! The branch grows from the commit that was HEAD when the project was copied in, or from what was published last, once HEAD has that. If the copy differed from that commit, a first
//! commit holds the uncommitted state, so that the work itself is one commit that shows the work alone. Trees are made ready for a
//! repository: empty directories go, and what was kept out at the copy keeps the entry that HEAD has for it, so an untouched `.env`
//! or submodule is not deleted by work that never saw it.
//!
//! Missing objects come as one pack, then one reference moves, compared with where it stood. Nothing of the user's is run: libgit2
//! calls no hooks for objects and references.

mod branch;
mod faithful;
mod flagged;
mod home;
mod objects;
mod refused;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::commit::Checkpoint;
use crate::compare::compare;
use crate::graft::Made;
use crate::history::{APPLIED, BASE, History};
use crate::object::{self, Kind};
use crate::origin::Origin;
use crate::record::{self, Durability};
use crate::{Error, Id, Named, Obeyed, Result, project, text};

/// What to publish as.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// Without `refs/heads/`.
    pub branch: &'a str,
    /// The message of the commit with the work. It may be a stranger's text.
    pub message: &'a str,
    /// What programs on the host run or obey.
    pub obeyed: &'a Obeyed,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
}

/// What [`History::publish`] answers.
#[derive(Clone, Debug)]
pub struct Published {
    pub branch: String,
    /// The commit the branch is at; `None` if there was nothing to publish and no branch was made.
    pub commit: Option<Id>,
    /// The commit it grew from: the project's HEAD when it was copied in, or what was published last, once that was merged.
    pub parent: Option<Id>,
    /// The commit between the two that holds what was uncommitted then, if anything was.
    pub uncommitted: Option<Id>,
    /// Changed files that programs on the host may run or obey, each with why.
    pub flagged: Named,
    /// Paths that the guest changed and that were kept as the project has them, since they were kept out of the copy.
    pub kept: Vec<Vec<u8>>,
    /// Paths that are not in the branch, since git would refuse to check them out, each with why.
    pub refused: Vec<(Vec<u8>, &'static str)>,
    /// The project's HEAD has no commit now.
    pub unborn: bool,
    /// Changed files that are not committed in the project's work tree, so that git refuses to merge over them; some of them.
    pub in_the_way: Vec<Vec<u8>>,
}

/// Changed files whose state in the project's work tree is looked at, and how many of those are named.
const LOOKED_AT: usize = 200;
const NAMED: usize = 10;

/// The message of the commit that holds the uncommitted state.
const UNCOMMITTED: &str = "the project as it was when vcoding copied it in";

/// Ends the message of a commit with work.
const TRAILER: &str = "\n\nVcoding-Checkpoint: ";

/// A commit of the user's repository, and its tree.
#[derive(Clone, Copy)]
struct Tip {
    commit: Option<Id>,
    tree: Id,
}

impl History {
    /// Publishes the newest checkpoint as a branch of the repository at `project`. The caller has taken a checkpoint before and runs
    /// as the repository's owner (or as root: then what is made is given to the owner). It may be killed anywhere and run again.
    pub fn publish(&mut self, project: &Path, request: &Publish<'_>) -> Result<Published> {
        let work = self.newest()?;
        let base = self.checkpoint_at(self.store.reference(BASE)?.ok_or(Error::NoBase)?)?;
        let origin = Origin::load(&self.host.join("origin"))?.ok_or(Error::NoBase)?;
        let repository = project::open(project)?;
        self.make_durable(&repository)?;
        let mut places = branch::Places::load(&self.host.join("published"))?;
        let reference = branch::Target::find(&repository, request.branch, &places)?;

        let start = start(&repository, project, &origin)?;
        let mut made = Made::new();
        let mut home = home::Home::new(&self.store, &repository, &origin.kept_out, start.tree, &mut made);
        let (base_tree, _) = home.bring(base.tree)?;
        let (work_tree, kept) = home.bring(work.tree)?;
        let changes = compare(|id| home.read(id), Some(base_tree), Some(work_tree))?;
        let flagged = flagged::flagged(&home, work_tree, &changes, request.obeyed)?;
        let mut published = Published {
            branch: request.branch.to_owned(),
            commit: None,
            parent: start.commit,
            uncommitted: None,
            flagged,
            kept,
            refused: home.refused(),
            unborn: repository.head().is_err(),
            in_the_way: in_the_way(&repository, &home, start.tree, work_tree)?,
        };
        if base_tree == work_tree {
            self.store.set_reference(APPLIED, work.id)?;
            return Ok(published);
        }

        let author = author(&repository);
        let mut commits = Vec::new();
        let mut tip = start;
        if let Some(last) = reference.taken_in() {
            tip = tip_at(&repository, last.oid()).map_err(|source| Error::Git { doing: "read the branch", source })?;
            published.parent = tip.commit;
            if tip.tree == work_tree {
                published.commit = Some(last);
                self.store.set_reference(APPLIED, work.id)?;
                return Ok(published);
            }
        }
        let uncommitted = reference.taken_in().is_none() && base_tree != start.tree;
        let trees = if uncommitted { vec![base_tree, work_tree] } else { vec![work_tree] };
        faithful::check(&repository, &home, tip.tree, &trees, origin.sparse)?;
        if uncommitted {
            tip = commit(&mut commits, tip, base_tree, &author, base.meta.time_ms, UNCOMMITTED)?;
            published.uncommitted = tip.commit;
        }
        let message = message(request.message, &work);
        tip = commit(&mut commits, tip, work_tree, &author, request.time_ms, &message)?;
        published.commit = tip.commit;
        let new = tip.commit.expect("a commit was made of it");

        objects::transfer(&self.store, &repository, &made, &[base_tree, work_tree], &commits)?;
        // Before the branch moves: after a kill in between, the next run must know the place as its own.
        let path = self.host.join("published");
        places.add(request.branch, new);
        places.save(&path)?;
        reference.move_to(&repository, new)?;
        places.settle(request.branch, new);
        places.save(&path)?;
        self.store.set_reference(APPLIED, work.id)?;
        Ok(published)
    }

    /// Lets libgit2 sync what it writes, as git itself does. It is asked by configuration only, and the repository's own is not ours
    /// to change: a file of our own is read with it.
    fn make_durable(&self, repository: &git2::Repository) -> Result<()> {
        let path = self.host.join("publish.gitconfig");
        record::write(&path, &[b"[core]\n\tfsyncObjectFiles = true\n"], Durability::Cache)?;
        repository
            .config()
            .and_then(|mut config| config.add_file(&path, git2::ConfigLevel::App, true))
            .map_err(|source| Error::Git { doing: "ask for what is written to be synced", source })
    }
}

/// Of the files in which the branch differs from where it grew from, those that are not committed as they are in the project.
fn in_the_way(repository: &git2::Repository, home: &home::Home<'_>, from: Id, to: Id) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for change in compare(|id| home.read(id), Some(from), Some(to))?.into_iter().take(LOOKED_AT) {
        let path = Path::new(OsStr::from_bytes(&change.path));
        // What git does not know and does not find is in nobody's way.
        let status = repository.status_file(path).unwrap_or(git2::Status::CURRENT);
        // git merges over what is ignored.
        if status != git2::Status::CURRENT && !status.is_ignored() {
            found.push(change.path);
        }
    }
    found.truncate(NAMED);
    Ok(found)
}

/// Where the branch grows from.
fn start(repository: &git2::Repository, project: &Path, origin: &Origin) -> Result<Tip> {
    let Some(head) = &origin.head else {
        return Ok(Tip { commit: None, tree: Id::EMPTY_TREE });
    };
    let gone = || Error::HeadGone { path: project.to_path_buf(), head: head.clone() };
    git2::Oid::from_str(head).and_then(|id| tip_at(repository, id)).map_err(|_| gone())
}

fn tip_at(repository: &git2::Repository, id: git2::Oid) -> std::result::Result<Tip, git2::Error> {
    let commit = repository.find_commit(id)?;
    Ok(Tip { commit: Some(Id::of(commit.id())), tree: Id::of(commit.tree_id()) })
}

/// The user as their git configuration names them.
fn author(repository: &git2::Repository) -> String {
    let configured = repository.config().and_then(|mut config| config.snapshot()).ok().and_then(|config| {
        let clean = |key: &str| {
            let text: String =
                text::neutral(config.get_str(key).ok()?).chars().filter(|one| !"<>".contains(*one)).collect();
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        Some(format!("{} <{}>", clean("user.name")?, clean("user.email")?))
    });
    configured.unwrap_or_else(|| "vcoding <vcoding@localhost>".to_owned())
}

/// The given text, made harmless, and which checkpoint this is.
fn message(given: &str, work: &Checkpoint) -> String {
    let text = text::neutral_lines(given);
    format!("{}{TRAILER}{}", text.trim(), work.id)
}

/// Adds a commit on top of `parent` to the list.
fn commit(commits: &mut Vec<Vec<u8>>, parent: Tip, tree: Id, author: &str, time_ms: i64, message: &str) -> Result<Tip> {
    let seconds = time_ms.div_euclid(1000).max(0);
    let parents = parent.commit.map(|id| format!("parent {id}\n")).unwrap_or_default();
    let who = format!("{author} {seconds} +0000");
    let bytes = format!("tree {tree}\n{parents}author {who}\ncommitter {who}\n\n{message}\n").into_bytes();
    let id = object::id(Kind::Commit, &bytes)?;
    commits.push(bytes);
    Ok(Tip { commit: Some(id), tree })
}
