//! What only the user may grant, and whether that was done.
//!
//! - What an agent changed of the files that decide how a guest is made: they come home by an
//!   apply, and their build runs with a network. A content that was taken home lies by its hash in
//!   `<state>/proposed` until it is agreed to. By content, so that whatever becomes of the
//!   workspace, the branch or the file's date, the same text is met again, and another is not.
//! - What a project's vcoding.toml asks for beyond the defaults. Once agreed to, project and wishes
//!   lie by their hash in `<state>/consented`: another project or another wish is asked anew.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use protocol::consent::{Consent, Wish};
use protocol::{Error, Kind};
use sha2::{Digest, Sha256};

use super::failure;
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
    for marker in contents.iter().map(|content| dir.join(name_of(content))).filter(|marker| !own(marker)) {
        mark(&marker)?;
    }
    Ok(())
}

fn mark(marker: &Path) -> io::Result<()> {
    let dir = marker.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(dir)?;
    File::create(marker)?.sync_all()?;
    File::open(dir)?.sync_all()
}

fn unmark(marker: &Path) -> io::Result<()> {
    match std::fs::remove_file(marker) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A project's settings, if nothing in them or beside them waits for the user. Blocking.
///
/// # Errors
/// [`Kind::ConsentNeeded`]; what is wrong with vcoding.toml.
pub(super) fn settings(state_dir: &Path, project: &Path) -> Result<config::Project, Error> {
    let (settings, asked, _) = look(state_dir, project)?;
    if asked.agreed {
        return Ok(settings);
    }
    let mut what = Vec::new();
    if !asked.files.is_empty() {
        what.push(format!(
            "{} came home with an agent's work, and nobody has agreed to it yet",
            asked.files.join(" and ")
        ));
    }
    if !granted(state_dir, project, &asked.wishes) {
        let wishes: Vec<String> = asked.wishes.iter().map(|wish| format!("{} = {}", wish.key, wish.value)).collect();
        what.push(format!("vcoding.toml asks for more than a repository may decide: {}", wishes.join(", ")));
    }
    Err(Error::new(Kind::ConsentNeeded, what.join("; ")).hint("vcodingctl consent   (shows it, and asks you)"))
}

/// What a project asks for, and whether that is granted. Blocking.
///
/// # Errors
/// What is wrong with vcoding.toml.
pub(super) fn show(state_dir: &Path, project: &Path) -> Result<Consent, Error> {
    look(state_dir, project).map(|(_, asked, _)| asked)
}

/// Grants what has this hash, or takes the consent to its wishes back. Blocking.
///
/// # Errors
/// [`Kind::ConsentNeeded`] if something else is asked for now; [`Kind::Internal`].
pub(super) fn set(state_dir: &Path, project: &Path, hash: &str, agree: bool) -> Result<Consent, Error> {
    let (_, asked, waiting) = look(state_dir, project)?;
    if asked.hash != hash {
        return Err(Error::new(Kind::ConsentNeeded, "what is asked for has changed since it was shown")
            .hint("vcodingctl consent"));
    }
    let wishes = marker_of_wishes(state_dir, project, &asked.wishes);
    let done = if agree {
        // What was shown, and not what lies there by now.
        let files = waiting.iter().try_for_each(|marker| unmark(marker));
        files.and_then(|()| if asked.wishes.is_empty() { Ok(()) } else { mark(&wishes) })
    } else {
        unmark(&wishes)
    };
    done.map_err(|e| failure::of_file(state_dir, &e))?;
    show(state_dir, project)
}

/// Settings, what is asked for, and the markers of the files among that.
fn look(state_dir: &Path, project: &Path) -> Result<(config::Project, Consent, Vec<PathBuf>), Error> {
    let settings = config::Project::load(project).map_err(|e| failure::of_config(&e))?;
    let mut hash = Sha256::new();
    let (mut files, mut waiting) = (Vec::new(), Vec::new());
    for (name, marker) in markers(state_dir, project, &settings.dockerfile) {
        if marker.exists() {
            // Its name is the content's hash.
            hash.update(marker.as_os_str().as_bytes());
            files.push(name);
            waiting.push(marker);
        }
    }
    let wishes = settings.wishes.clone();
    hash.update(name_of_wishes(project, &wishes));
    let agreed = files.is_empty() && granted(state_dir, project, &wishes);
    Ok((settings, Consent { hash: format!("{:x}", hash.finalize()), files, wishes, agreed }, waiting))
}

fn granted(state_dir: &Path, project: &Path, wishes: &[Wish]) -> bool {
    wishes.is_empty() || marker_of_wishes(state_dir, project, wishes).exists()
}

fn marker_of_wishes(state_dir: &Path, project: &Path, wishes: &[Wish]) -> PathBuf {
    state_dir.join("consented").join(name_of_wishes(project, wishes))
}

fn name_of_wishes(project: &Path, wishes: &[Wish]) -> String {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    field(project.as_os_str().as_bytes());
    for wish in wishes {
        field(wish.key.as_bytes());
        field(wish.value.as_bytes());
    }
    format!("{:x}", hash.finalize())
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
    let content = &content[..content.len().min(usize::try_from(MOST).unwrap_or(usize::MAX))];
    format!("{:x}", Sha256::digest(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree(state: &Path, project: &Path) {
        let asked = show(state, project).unwrap();
        assert!(set(state, project, &asked.hash, true).unwrap().agreed);
    }

    #[test]
    fn a_content_that_came_home_is_met_again_until_it_is_agreed_to() {
        let dir = tempfile::tempdir().unwrap();
        let (state, project) = (dir.path().join("state"), dir.path().join("project"));
        std::fs::create_dir_all(project.join("ci")).unwrap();
        let dockerfile = Path::new("Dockerfile");
        let proposed = || show(&state, &project).unwrap().files;
        std::fs::write(project.join("Dockerfile"), "FROM a\n").unwrap();
        assert!(proposed().is_empty());
        let evil = [b"FROM b\nRUN evil\n".to_vec()];
        propose(&state, &project, dockerfile, &evil).unwrap();
        assert!(proposed().is_empty(), "the user's own is still there");
        std::fs::write(project.join("Dockerfile"), "FROM b\nRUN evil\n").unwrap();
        assert_eq!(proposed(), ["Dockerfile"]);
        assert_eq!(settings(&state, &project).unwrap_err().kind(), Kind::ConsentNeeded);
        agree(&state, &project);
        assert!(settings(&state, &project).is_ok());
        propose(&state, &project, dockerfile, &evil).unwrap();
        assert!(proposed().is_empty(), "what was agreed to is the project's own");
    }

    #[test]
    fn a_wish_holds_only_with_consent_for_this_project_and_this_value() {
        let dir = tempfile::tempdir().unwrap();
        let (state, here, there) = (dir.path().join("state"), dir.path().join("here"), dir.path().join("there"));
        let wish = |project: &Path, memory: &str| {
            std::fs::create_dir_all(project).unwrap();
            std::fs::write(project.join("vcoding.toml"), format!("[limits]\nmemory = {memory:?}\n")).unwrap();
        };
        wish(&here, "8g");
        wish(&there, "8g");
        let refused = settings(&state, &here).unwrap_err();
        assert_eq!(refused.kind(), Kind::ConsentNeeded);
        assert!(refused.message.contains("[limits] memory = 8g"), "{}", refused.message);
        agree(&state, &here);
        assert_eq!(settings(&state, &here).unwrap().limits.memory, 8 << 30);
        assert!(settings(&state, &there).is_err(), "another project");
        wish(&here, "9g");
        assert!(settings(&state, &here).is_err(), "another value");
        wish(&here, "2g");
        assert!(settings(&state, &here).is_ok(), "nothing beyond the default");
        wish(&here, "8g");
        let asked = show(&state, &here).unwrap();
        assert!(asked.agreed, "it was agreed to before");
        set(&state, &here, &asked.hash, false).unwrap();
        assert!(settings(&state, &here).is_err(), "taken back");
    }

    #[test]
    fn what_changed_since_it_was_shown_is_not_agreed_to() {
        let dir = tempfile::tempdir().unwrap();
        let (state, project) = (dir.path().join("state"), dir.path());
        std::fs::write(project.join("vcoding.toml"), "[limits]\ncpus = 4.0\n").unwrap();
        let shown = show(&state, project).unwrap();
        std::fs::write(project.join("vcoding.toml"), "[limits]\ncpus = 64.0\n").unwrap();
        assert_eq!(set(&state, project, &shown.hash, true).unwrap_err().kind(), Kind::ConsentNeeded);
        assert!(settings(&state, project).is_err());
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
