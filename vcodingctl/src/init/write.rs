//! What `init` writes, and what it leaves alone: a file that is there stays as it is, but for `.gitignore`, which gets the lines
//! that it lacks.

use std::io::{self, Read, Write};
use std::path::Path;

use fs::Root;
use protocol::{Error, Kind};
use serde::Serialize;
use templates::File;

/// A longer file is not merged into.
const MAX_MERGED: u64 = 1 << 20;
/// In which lines are added to one that is there.
const MERGED: &str = ".gitignore";

/// What becomes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    New,
    /// So many lines are added.
    Merged(usize),
    /// It is there and stays.
    Kept,
}

/// A file, what becomes of it, and what is in it then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub path: String,
    pub state: State,
    #[serde(skip)]
    text: String,
    #[serde(skip)]
    executable: bool,
}

/// What would be written; nothing is.
///
/// # Errors
/// A file to be merged into that cannot be read.
pub fn plan(directory: &Path, files: Vec<File>) -> Result<Vec<Plan>, Error> {
    let root = open(directory)?;
    let mut plans = Vec::new();
    for File { path, text, executable } in files {
        let state = match root.stat(Path::new(&path)) {
            Err(error) if error.is_missing() => State::New,
            Err(error) => return Err(failed(&error)),
            // What is added is seen again when it is written: meanwhile somebody may write there, too.
            Ok(stat) if path == MERGED && stat.kind == fs::Kind::File && stat.size <= MAX_MERGED => {
                match merged(&read(&root)?, &text).1 {
                    0 => State::Kept,
                    added => State::Merged(added),
                }
            }
            Ok(_) => State::Kept,
        };
        plans.push(Plan { path, state, text, executable });
    }
    Ok(plans)
}

/// Does it. A file that appeared meanwhile stays as it is; no link is gone through.
///
/// # Errors
/// What cannot be written.
pub fn write(directory: &Path, plans: &mut [Plan]) -> Result<(), Error> {
    let root = open(directory)?;
    for plan in plans {
        let path = Path::new(&plan.path);
        match plan.state {
            State::Kept => {}
            State::New => {
                if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    root.make_dirs(parent, 0o777).map_err(|e| failed(&e))?;
                }
                match root.create_new(path, if plan.executable { 0o777 } else { 0o666 }) {
                    Ok(mut file) => file.write_all(plan.text.as_bytes()).map_err(|e| unwritten(path, &e))?,
                    Err(_) if root.stat(path).is_ok() => plan.state = State::Kept,
                    Err(error) => return Err(failed(&error)),
                }
            }
            State::Merged(_) => {
                let (text, _) = merged(&read(&root)?, &plan.text);
                let mode = root.stat(path).map_err(|e| failed(&e))?.mode;
                root.replace(path, mode, |file| file.write_all(text.as_bytes())).map_err(|e| failed(&e))?;
            }
        }
    }
    Ok(())
}

fn open(directory: &Path) -> Result<Root, Error> {
    Root::open(directory).map_err(|e| failed(&e))
}

fn read(root: &Root) -> Result<String, Error> {
    let path = Path::new(MERGED);
    let mut text = String::new();
    let file = root.open_file(path).map_err(|e| failed(&e))?;
    file.take(MAX_MERGED).read_to_string(&mut text).map_err(|e| unwritten(path, &e))?;
    Ok(text)
}

fn failed(error: &fs::Error) -> Error {
    Error::new(Kind::Usage, error.to_string()).hint("ls -la")
}

fn unwritten(path: &Path, error: &io::Error) -> Error {
    let kind = if error.kind() == io::ErrorKind::StorageFull { Kind::NoSpace } else { Kind::Usage };
    Error::new(kind, format!("{}: {error}", path.display()))
}

/// The old text with the rules of the new one that it lacks, and how many these are.
fn merged(old: &str, new: &str) -> (String, usize) {
    let has = |rule: &str| {
        let bare = |line: &str| line.trim().trim_matches('/').to_owned();
        // One that takes it back stays the last word.
        old.lines().any(|line| bare(line) == bare(rule) || bare(line.trim_start_matches('!')) == bare(rule))
    };
    let rules: Vec<&str> =
        new.lines().filter(|line| !line.is_empty() && !line.starts_with('#') && !has(line)).collect();
    if rules.is_empty() {
        return (old.to_owned(), 0);
    }
    let mut text = old.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if !text.is_empty() {
        text.push('\n');
    }
    for rule in &rules {
        text.push_str(rule);
        text.push('\n');
    }
    (text, rules.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into(), executable: false }
    }

    #[test]
    fn what_is_there_stays_and_only_gitignore_gets_what_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Dockerfile"), "FROM mine\n").unwrap();
        std::fs::write(dir.path().join(".gitignore"), "/target\n*.log").unwrap();
        let files =
            vec![file("Dockerfile", "FROM x\n"), file(".gitignore", "# a\ntarget/\n.env\n"), file("ci/x", "new\n")];
        let mut plans = plan(dir.path(), files).unwrap();
        let states: Vec<_> = plans.iter().map(|plan| plan.state.clone()).collect();
        assert_eq!(states, [State::Kept, State::Merged(1), State::New]);
        write(dir.path(), &mut plans).unwrap();
        let text = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(text("Dockerfile"), "FROM mine\n");
        assert_eq!(text(".gitignore"), "/target\n*.log\n\n.env\n");
        assert_eq!(text("ci/x"), "new\n");
        // Once more changes nothing.
        let again = plan(dir.path(), vec![file(".gitignore", "target/\n.env\n")]).unwrap();
        assert_eq!(again[0].state, State::Kept);
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("ci")).unwrap();
        let mut plans = plan(dir.path(), vec![file("ci/x", "new\n")]).unwrap();
        let said = write(dir.path(), &mut plans).unwrap_err().message;
        assert!(said.contains("ci"), "{said}");
        // Nor by a link that was put there in between.
        let mut plans = plan(dir.path(), vec![file("cd/x", "new\n")]).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("cd")).unwrap();
        assert!(write(dir.path(), &mut plans).is_err());
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn lines_that_were_written_meanwhile_stay() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".gitignore"), "!.env\n").unwrap();
        let mut plans = plan(dir.path(), vec![file(".gitignore", ".env\nbuild/\n")]).unwrap();
        assert_eq!(plans[0].state, State::Merged(1));
        std::fs::write(dir.path().join(".gitignore"), "!.env\nlater\n").unwrap();
        write(dir.path(), &mut plans).unwrap();
        let text = std::fs::read_to_string(dir.path().join(".gitignore")).unwrap();
        assert_eq!(text, "!.env\nlater\n\nbuild/\n");
    }

    #[test]
    fn a_file_that_appears_in_between_and_a_link_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join(".gitignore")).unwrap();
        let files = vec![file("Dockerfile", "FROM x\n"), file(".gitignore", ".env\n")];
        let mut plans = plan(dir.path(), files).unwrap();
        assert_eq!(plans[1].state, State::Kept);
        std::fs::write(dir.path().join("Dockerfile"), "FROM mine\n").unwrap();
        write(dir.path(), &mut plans).unwrap();
        assert_eq!(plans[0].state, State::Kept);
        assert_eq!(std::fs::read_to_string(dir.path().join("Dockerfile")).unwrap(), "FROM mine\n");
    }
}
