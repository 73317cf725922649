//! What `init` writes, and what it leaves alone: a file that is there stays as it is, but for `.gitignore`, which gets the lines
//! that it lacks.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

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
    let mut plans = Vec::new();
    for File { path, text, executable } in files {
        let there = std::fs::symlink_metadata(directory.join(&path));
        let plan = match there {
            Err(_) => Plan { path, state: State::New, text, executable },
            Ok(meta) if path == MERGED && meta.is_file() && meta.len() <= MAX_MERGED => {
                let old = read(&directory.join(&path))?;
                // Merged anew when it is written: meanwhile somebody may write there, too.
                let (_, added) = merged(&old, &text);
                let state = if added > 0 { State::Merged(added) } else { State::Kept };
                Plan { path, state, text, executable }
            }
            Ok(_) => Plan { path, state: State::Kept, text: String::new(), executable },
        };
        plans.push(plan);
    }
    Ok(plans)
}

/// Does it. A file that appeared meanwhile stays as it is.
///
/// # Errors
/// What cannot be written.
pub fn write(directory: &Path, plans: &mut [Plan]) -> Result<(), Error> {
    for plan in plans {
        let path = directory.join(&plan.path);
        if let Some(link) = link_above(directory, &plan.path) {
            let why = format!("{} is a link, and nothing is written through it", link.display());
            return Err(Error::new(Kind::Usage, why).hint(format!("ls -l {}", link.display())));
        }
        let done = match plan.state {
            State::Kept => Ok(()),
            State::New => create(&path, &plan.text, plan.executable),
            State::Merged(_) => replace(&path, &merged(&read(&path)?, &plan.text).0),
        };
        match done {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => plan.state = State::Kept,
            other => other.map_err(|error| failed(&path, &error))?,
        }
    }
    Ok(())
}

/// A link on the way to a file below the project: it may lead anywhere.
fn link_above(directory: &Path, path: &str) -> Option<PathBuf> {
    let above = Path::new(path).ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
    above.map(|above| directory.join(above)).find(|above| above.is_symlink())
}

fn create(path: &Path, text: &str, executable: bool) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mode = if executable { 0o777 } else { 0o666 };
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(text.as_bytes())
}

/// In one step, with the modes that it had.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_file_name(format!(".vcoding-init-{}", std::process::id()));
    let written = create(&temporary, text, false)
        .and_then(|()| std::fs::set_permissions(&temporary, std::fs::metadata(path)?.permissions()))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_MERGED).read_to_string(&mut text))
        .map_err(|error| failed(path, &error))?;
    Ok(text)
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    let kind = if error.kind() == ErrorKind::StorageFull { Kind::NoSpace } else { Kind::Usage };
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
        assert!(write(dir.path(), &mut plans).unwrap_err().message.contains("is a link"));
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
