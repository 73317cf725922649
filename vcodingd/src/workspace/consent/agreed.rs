//! What a project's user has agreed to, in a file of the state directory.
//!
//! `<state>/agreed/HASH.json`, HASH of the project's path. Contents are known by their SHA-256. A path that is *watched* may hold
//! only contents that were agreed to; what stood there when the watch began is the user's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use protocol::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// 1: the first.
const VERSION: u32 = 1;
/// Contents that are remembered; the oldest are asked about again.
const MOST_CONTENTS: usize = 4096;
/// Paths that are watched one by one; with more, all are.
const MOST_PATHS: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agreed {
    version: u32,
    /// For whoever reads the file.
    project: PathBuf,
    /// The newest last.
    contents: Vec<String>,
    /// In lower case; with what was last proposed for it, where that has one content.
    watched: BTreeMap<String, Option<String>>,
    /// Too many paths came to be named.
    everything: bool,
    /// Files that `.vcodinginclude` may take back from the gate for secrets.
    secrets: BTreeSet<Bytes>,
}

impl Agreed {
    /// # Errors
    /// A file that cannot be read, is damaged, or of a later version: nothing is taken for agreed to then.
    pub fn load(state_dir: &Path, project: &Path) -> io::Result<Self> {
        let path = file(state_dir, project);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::nothing(project)),
            Err(error) => return Err(error),
        };
        let wrong = |why: String| io::Error::new(ErrorKind::InvalidData, format!("{}: {why}", path.display()));
        let agreed: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        match agreed.version {
            VERSION => Ok(agreed),
            other => Err(wrong(format!("it is of version {other}, and this program knows {VERSION}"))),
        }
    }

    fn nothing(project: &Path) -> Self {
        Self {
            version: VERSION,
            project: project.to_owned(),
            contents: Vec::new(),
            watched: BTreeMap::new(),
            everything: false,
            secrets: BTreeSet::new(),
        }
    }

    /// Durable when it returns.
    pub fn save(&self, state_dir: &Path) -> io::Result<()> {
        let path = file(state_dir, &self.project);
        let dir = path.parent().unwrap_or(state_dir);
        std::fs::create_dir_all(dir)?;
        let unfinished = path.with_extension("json.new");
        let mut new = File::create(&unfinished)?;
        new.write_all(&serde_json::to_vec_pretty(self)?)?;
        new.sync_all()?;
        std::fs::rename(&unfinished, &path)?;
        File::open(dir)?.sync_all()
    }

    pub fn knows(&self, content: &str) -> bool {
        self.contents.iter().any(|known| known == content)
    }

    pub fn agree(&mut self, content: &str) {
        self.contents.retain(|known| known != content);
        self.contents.push(content.to_owned());
        let excess = self.contents.len().saturating_sub(MOST_CONTENTS);
        self.contents.drain(..excess);
    }

    pub fn is_watched(&self, path: &str) -> bool {
        self.everything || self.watched.contains_key(&path.to_ascii_lowercase())
    }

    /// From now on; `proposed` is the content that comes, if there is one.
    pub fn watch(&mut self, path: &str, proposed: Option<&str>) {
        if self.watched.len() >= MOST_PATHS && !self.is_watched(path) {
            self.everything = true;
            return;
        }
        // What came before may still come home, and with it what it is turned into: it is not forgotten for one without content.
        let last = self.watched.entry(path.to_ascii_lowercase()).or_default();
        if let Some(proposed) = proposed {
            *last = Some(proposed.to_owned());
        }
    }

    /// What stands there was agreed to: the watch ends, unless another content was proposed since and may still come.
    pub fn settle(&mut self, path: &str, content: &str) {
        let path = path.to_ascii_lowercase();
        if self.watched.get(&path).is_some_and(|last| last.as_deref().is_none_or(|last| last == content)) {
            self.watched.remove(&path);
        }
    }

    pub fn lets_in(&self, path: &Bytes) -> bool {
        self.secrets.contains(path)
    }

    pub fn let_in(&mut self, paths: impl IntoIterator<Item = Bytes>) {
        self.secrets = paths.into_iter().collect();
    }
}

fn file(state_dir: &Path, project: &Path) -> PathBuf {
    let name = format!("{:x}.json", Sha256::digest(project.as_os_str().as_bytes()));
    state_dir.join("agreed").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_a_later_version_or_a_damaged_one_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let project = Path::new("/p");
        let mut agreed = Agreed::load(state.path(), project).unwrap();
        agreed.agree("aa");
        agreed.watch("Dockerfile", Some("bb"));
        agreed.let_in([Bytes(b".env\xff".to_vec())]);
        agreed.save(state.path()).unwrap();
        assert_eq!(Agreed::load(state.path(), project).unwrap(), agreed);
        assert!(!Agreed::load(state.path(), Path::new("/q")).unwrap().knows("aa"));
        let path = file(state.path(), project);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
        assert!(Agreed::load(state.path(), project).unwrap_err().to_string().contains("version 2"));
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(Agreed::load(state.path(), project).is_err());
    }

    #[test]
    fn it_is_bounded_however_much_comes() {
        let mut agreed = Agreed::nothing(Path::new("/p"));
        for number in 0..=MOST_CONTENTS {
            agreed.agree(&number.to_string());
        }
        assert!(!agreed.knows("0") && agreed.knows("1"));
        for number in 0..=MOST_PATHS {
            agreed.watch(&format!("d{number}/Dockerfile"), None);
        }
        assert!(agreed.watched.len() == MOST_PATHS && agreed.is_watched("any"));
    }

    #[test]
    fn a_watch_ends_with_what_was_proposed_last() {
        let mut agreed = Agreed::nothing(Path::new("/p"));
        agreed.watch("Dockerfile", Some("one"));
        agreed.watch("dockerfile", Some("two"));
        agreed.watch("Dockerfile", None);
        agreed.settle("Dockerfile", "one");
        assert!(agreed.is_watched("Dockerfile"), "the other may still come");
        agreed.settle("Dockerfile", "two");
        assert!(!agreed.is_watched("Dockerfile"));
    }
}
