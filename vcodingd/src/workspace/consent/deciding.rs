//! The files of a project that decide how a guest is made, and what turns them into others.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use gix_glob::wildmatch;
use gix_glob::wildmatch::Mode;
use sha2::{Digest, Sha256};

use crate::config;

/// Of a longer file of the project nothing is agreed to.
const MOST: u64 = 4 << 20;

/// What a project builds from, relative to it.
#[derive(Debug, Clone)]
pub(in crate::workspace) struct Recipe {
    dockerfile: PathBuf,
    context: PathBuf,
}

impl Recipe {
    /// As its vcoding.toml says; one with a mistake names no other.
    pub fn of(project: &Path) -> Self {
        config::Project::load(project).map_or_else(|_| Self::new("Dockerfile".into(), ".".into()), |c| Self::from(&c))
    }

    pub fn new(dockerfile: PathBuf, context: PathBuf) -> Self {
        Self { dockerfile, context }
    }

    /// Whether a path is one that decides, here or once vcoding.toml names it. Any case: a file system may not tell them apart.
    pub fn decides(&self, path: &str) -> bool {
        let path = path.to_ascii_lowercase();
        let name = path.rsplit('/').next().unwrap_or_default();
        matches!(path.as_str(), "vcoding.toml" | ".vcodinginclude" | ".vcodingignore")
            || name == "dockerfile"
            || name.starts_with("dockerfile.")
            || name.ends_with(".dockerfile")
            || name.ends_with(".dockerignore")
            || self.dockerfile.to_string_lossy().eq_ignore_ascii_case(&path)
    }

    /// What is obeyed as the project is now.
    pub fn obeyed(&self) -> BTreeSet<String> {
        let mut beside = self.dockerfile.clone().into_os_string();
        beside.push(".dockerignore");
        let context: PathBuf = self.context.components().filter(|c| *c != std::path::Component::CurDir).collect();
        let named = [self.dockerfile.clone(), beside.into(), context.join(".dockerignore")];
        let fixed = [".dockerignore", "vcoding.toml", ".vcodinginclude", ".vcodingignore"];
        named.iter().map(|path| path.to_string_lossy().into_owned()).chain(fixed.map(str::to_owned)).collect()
    }
}

impl From<&config::Project> for Recipe {
    fn from(settings: &config::Project) -> Self {
        Self::new(settings.dockerfile.clone(), settings.context.clone())
    }
}

pub(super) fn hash_of(content: &[u8]) -> String {
    format!("{:x}", Sha256::digest(content))
}

/// Of a file that is not there: that it is gone can be agreed to as well.
pub(super) fn hash_of_none(path: &str) -> String {
    hash_of(format!("\0no {path}").as_bytes())
}

/// What stands at a path of the project.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stands {
    Nothing,
    Content(String),
    /// Nobody reads so much to agree to it.
    TooLarge,
    /// It cannot be read, and so is not obeyed either.
    Unreadable,
}

impl Stands {
    pub fn at(project: &Path, path: &str) -> Self {
        let file = match fs::Root::open(project).and_then(|root| root.open_file(Path::new(path))) {
            Ok(file) => file,
            Err(error) if error.is_missing() => return Self::Nothing,
            Err(_) => return Self::Unreadable,
        };
        let mut hash = Sha256::new();
        let mut file = file.take(MOST + 1);
        let mut chunk = vec![0; 64 << 10];
        let mut length = 0;
        loop {
            match file.read(&mut chunk) {
                Ok(0) if length > MOST => return Self::TooLarge,
                Ok(0) => return Self::Content(format!("{:x}", hash.finalize())),
                Ok(read) => {
                    length += read as u64;
                    hash.update(&chunk[..read]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Self::Unreadable,
            }
        }
    }

    pub fn hash(&self, path: &str) -> Option<String> {
        match self {
            Self::Nothing => Some(hash_of_none(path)),
            Self::Content(hash) => Some(hash.clone()),
            Self::TooLarge | Self::Unreadable => None,
        }
    }
}

/// Whether a `.gitattributes` in `directory` could change the content of `path` at a checkout. What is in doubt could.
pub(super) fn may_turn(directory: &str, attributes: &[u8], path: &str) -> bool {
    let below = match directory {
        "" => Some(path),
        _ => path.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/')),
    };
    let Some(below) = below else { return false };
    let text = String::from_utf8_lossy(attributes);
    // A macro may stand for anything under any name.
    let macros = text.contains("[attr]");
    text.trim_start_matches('\u{feff}').lines().map(str::trim).any(|line| {
        let mut words = line.split([' ', '\t', '\r']).filter(|word| !word.is_empty());
        let Some(pattern) = words.next().filter(|first| !first.starts_with('#')) else { return false };
        let turns = words.any(|word| macros || !is_harmless(word));
        turns && (pattern.starts_with('"') || fits(pattern, below))
    })
}

/// Attributes that leave a content as it is.
fn is_harmless(word: &str) -> bool {
    let name = word.trim_start_matches(['-', '!']).split('=').next().unwrap_or_default();
    matches!(
        name,
        "diff" | "merge" | "whitespace" | "export-ignore" | "export-subst" | "delta" | "conflict-marker-size"
    ) || name.starts_with("linguist-")
        || name.starts_with("gitlab-")
}

fn fits(pattern: &str, path: &str) -> bool {
    let mode = Mode::NO_MATCH_SLASH_LITERAL | Mode::IGNORE_CASE;
    let subject = if pattern.contains('/') { path } else { path.rsplit('/').next().unwrap_or_default() };
    wildmatch(pattern.trim_start_matches('/').as_bytes().into(), subject.as_bytes().into(), mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deciding_files_are_known_by_name_and_by_configuration() {
        let recipe = Recipe::new("ci/build.txt".into(), "./sub".into());
        for yes in [
            "Dockerfile",
            "DOCKERFILE",
            "sub/Dockerfile.dev",
            "dev.dockerfile",
            ".dockerignore",
            "sub/.dockerignore",
            "Dockerfile.dockerignore",
            "ci/build.txt.dockerignore",
            "vcoding.toml",
            ".vcodinginclude",
            ".vcodingignore",
            "ci/build.txt",
        ] {
            assert!(recipe.decides(yes), "{yes}");
        }
        for no in ["src/main.rs", "Dockerfiles/readme", "sub/vcoding.toml", "sub/.vcodingignore"] {
            assert!(!recipe.decides(no), "{no}");
        }
        let obeyed = recipe.obeyed();
        for path in ["ci/build.txt", "ci/build.txt.dockerignore", "sub/.dockerignore", "vcoding.toml"] {
            assert!(obeyed.contains(path) && recipe.decides(path), "{path}: {obeyed:?}");
        }
    }

    #[test]
    fn attributes_that_turn_a_file_into_another_are_seen() {
        for text in [
            "Dockerfile ident",
            "* text=auto",
            "*file eol=crlf",
            "/Dockerfile\tfilter=x",
            "dockerfile -text",
            "\"Docker\\146ile\" ident",
            "[attr]linguist-x ident\nDockerfile linguist-x",
            "# x\n\n*.c diff\n** working-tree-encoding=UTF-16",
            "Dockerfile custom",
        ] {
            assert!(may_turn("", text.as_bytes(), "Dockerfile"), "{text}");
        }
        for text in [
            "",
            "# Dockerfile ident",
            "*.c ident",
            "Dockerfile",
            "Dockerfile diff=x -merge linguist-detectable",
            "a/Dockerfile eol=lf",
        ] {
            assert!(!may_turn("", text.as_bytes(), "Dockerfile"), "{text}");
        }
        assert!(may_turn("ci", b"Dockerfile ident", "ci/Dockerfile") && !may_turn("ci", b"* ident", "Dockerfile"));
        assert!(may_turn("ci", b"/sub/* ident", "ci/sub/Dockerfile") && !may_turn("c", b"* ident", "ci/Dockerfile"));
    }
}
