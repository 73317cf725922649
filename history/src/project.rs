//! The user's project as git sees it, read at the import: which files are tracked, where HEAD is, what its rules ignore.
//!
//! Only the index, HEAD, the configuration and ignore files are read. No status, no checkout, no hook, no filter.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fs::{Kind, Root};

use crate::rules::{self, Rules, Source, Verdict};
use crate::{Error, Result, names};

const MODE_TYPE: u32 = 0o170_000;
const MODE_COMMIT: u32 = 0o160_000;
/// Of an index entry: git does not look at the file (`git update-index --assume-unchanged`, a sparse checkout).
const ASSUME_VALID: u16 = 1 << 15;
const SKIP_WORKTREE: u16 = 1 << 14;
/// What of the project comes in although it is kept out.
pub(crate) const INCLUDE: &str = ".vcodinginclude";
/// Of an ignore file, more than its rules take.
const MAX_TEXT: u64 = 1 << 20;

/// What git says of a project.
#[derive(Default)]
pub(crate) struct Tracked {
    pub(crate) head: Option<String>,
    files: BTreeSet<Vec<u8>>,
    submodules: HashSet<Vec<u8>>,
    /// Files are not there since the checkout is sparse.
    pub(crate) sparse: bool,
    /// Ignore texts from outside the work tree: the user's and the repository's.
    excludes: Vec<Vec<u8>>,
    /// What could not be read, for a reader.
    pub(crate) notes: Vec<String>,
}

/// Opens the repository whose work tree is exactly `project`; never one further up.
pub(crate) fn open(project: &Path) -> Result<git2::Repository> {
    let nothing: [&OsStr; 0] = [];
    let path = project.to_path_buf();
    git2::Repository::open_ext(project, git2::RepositoryOpenFlags::NO_SEARCH, nothing).map_err(|error| {
        match error.code() {
            git2::ErrorCode::NotFound => Error::NotARepository { path },
            git2::ErrorCode::Owner => Error::NotOwned { path },
            _ => Error::Unsupported { path, why: error.message().to_owned() },
        }
    })
}

/// Reads what is tracked. A project that is no repository has nothing; one of a kind that cannot be read is noted.
pub(crate) fn tracked(project: &Path) -> Result<Tracked> {
    match open(project) {
        Ok(repository) => read(&repository),
        Err(Error::NotARepository { .. }) => Ok(Tracked::default()),
        Err(error @ Error::Unsupported { .. }) => {
            Ok(Tracked { notes: vec![format!("what git tracks is not known: {error}")], ..Tracked::default() })
        }
        Err(error) => Err(error),
    }
}

fn read(repository: &git2::Repository) -> Result<Tracked> {
    let mut tracked = Tracked { head: head(repository)?, ..Tracked::default() };
    match repository.index() {
        Ok(index) => {
            for entry in index.iter() {
                if entry.mode & MODE_TYPE == MODE_COMMIT {
                    tracked.submodules.insert(entry.path);
                } else {
                    tracked.sparse |= entry.flags_extended & SKIP_WORKTREE != 0 && is_missing(repository, &entry.path);
                    tracked.files.insert(entry.path);
                }
            }
        }
        Err(error) => {
            // One that is sparse by directories is read by git alone.
            tracked.sparse =
                repository.config().and_then(|config| config.get_bool("core.sparseCheckout")).unwrap_or(false);
            tracked.notes.push(format!("what git tracks is not known: {}", error.message()));
        }
    }
    // The user's own excludes are weaker than the repository's.
    let configured = repository.config().and_then(|config| config.get_path("core.excludesfile")).ok();
    let files: [Option<PathBuf>; 2] = [configured, Some(repository.commondir().join("info/exclude"))];
    for path in files.into_iter().flatten() {
        let mut text = Vec::new();
        if std::fs::File::open(&path).and_then(|file| file.take(MAX_TEXT).read_to_end(&mut text)).is_ok() {
            tracked.excludes.push(text);
        }
    }
    Ok(tracked)
}

fn is_missing(repository: &git2::Repository, path: &[u8]) -> bool {
    let there = repository.workdir().map(|top| top.join(names::as_path(path)).symlink_metadata());
    there.is_none_or(|there| there.is_err())
}

/// Tracked paths that git does not look at in the work tree.
pub(crate) type Hidden = HashSet<Vec<u8>>;

/// `None` if the index cannot be read.
pub(crate) fn hidden(repository: &git2::Repository) -> Option<Hidden> {
    let index = repository.index().ok()?;
    let hidden = index
        .iter()
        .filter(|entry| entry.flags & ASSUME_VALID != 0 || entry.flags_extended & SKIP_WORKTREE != 0)
        .map(|entry| entry.path);
    Some(hidden.collect())
}

fn head(repository: &git2::Repository) -> Result<Option<String>> {
    match repository.head() {
        Ok(head) => {
            let commit = head.peel_to_commit().map_err(Error::git("read the project's HEAD"))?;
            Ok(Some(commit.id().to_string()))
        }
        Err(error) if matches!(error.code(), git2::ErrorCode::UnbornBranch | git2::ErrorCode::NotFound) => Ok(None),
        Err(error) => Err(Error::Git { doing: "read the project's HEAD", source: error }),
    }
}

/// The rules for this project, as its files say now.
pub(crate) fn rules(root: &Root, tracked: &Tracked) -> Result<Rules> {
    let mut rules = Rules::new();
    for text in &tracked.excludes {
        rules.add(Source::Excludes, b"", text);
    }
    for (name, source) in [(".vcodingignore", Source::Ours), (INCLUDE, Source::Include)] {
        if let Some(text) = text(root, name.as_bytes()) {
            rules.add(source, b"", &text);
        }
    }
    // A directory's own rules come before what lies in it is looked at: what they exclude is not entered.
    let mut stack = vec![Vec::new()];
    while let Some(path) = stack.pop() {
        let Ok(directory) = root.dir(names::as_path(&path)) else {
            // The copy meets it too, and says so.
            continue;
        };
        if let Some(text) = text(&directory, b".gitignore") {
            rules.add(Source::Directory, &path, &text);
        }
        let scope = rules.scope(&path);
        let mut inner = Vec::new();
        for entry in directory.entries()?.flatten().filter(|entry| entry.kind == Kind::Directory) {
            let name = entry.name.as_bytes();
            let enter = !scope.is_outside(name) && names::refused(name).is_none();
            if enter
                && rules::settle(scope.verdict(name, true, false), &directory, name) == Verdict::In
                && path.len() < names::MAX_PATH
            {
                inner.push(names::join(&path, name));
            }
        }
        stack.extend(inner);
    }
    rules.set_tracked(tracked.files.iter().map(Vec::as_slice), tracked.submodules.clone());
    Ok(rules)
}

fn text(directory: &Root, name: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let file = directory.open_file(names::as_path(name)).ok()?;
    file.take(MAX_TEXT).read_to_end(&mut text).ok()?;
    Some(text)
}
