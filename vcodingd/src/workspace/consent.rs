//! What an agent changed of the files that decide how a guest is made: they come home by an
//! apply, and their build runs with a network. Nobody runs them before the user has agreed.
//!
//! A content that was taken home lies by its hash in `<state>/proposed` until it is agreed to. By
//! content, so that whatever becomes of the workspace, the branch or the file's date, the same
//! text is met again, and another is not.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::config;

/// Of a longer file this much is compared.
const MOST: u64 = 4 << 20;

/// Whether a path of a project is one that decides, where `dockerfile` is the configured one.
pub(super) fn decides(path: &str, dockerfile: &Path) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    Path::new(path) == dockerfile
        || path == "vcoding.toml"
        || name == ".dockerignore"
        || name == "dockerfile"
        || name.starts_with("dockerfile.")
        || name.ends_with(".dockerfile")
}

/// Remembers contents that are about to be taken home, but for those that the project has as its
/// own already; durable when it returns. Blocking.
pub(super) fn propose(state_dir: &Path, project: &Path, dockerfile: &Path, contents: &[Vec<u8>]) -> io::Result<()> {
    let dir = state_dir.join("proposed");
    let known = markers(state_dir, project, dockerfile);
    let own = |marker: &PathBuf| known.iter().any(|(_, known)| known == marker) && !marker.exists();
    let new: Vec<_> = contents.iter().map(|content| dir.join(name_of(content))).filter(|marker| !own(marker)).collect();
    if new.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(&dir)?;
    for marker in new {
        File::create(marker)?.sync_all()?;
    }
    File::open(&dir)?.sync_all()
}

/// The project's deciding files that an apply brought and nobody agreed to. Blocking.
pub(super) fn proposed(state_dir: &Path, project: &Path, dockerfile: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for (name, marker) in markers(state_dir, project, dockerfile) {
        if marker.exists() {
            names.push(name);
        }
    }
    names
}

/// Agrees to them as they are now; which ones. Blocking.
pub(super) fn agree(state_dir: &Path, project: &Path) -> io::Result<Vec<String>> {
    // A vcoding.toml with a mistake names no other Dockerfile.
    let dockerfile = config::Project::load(project).map_or_else(|_| "Dockerfile".into(), |config| config.dockerfile);
    let mut names = Vec::new();
    for (name, marker) in markers(state_dir, project, &dockerfile) {
        match std::fs::remove_file(&marker) {
            Ok(()) => names.push(name),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

fn markers(state_dir: &Path, project: &Path, dockerfile: &Path) -> Vec<(String, PathBuf)> {
    let dir = state_dir.join("proposed");
    let files = BTreeSet::from([dockerfile, Path::new("vcoding.toml"), Path::new(".dockerignore")]);
    let mut markers = Vec::new();
    for file in files {
        let opened = fs::Root::open(project).and_then(|root| root.open_file(file));
        let mut content = Vec::new();
        // What cannot be read is not obeyed either.
        if opened.is_ok_and(|file| file.take(MOST).read_to_end(&mut content).is_ok()) {
            markers.push((file.display().to_string(), dir.join(name_of(&content))));
        }
    }
    markers
}

fn name_of(content: &[u8]) -> String {
    use std::fmt::Write;
    let content = &content[..content.len().min(usize::try_from(MOST).unwrap_or(usize::MAX))];
    Sha256::digest(content).iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_that_came_home_is_met_again_until_it_is_agreed_to() {
        let dir = tempfile::tempdir().unwrap();
        let (state, project) = (dir.path().join("state"), dir.path().join("project"));
        std::fs::create_dir_all(project.join("ci")).unwrap();
        let dockerfile = Path::new("Dockerfile");
        std::fs::write(project.join("Dockerfile"), "FROM a\n").unwrap();
        assert!(proposed(&state, &project, dockerfile).is_empty());
        let evil = [b"FROM b\nRUN evil\n".to_vec()];
        propose(&state, &project, dockerfile, &evil).unwrap();
        assert!(proposed(&state, &project, dockerfile).is_empty(), "the user's own is still there");
        std::fs::write(project.join("Dockerfile"), "FROM b\nRUN evil\n").unwrap();
        assert_eq!(proposed(&state, &project, dockerfile), ["Dockerfile"]);
        assert_eq!(agree(&state, &project).unwrap(), ["Dockerfile"]);
        assert!(proposed(&state, &project, dockerfile).is_empty());
        assert!(agree(&state, &project).unwrap().is_empty());
        propose(&state, &project, dockerfile, &evil).unwrap();
        assert!(proposed(&state, &project, dockerfile).is_empty(), "what was agreed to is the project's own");
    }

    #[test]
    fn the_deciding_files_are_known_by_name_and_by_configuration() {
        let configured = Path::new("ci/build.txt");
        for yes in
            ["Dockerfile", "sub/Dockerfile.dev", "dev.dockerfile", ".dockerignore", "vcoding.toml", "ci/build.txt"]
        {
            assert!(decides(yes, configured), "{yes}");
        }
        for no in ["src/main.rs", "Dockerfiles/readme", "sub/vcoding.toml"] {
            assert!(!decides(no, configured), "{no}");
        }
    }
}
