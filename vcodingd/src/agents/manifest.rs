//! What is known of an agent: which package it is, how it is started, and where its model is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Error;
use super::launch::Template;

/// A manifest is a page of text; a longer file is none.
const MAX_FILE: u64 = 64 << 10;

/// An agent, as its manifest describes it. Checked as a whole when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// By which people call it; a plain name.
    pub name: String,
    pub title: String,
    /// Exact: what is fetched is pinned by a hash.
    pub version: String,
    pub output: Format,
    pub packages: BTreeMap<Platform, Package>,
    pub command: Command,
    pub endpoint: Endpoint,
}

/// Its output's format, by which its [`super::Parser`] is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    ClaudeStreamJson,
    /// Lines of text.
    Plain,
}

/// A tarball of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// `name` or `@scope/name`.
    pub package: String,
    pub integrity: Integrity,
    /// The program's path in the package.
    pub binary: String,
}

/// How the agent is started. The prompt is its standard input.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Behind the program.
    pub argv: Vec<Template>,
    /// Added where a model is asked for.
    #[serde(default)]
    pub model: Vec<Template>,
    /// Added for a new session.
    #[serde(default)]
    pub session: Vec<Template>,
    /// Added where an earlier session is gone on with.
    #[serde(default)]
    pub resume: Vec<Template>,
    #[serde(default)]
    pub env: BTreeMap<String, Template>,
}

/// Where the agent's model is, when it is not elsewhere by the user's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    pub wire: Wire,
    /// The name of the secret that the provider wants.
    pub key: String,
    pub base: String,
    /// The only paths a guest may ask for.
    pub paths: Vec<String>,
}

/// The protocol of a model endpoint, which says where the key goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wire {
    Anthropic,
}

/// What a native program is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Platform {
    pub arch: Arch,
    pub libc: Libc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    X64,
    Arm64,
}

/// The image's C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Libc {
    Gnu,
    Musl,
}

impl Platform {
    /// Guests have this host's architecture; the library is their image's.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on an architecture that no agent is made for.
    pub fn of_host(libc: Libc) -> Result<Self, Error> {
        let arch = match std::env::consts::ARCH {
            "x86_64" => Arch::X64,
            "aarch64" => Arch::Arm64,
            other => return Err(Error::Unsupported { what: format!("agents on the architecture {other}") }),
        };
        Ok(Self { arch, libc })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.arch, self.libc) {
            (Arch::X64, Libc::Gnu) => "linux-x64-gnu",
            (Arch::X64, Libc::Musl) => "linux-x64-musl",
            (Arch::Arm64, Libc::Gnu) => "linux-arm64-gnu",
            (Arch::Arm64, Libc::Musl) => "linux-arm64-musl",
        })
    }
}

impl TryFrom<String> for Platform {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        [Arch::X64, Arch::Arm64]
            .into_iter()
            .flat_map(|arch| [Libc::Gnu, Libc::Musl].map(|libc| Self { arch, libc }))
            .find(|platform| platform.to_string() == text)
            .ok_or_else(|| format!("{text:?} is not a platform; one is \"linux-x64-gnu\""))
    }
}

/// A SHA-512, written as registries do: `sha512-` and base64.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Integrity(pub [u8; 64]);

impl FromStr for Integrity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_prefix("sha512-")
            .and_then(|hash| STANDARD.decode(hash).ok())
            .and_then(|hash| hash.try_into().ok())
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a hash; one is \"sha512-\" and 88 characters of base64"))
    }
}

impl TryFrom<String> for Integrity {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha512-{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let manifest: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The package for a platform.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn package(&self, platform: Platform) -> Result<&Package, Error> {
        self.packages
            .get(&platform)
            .ok_or_else(|| Error::Unsupported { what: format!("{} {} on {platform}", self.title, self.version) })
    }

    /// Names become paths and addresses: whatever could be more than a name is refused here.
    fn check(&self) -> Result<(), String> {
        let word = |text: &str, also: &str| {
            (1..=64).contains(&text.len())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
                && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        };
        if !word(&self.name, "-") {
            return Err(format!("name {:?} is not made of letters, digits and '-'", self.name));
        }
        if !word(&self.version, ".-+") {
            return Err(format!("version {:?} is not a version", self.version));
        }
        for package in self.packages.values() {
            let (scope, name) = package.package.split_once('/').unwrap_or(("@any", &package.package));
            if !scope.strip_prefix('@').is_some_and(|scope| word(scope, "-._")) || !word(name, "-._") {
                return Err(format!("package {:?} is not a package's name", package.package));
            }
            let path = Path::new(&package.binary);
            if path.components().next().is_none() || path.components().any(|c| !matches!(c, Component::Normal(_))) {
                return Err(format!("binary {:?} is not a path in the package", package.binary));
            }
        }
        let command = &self.command;
        let holes: BTreeSet<&str> = [&command.argv, &command.model, &command.session, &command.resume]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .into_iter()
            .flat_map(Template::holes)
            .collect();
        if let Some(hole) = holes.iter().find(|hole| !["model", "session"].contains(hole)) {
            return Err(format!("{{{hole}}} has no place in an argument: others see a process's arguments"));
        }
        for (name, value) in &command.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(format!("{name:?} is not a variable's name"));
            }
            if let Some(hole) = value.holes().find(|hole| !["model", "session", "port", "token"].contains(hole)) {
                return Err(format!("{name}: {{{hole}}} is not known"));
            }
        }
        let base: http::Uri = self.endpoint.base.parse().map_err(|e| format!("base {:?}: {e}", self.endpoint.base))?;
        if base.scheme_str() != Some("https") || base.host().is_none() {
            return Err(format!("base {:?} is not an https address", self.endpoint.base));
        }
        match self.endpoint.paths.iter().find(|path| !path.starts_with('/') || path.contains(['?', '#', '%'])) {
            Some(path) => Err(format!("{path:?} is not an exact path")),
            None => Ok(()),
        }
    }
}

/// All agents: those that come along and those of the user (`*.toml` in `dir`), whose names go first.
///
/// # Errors
/// [`Error::Manifest`] names the file of the user that is wrong.
pub fn manifests(dir: Option<&Path>) -> Result<BTreeMap<String, Manifest>, Error> {
    let mut all = BTreeMap::new();
    for (name, text) in templates::AGENTS {
        let manifest = Manifest::parse(text).map_err(|why| Error::Manifest { path: name.into(), why })?;
        all.insert(manifest.name.clone(), manifest);
    }
    let Some(dir) = dir else { return Ok(all) };
    let wrong = |path: &Path, why: String| Error::Manifest { path: path.to_path_buf(), why };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(all),
        Err(e) => return Err(wrong(dir, e.to_string())),
    };
    for entry in entries {
        let path = entry.map_err(|e| wrong(dir, e.to_string()))?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let manifest = read(&path).and_then(|text| Manifest::parse(&text)).map_err(|why| wrong(&path, why))?;
        if path.file_stem().is_none_or(|stem| stem != manifest.name.as_str()) {
            return Err(wrong(
                &path,
                format!("it describes {:?}; a manifest is called after its agent", manifest.name),
            ));
        }
        all.insert(manifest.name.clone(), manifest);
    }
    Ok(all)
}

/// The agent of that name.
///
/// # Errors
/// [`Error::Unknown`], and those of [`manifests`].
pub fn find(dir: Option<&Path>, name: &str) -> Result<Manifest, Error> {
    let mut all = manifests(dir)?;
    all.remove(name).ok_or_else(|| Error::Unknown { name: name.into(), known: all.into_keys().collect() })
}

fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > MAX_FILE { Err("it is too long for a manifest".into()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAUDE: &str = templates::AGENTS[0].1;

    #[test]
    fn claude_comes_along_for_every_platform_with_a_hash_each() {
        let claude = find(None, "claude").unwrap();
        assert_eq!((claude.output, claude.endpoint.wire), (Format::ClaudeStreamJson, Wire::Anthropic));
        assert_eq!(claude.packages.len(), 4);
        let hashes: BTreeSet<String> = claude.packages.values().map(|p| p.integrity.to_string()).collect();
        assert_eq!(hashes.len(), 4);
        for (platform, package) in &claude.packages {
            assert!(CLAUDE.contains(&format!("[packages.{platform}]")), "{platform}");
            assert!(CLAUDE.contains(&package.integrity.to_string()));
        }
    }

    #[test]
    fn an_agent_that_nobody_knows_is_refused_with_those_that_are_known() {
        let error = find(None, "clade").unwrap_err();
        assert!(matches!(&error, Error::Unknown { known, .. } if known == &["claude"]), "{error}");
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_manifest() {
        assert!(Manifest::parse(CLAUDE).is_ok());
        for (from, to) in [
            ("name = \"claude\"", "name = \"../claude\""),
            ("name = \"claude\"", "name = \"\""),
            ("version = \"2.1.329\"", "version = \"2/1\""),
            ("version = \"2.1.329\"", "version = \"..\""),
            ("\"@anthropic-ai/claude-code-linux-x64\"", "\"@anthropic-ai/../../x\""),
            ("\"@anthropic-ai/claude-code-linux-x64\"", "\"http://x\""),
            ("binary = \"claude\"", "binary = \"../claude\""),
            ("binary = \"claude\"", "binary = \"/bin/sh\""),
            ("packages.linux-x64-gnu", "packages.linux-x32"),
            ("sha512-+n4", "sha512-n4"),
            ("sha512-+n4", "sha1-+n4"),
            ("[\"-p\"", "[\"{token}\""),
            ("[\"-p\"", "[\"{model\""),
            ("\"{token}\"", "\"{tokn}\""),
            ("https://api", "http://api"),
            ("\"/v1/messages\"", "\"v1/messages\""),
            ("wire = ", "wires = "),
        ] {
            assert!(CLAUDE.contains(from), "{from}");
            assert!(Manifest::parse(&CLAUDE.replacen(from, to, 1)).is_err(), "{to}");
        }
    }

    #[test]
    fn the_users_own_manifests_go_first_and_a_wrong_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(manifests(Some(&dir.path().join("none"))).unwrap().len(), 1);
        std::fs::write(dir.path().join("claude.toml"), CLAUDE.replace("2.1.329", "9.9.9")).unwrap();
        std::fs::write(dir.path().join("notes.txt"), "x").unwrap();
        assert_eq!(find(Some(dir.path()), "claude").unwrap().version, "9.9.9");
        std::fs::write(dir.path().join("other.toml"), CLAUDE).unwrap();
        let error = manifests(Some(dir.path())).unwrap_err();
        assert!(error.to_string().contains("other.toml"), "{error}");
    }
}
