//! A project, a work tree and a host directory for one test.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use history::{Checkpointed, History, Id, Imported, Meta, Rollback, RolledBack, Settings};

pub struct Arena {
    _dir: tempfile::TempDir,
    pub project: PathBuf,
    pub tree: PathBuf,
    pub host: PathBuf,
}

pub const SETTINGS: Settings = Settings { max_file: 100_000, most: 200_000 };

/// A rollback of everything.
pub fn all_of<'a>(to: Id) -> Rollback<'a> {
    Rollback { to, paths: &[], clean: None }
}

pub fn meta(cause: &str) -> Meta {
    Meta { cause: cause.into(), label: None, run: None, time_ms: 1_700_000_000_000 }
}

impl Arena {
    pub fn new() -> Self {
        // As the daemon has it: what is to have other bits has to get them by itself.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let dir = tempfile::tempdir().unwrap();
        let [project, tree, host] = ["project", "tree", "host"].map(|name| dir.path().join(name));
        std::fs::create_dir(&project).unwrap();
        std::fs::create_dir(&tree).unwrap();
        Self { _dir: dir, project, tree, host }
    }

    /// An arena whose project was copied in.
    pub fn with(fill: impl FnOnce(&Path)) -> (Self, History) {
        let arena = Self::new();
        fill(&arena.project);
        let (history, _) = arena.import();
        (arena, history)
    }

    pub fn import(&self) -> (History, Imported) {
        let mut history = History::create(&self.host, SETTINGS).unwrap();
        let imported = history.import(&self.project, &self.tree, None, &meta("up"), &|_| true, &mut |_| {}).unwrap();
        (history, imported)
    }

    pub fn checkpoint(&self, history: &mut History) -> Checkpointed {
        history.checkpoint(&self.tree, &meta("request"), history::Activity::Still).unwrap()
    }

    pub fn rollback(&self, history: &mut History, name: &str) -> RolledBack {
        let to = history.resolve(name).unwrap().id;
        history.rollback(&self.tree, None, &all_of(to), &meta("rollback")).unwrap()
    }

    /// A rollback that moves away what would be left; with where it went.
    pub fn clean_rollback(&self, history: &mut History, name: &str) -> (RolledBack, PathBuf) {
        let to = history.resolve(name).unwrap().id;
        let clean = self.host.join("cleaned/1");
        let back = Rollback { clean: Some(&clean), ..all_of(to) };
        (history.rollback(&self.tree, None, &back, &meta("rollback")).unwrap(), clean)
    }

    pub fn git(&self, args: &[&str]) -> String {
        git(&self.host.join("history.git"), args)
    }

    /// The id that git itself gives the tree in `directory`.
    pub fn gits_tree(directory: &Path) -> String {
        let scratch = tempfile::tempdir().unwrap();
        let at = |args: &[&str]| {
            let mut command = plain_git(directory);
            command.env("GIT_DIR", scratch.path()).env("GIT_WORK_TREE", directory);
            run(command.args(args))
        };
        at(&["init", "-q"]);
        at(&["add", "-A", "-f"]);
        at(&["write-tree"]).trim().to_owned()
    }
}

pub fn plain_git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    command.args([
        "-c",
        "user.name=U",
        "-c",
        "user.email=u@example",
        "-c",
        "safe.directory=*",
        "-c",
        "core.autocrlf=false",
    ]);
    command
}

pub fn git(directory: &Path, args: &[&str]) -> String {
    run(plain_git(directory).args(args))
}

pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn write(root: &Path, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) {
    let path = root.join(OsStr::from_bytes(name.as_ref()));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

pub fn executable(root: &Path, name: &str) {
    std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub fn link(root: &Path, name: &str, target: &str) {
    symlink(target, root.join(name)).unwrap();
}

/// Everything below a directory that a history holds: kind, exec bit and content by path.
pub fn snapshot(root: &Path) -> Vec<(Vec<u8>, String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut stack = vec![root.to_path_buf()];
    while let Some(directory) = stack.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            let stat = std::fs::symlink_metadata(&path).unwrap();
            let (kind, content) = if stat.is_symlink() {
                ("link", std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
            } else if stat.is_dir() {
                stack.push(path);
                ("directory", Vec::new())
            } else if stat.permissions().mode() & 0o100 != 0 {
                ("executable", std::fs::read(&path).unwrap())
            } else {
                ("file", std::fs::read(&path).unwrap())
            };
            found.push((name, kind.to_owned(), content));
        }
    }
    found.sort();
    found
}
