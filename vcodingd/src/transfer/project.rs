//! The project's directory: whether it can be one, and its repository.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a directory cannot be a project.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    #[error("{} is not a directory: {why}", .path.display())]
    Missing { path: PathBuf, why: String },
    #[error("{} cannot be a project: {why}", .path.display())]
    Forbidden { path: PathBuf, why: &'static str },
    #[error(
        "{} lies inside the git repository {}: its work could not be taken home as a branch",
        .path.display(), .repository.display()
    )]
    Inside { path: PathBuf, repository: PathBuf },
    #[error("{} is a git repository of another user", .path.display())]
    NotOwned { path: PathBuf },
}

/// The project's real path. `own` are our state and configuration directories.
///
/// # Errors
/// For `/`, the home directory, and what holds or lies in one of `own`.
pub fn suitable(path: &Path, home: Option<&Path>, own: &[&Path]) -> Result<PathBuf, Unsuitable> {
    let missing = |why: String| Unsuitable::Missing { path: path.to_owned(), why };
    let real = path.canonicalize().map_err(|e| missing(e.to_string()))?;
    if !real.is_dir() {
        return Err(missing("it is something else".into()));
    }
    let forbidden = |why| Err(Unsuitable::Forbidden { path: real.clone(), why });
    if real.parent().is_none() {
        return forbidden("it is the whole file system");
    }
    if home.and_then(|h| h.canonicalize().ok()).is_some_and(|h| h == real) {
        return forbidden("it is the home directory, with every key in it; make a directory for the project");
    }
    for dir in own.iter().filter_map(|d| d.canonicalize().ok()) {
        if dir.starts_with(&real) || real.starts_with(&dir) {
            return forbidden("it holds, or lies in, vcoding's own state or configuration");
        }
    }
    Ok(real)
}

/// Whether a project is a repository that git would work in, or could become one.
///
/// # Errors
/// [`Unsuitable::Inside`]: a repository in another's work tree would be in that one's way. [`Unsuitable::NotOwned`], as git says it.
pub fn may_be_repository(project: &Path) -> Result<(), Unsuitable> {
    if is_repository(project) {
        let opened = git2::Repository::open(project);
        // Whatever else is wrong with it is said where it is read.
        return match opened.err().map(|error| error.code()) {
            Some(git2::ErrorCode::Owner) => Err(Unsuitable::NotOwned { path: project.to_owned() }),
            _ => Ok(()),
        };
    }
    match project.ancestors().find(|dir| is_repository(dir)) {
        Some(repository) => Err(Unsuitable::Inside { path: project.to_owned(), repository: repository.to_owned() }),
        None => Ok(()),
    }
}

/// A `.git` of any kind counts, also a work tree's file or one that libgit2 does not read.
fn is_repository(dir: &Path) -> bool {
    dir.join(".git").exists()
}

/// Makes the project a repository if it is none. True if it was made now.
///
/// # Errors
/// If it cannot be made.
pub fn ensure_repository(project: &Path) -> Result<bool, git2::Error> {
    if is_repository(project) {
        return Ok(false);
    }
    let mut options = git2::RepositoryInitOptions::new();
    options.no_reinit(true).mkdir(false).external_template(false);
    git2::Repository::init_opts(project, &options)?;
    give_to_owner(project);
    Ok(true)
}

/// What root made in another user's project is that user's.
fn give_to_owner(project: &Path) {
    let Ok(meta) = std::fs::metadata(project) else { return };
    if nix::unistd::geteuid().as_raw() == meta.uid() {
        return;
    }
    let mut waiting = vec![project.join(".git")];
    while let Some(path) = waiting.pop() {
        if let Err(error) = std::os::unix::fs::lchown(&path, Some(meta.uid()), Some(meta.gid())) {
            tracing::warn!(%error, path = %path.display(), "the new repository's owner could not be set");
        }
        if path.is_symlink() {
            continue;
        }
        waiting.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_directory_the_root_and_our_own_state_are_no_projects() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let state = home.join("state");
        let project = home.join("p");
        for d in [&home, &state, &project] {
            std::fs::create_dir_all(d).unwrap();
        }
        let ask = |p: &Path| suitable(p, Some(&home), &[&state]);
        assert_eq!(ask(&project).unwrap(), project.canonicalize().unwrap());
        for bad in [Path::new("/"), &home, &state, &state.join("sub"), dir.path()] {
            std::fs::create_dir_all(bad).unwrap();
            assert!(matches!(ask(bad), Err(Unsuitable::Forbidden { .. })), "{}", bad.display());
        }
        assert!(matches!(ask(&home.join("none")), Err(Unsuitable::Missing { .. })));
        let link = home.join("link");
        std::os::unix::fs::symlink(&state, &link).unwrap();
        assert!(matches!(ask(&link), Err(Unsuitable::Forbidden { .. })), "by its real path");
    }

    #[test]
    fn a_directory_becomes_a_repository_once_and_one_inside_another_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ensure_repository(dir.path()).unwrap());
        assert!(dir.path().join(".git/HEAD").is_file());
        assert!(!dir.path().join(".git/hooks").join("pre-commit.sample").exists());
        assert!(!ensure_repository(dir.path()).unwrap());
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        assert!(matches!(may_be_repository(&inner), Err(Unsuitable::Inside { .. })));
        assert_eq!(may_be_repository(dir.path()), Ok(()));
        std::fs::create_dir(inner.join(".git")).unwrap();
        assert_eq!(may_be_repository(&inner), Ok(()));
    }
}
