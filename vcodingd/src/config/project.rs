//! vcoding.toml.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Error, parse_size};

/// A repository's wishes, within what it may decide alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    pub name: Option<String>,
    /// Relative to the project.
    pub dockerfile: PathBuf,
    /// Relative to the project.
    pub context: PathBuf,
    pub target: Option<String>,
    /// The shell that `shell` and plain ssh start; default: the image's.
    pub shell: Option<String>,
    pub limits: Limits,
    /// Files over this many bytes stay out of the history.
    pub max_file: u64,
    pub default_agent: String,
    /// The default model by agent.
    pub models: BTreeMap<String, String>,
    /// SHA-256 of the file, in hexadecimal; of nothing if there is none.
    pub hash: String,
}

/// What one guest may use.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, Deserialize)]
pub struct Limits {
    /// Bytes; there is no swap beyond it.
    pub memory: u64,
    pub cpus: f64,
    pub pids: u32,
    pub open_files: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 4 << 30, cpus: 2.0, pids: 1024, open_files: 65536 }
    }
}

const MAX_FILE: u64 = 50 << 20;
/// With less, not even the guest's own programs run.
const LEAST_MEMORY: u64 = 32 << 20;
const LEAST_PIDS: u32 = 32;
const LEAST_FILES: u32 = 64;
/// A longer vcoding.toml is none.
const MAX_TEXT: u64 = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    workspace: Workspace,
    limits: LimitWishes,
    network: Network,
    agents: toml::Table,
    history: History,
    run: Run,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Workspace {
    name: Option<String>,
    dockerfile: Option<PathBuf>,
    context: Option<PathBuf>,
    target: Option<String>,
    build_args: BTreeMap<String, String>,
    build_secrets: Vec<String>,
    shell: Option<String>,
    setup: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitWishes {
    memory: Option<String>,
    cpus: Option<f64>,
    pids: Option<u32>,
    disk: Option<String>,
    open_files: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Network {
    allow: Vec<String>,
    deny: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct History {
    quiet: Option<String>,
    max_file: Option<String>,
    ignore: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Run {
    timeout: Option<String>,
    max_cost: Option<f64>,
    max_requests: Option<u64>,
    env: BTreeMap<String, String>,
}

impl Project {
    /// Reads `<project>/vcoding.toml`; without one everything is as by default.
    ///
    /// # Errors
    /// [`Error::Unreadable`] (a missing file is none), [`Error::Mistake`], [`Error::Consent`].
    pub fn load(project: &Path) -> Result<Self, Error> {
        let path = project.join("vcoding.toml");
        let unreadable = |source| Error::Unreadable { path: path.clone(), source };
        // The repository's own word: no link is followed, nothing but a file is read, and no more than it may hold.
        let opened = fs::Root::open(project).and_then(|root| root.open_file(Path::new("vcoding.toml")));
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.is_missing() => return Self::parse(&path, b""),
            Err(error) => return Err(unreadable(std::io::Error::other(error))),
        };
        let mut bytes = Vec::new();
        file.take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_TEXT {
            return Err(Error::Mistake { path, why: format!("it is longer than {MAX_TEXT} bytes") });
        }
        Self::parse(&path, &bytes)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let mistake = |why: String| Error::Mistake { path: path.to_owned(), why };
        let text = std::str::from_utf8(bytes).map_err(|e| mistake(e.to_string()))?;
        let file: File = toml::from_str(text).map_err(|e| mistake(e.to_string()))?;
        let beyond = beyond_the_defaults(&file).map_err(mistake)?;
        if !beyond.is_empty() {
            return Err(Error::Consent { path: path.to_owned(), what: beyond });
        }
        let defaults = Limits::default();
        let limits = Limits {
            memory: size_of(file.limits.memory.as_deref(), defaults.memory).map_err(mistake)?,
            cpus: file.limits.cpus.unwrap_or(defaults.cpus),
            pids: file.limits.pids.unwrap_or(defaults.pids),
            open_files: file.limits.open_files.unwrap_or(defaults.open_files),
        };
        // To the engine a zero is no limit at all.
        let sensible = limits.cpus.is_finite() && limits.cpus >= 0.01;
        if !sensible || limits.memory < LEAST_MEMORY || limits.pids < LEAST_PIDS || limits.open_files < LEAST_FILES {
            return Err(mistake(format!(
                "[limits] leave a guest no room: at least memory = \"{}m\", cpus = 0.01, pids = {LEAST_PIDS}, open_files = {LEAST_FILES}",
                LEAST_MEMORY >> 20
            )));
        }
        let (default_agent, models) = agents(&file.agents).map_err(mistake)?;
        Ok(Self {
            name: file.workspace.name,
            dockerfile: file.workspace.dockerfile.unwrap_or_else(|| "Dockerfile".into()),
            context: file.workspace.context.unwrap_or_else(|| ".".into()),
            target: file.workspace.target,
            shell: file.workspace.shell,
            limits,
            max_file: size_of(file.history.max_file.as_deref(), MAX_FILE).map_err(mistake)?,
            default_agent,
            models,
            hash: hex(&Sha256::digest(bytes)),
        })
    }
}

/// What the file asks for that a repository may not decide alone (walls: vcoding.toml is the
/// repository's word), or that this version cannot do: better refused than ignored.
fn beyond_the_defaults(file: &File) -> Result<Vec<String>, String> {
    let defaults = Limits::default();
    let mut beyond = Vec::new();
    let mut ask = |yes: bool, what: &str| {
        if yes {
            beyond.push(what.to_owned());
        }
    };
    let w = &file.workspace;
    ask(!w.build_args.is_empty(), "[workspace] build_args");
    ask(!w.build_secrets.is_empty(), "[workspace] build_secrets");
    ask(!w.setup.is_empty(), "[workspace] setup");
    ask(!file.network.allow.is_empty(), "[network] allow");
    ask(!file.history.ignore.is_empty(), "[history] ignore");
    ask(!file.run.env.is_empty(), "[run] env");
    ask(file.run.timeout.is_some(), "[run] timeout");
    ask(file.run.max_cost.is_some(), "[run] max_cost");
    ask(file.run.max_requests.is_some(), "[run] max_requests");
    ask(file.limits.disk.is_some(), "[limits] disk");
    ask(file.history.quiet.is_some(), "[history] quiet");
    ask(file.agents.values().any(|wishes| wishes.get("version").is_some()), "[agents] version");
    let l = &file.limits;
    ask(size_of(l.memory.as_deref(), 0)? > defaults.memory, "[limits] memory over 4g");
    ask(l.cpus.is_some_and(|c| c > defaults.cpus), "[limits] cpus over 2.0");
    ask(l.pids.is_some_and(|p| p > defaults.pids), "[limits] pids over 1024");
    ask(l.open_files.is_some_and(|n| n > defaults.open_files), "[limits] open_files over 65536");
    ask(size_of(file.history.max_file.as_deref(), 0)? > MAX_FILE, "[history] max_file over 50m");
    Ok(beyond)
}

fn size_of(text: Option<&str>, default: u64) -> Result<u64, String> {
    text.map_or(Ok(default), parse_size)
}

/// `[agents]`: `default = "claude"`, and a table of version and model by agent.
fn agents(table: &toml::Table) -> Result<(String, BTreeMap<String, String>), String> {
    let mut default = "claude".to_owned();
    let mut models = BTreeMap::new();
    for (key, value) in table {
        match (key.as_str(), value) {
            ("default", toml::Value::String(name)) => default.clone_from(name),
            ("default", _) => return Err("[agents] default is an agent's name".into()),
            (agent, toml::Value::Table(wishes)) => {
                for (wish, value) in wishes {
                    match (wish.as_str(), value) {
                        ("model", toml::Value::String(model)) => drop(models.insert(agent.to_owned(), model.clone())),
                        ("version", toml::Value::String(_)) => {}
                        _ => return Err(format!("[agents] {agent}.{wish} is not known; there are version and model")),
                    }
                }
            }
            (agent, _) => return Err(format!("[agents] {agent} is a table with version and model")),
        }
    }
    Ok((default, models))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}"); // writing to a String cannot fail
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Project, Error> {
        Project::parse(Path::new("/p/vcoding.toml"), text.as_bytes())
    }

    #[test]
    fn without_a_file_everything_is_as_by_default() {
        let dir = tempfile::tempdir().unwrap();
        let project = Project::load(dir.path()).unwrap();
        assert_eq!(project.dockerfile, Path::new("Dockerfile"));
        assert_eq!(project.limits, Limits::default());
        assert_eq!(project.default_agent, "claude");
    }

    #[test]
    fn a_repository_may_lower_limits_and_choose_its_dockerfile() {
        let project = parse("[workspace]\ndockerfile = \"ci/Dockerfile\"\n[limits]\nmemory = \"1g\"\n[agents]\ndefault = \"codex\"\nclaude = { model = \"m\" }\n").unwrap();
        assert_eq!(project.dockerfile, Path::new("ci/Dockerfile"));
        assert_eq!(project.limits.memory, 1 << 30);
        assert_eq!(project.default_agent, "codex");
        assert_eq!(project.models["claude"], "m");
    }

    #[test]
    fn limits_that_would_be_none_are_mistakes() {
        for none in
            ["memory = \"0\"", "cpus = 0.0", "cpus = nan", "cpus = -1.0", "cpus = inf", "pids = 0", "open_files = 0"]
        {
            assert!(parse(&format!("[limits]\n{none}\n")).is_err(), "{none}");
        }
    }

    #[test]
    fn a_file_that_leads_elsewhere_or_never_ends_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("vcoding.toml")).unwrap();
        assert!(matches!(Project::load(dir.path()), Err(Error::Unreadable { .. })));
        std::fs::remove_file(dir.path().join("vcoding.toml")).unwrap();
        std::fs::write(dir.path().join("vcoding.toml"), "#".repeat(2 << 20)).unwrap();
        assert!(matches!(Project::load(dir.path()), Err(Error::Mistake { .. })));
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let Err(Error::Mistake { why, .. }) = parse("[workspace]\nnam = \"x\"\n") else { panic!() };
        assert!(why.contains("line 2") && why.contains("nam"), "{why}");
    }

    #[test]
    fn what_goes_beyond_the_defaults_is_refused_by_name() {
        let Err(Error::Consent { what, .. }) =
            parse("[limits]\nmemory = \"64g\"\n[network]\nallow = [\"*\"]\n[run]\nenv = { A = \"b\" }\n")
        else {
            panic!()
        };
        assert_eq!(what, ["[network] allow", "[run] env", "[limits] memory over 4g"]);
    }
}
