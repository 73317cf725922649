//! vcoding.toml.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use protocol::consent::Wish;
use protocol::time::parse_duration;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Error, parse_size, parsed};

/// What a repository says. Where [`Project::wishes`] is not empty it asks for more than it may
/// decide alone: only with the user's consent may anything of this be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// What goes beyond the defaults.
    pub wishes: Vec<Wish>,
    pub name: Option<String>,
    /// Relative to the project.
    pub dockerfile: PathBuf,
    /// Relative to the project.
    pub context: PathBuf,
    pub target: Option<String>,
    pub build_args: BTreeMap<String, String>,
    /// The shell that `shell` and plain ssh start; default: the image's.
    pub shell: Option<String>,
    pub limits: Limits,
    /// Files over this many bytes stay out of the history.
    pub max_file: u64,
    pub default_agent: String,
    /// The default model by agent.
    pub models: BTreeMap<String, String>,
    pub run: Run,
    /// SHA-256 of the file, in hexadecimal; of nothing if there is none.
    pub hash: String,
}

/// What holds for every run that is not started otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    #[serde(default)]
    pub max_requests: Option<u64>,
}

impl Run {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What one guest may use.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, Deserialize)]
pub struct Limits {
    /// Bytes; there is no swap beyond it.
    pub memory: u64,
    pub cpus: f64,
    pub pids: u32,
    /// Bytes of the host's disk: work tree, home and history together.
    pub disk: u64,
    pub open_files: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 4 << 30, cpus: 2.0, pids: 1024, disk: 20 << 30, open_files: 65536 }
    }
}

const MAX_FILE: u64 = 50 << 20;
/// With less, not even the guest's own programs run.
/// Room for a small project with its history.
const LEAST_DISK: u64 = 64 << 20;
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
    run: RunWishes,
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
struct RunWishes {
    timeout: Option<String>,
    max_cost: Option<f64>,
    max_requests: Option<u64>,
    env: BTreeMap<String, String>,
}

impl Project {
    /// Reads `<project>/vcoding.toml`; without one everything is as by default.
    ///
    /// # Errors
    /// [`Error::Unreadable`] (a missing file is none), [`Error::Mistake`], [`Error::Unsupported`].
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
        let file: File = parsed(text).map_err(mistake)?;
        let unsupported = unsupported(&file);
        if !unsupported.is_empty() {
            return Err(Error::Unsupported { path: path.to_owned(), what: unsupported });
        }
        let defaults = Limits::default();
        let limits = Limits {
            memory: size_of("[limits] memory", file.limits.memory.as_deref(), defaults.memory).map_err(mistake)?,
            cpus: file.limits.cpus.unwrap_or(defaults.cpus),
            pids: file.limits.pids.unwrap_or(defaults.pids),
            disk: size_of("[limits] disk", file.limits.disk.as_deref(), defaults.disk).map_err(mistake)?,
            open_files: file.limits.open_files.unwrap_or(defaults.open_files),
        };
        // To the engine a zero is no limit at all.
        let sensible = limits.cpus.is_finite() && limits.cpus >= 0.01;
        let sensible = sensible && limits.memory >= LEAST_MEMORY && limits.disk >= LEAST_DISK;
        if !sensible || limits.pids < LEAST_PIDS || limits.open_files < LEAST_FILES {
            return Err(mistake(format!(
                "[limits] leave a guest no room: at least memory = \"{}m\", cpus = 0.01, pids = {LEAST_PIDS}, disk = \"{}m\", open_files = {LEAST_FILES}",
                LEAST_MEMORY >> 20,
                LEAST_DISK >> 20
            )));
        }
        let (default_agent, models) = agents(&file.agents).map_err(mistake)?;
        let max_file = size_of("[history] max_file", file.history.max_file.as_deref(), MAX_FILE).map_err(mistake)?;
        let timeout_ms = file
            .run
            .timeout
            .as_deref()
            .map(parse_duration)
            .transpose()
            .map_err(|why| mistake(format!("[run] timeout: {why}")))?;
        let odd_name = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
        if let Some(name) = file.run.env.keys().chain(file.workspace.build_args.keys()).find(odd_name) {
            return Err(mistake(format!("{name:?} is not a variable's name")));
        }
        Ok(Self {
            wishes: wishes(&file, &limits, max_file),
            name: file.workspace.name,
            dockerfile: file.workspace.dockerfile.unwrap_or_else(|| "Dockerfile".into()),
            context: file.workspace.context.unwrap_or_else(|| ".".into()),
            target: file.workspace.target,
            build_args: file.workspace.build_args,
            shell: file.workspace.shell,
            limits,
            max_file,
            default_agent,
            models,
            run: Run { env: file.run.env, timeout_ms, max_requests: file.run.max_requests },
            hash: format!("{:x}", Sha256::digest(bytes)),
        })
    }
}

/// What the file asks for that this version cannot do: better refused than ignored.
fn unsupported(file: &File) -> Vec<String> {
    let asked = [
        (!file.workspace.build_secrets.is_empty(), "[workspace] build_secrets"),
        (!file.workspace.setup.is_empty(), "[workspace] setup"),
        (!file.network.allow.is_empty(), "[network] allow"),
        (!file.history.ignore.is_empty(), "[history] ignore (write .vcodingignore instead)"),
        (file.history.quiet.is_some(), "[history] quiet"),
        (file.run.max_cost.is_some(), "[run] max_cost"),
        (file.agents.values().any(|wishes| wishes.get("version").is_some()), "[agents] version"),
    ];
    asked.into_iter().filter(|(asked, _)| *asked).map(|(_, what)| what.to_owned()).collect()
}

/// What goes beyond the defaults (walls: vcoding.toml is the repository's word).
fn wishes(file: &File, limits: &Limits, max_file: u64) -> Vec<Wish> {
    let defaults = Limits::default();
    let mut wishes = Vec::new();
    let mut wish = |beyond: bool, key: &str, value: String, default: String| {
        if beyond {
            wishes.push(Wish { key: key.to_owned(), value, default });
        }
    };
    let size = |bytes: u64| match bytes {
        whole if whole % (1 << 30) == 0 => format!("{}g", whole >> 30),
        whole if whole % (1 << 20) == 0 => format!("{}m", whole >> 20),
        bytes => bytes.to_string(),
    };
    let variables = |all: &BTreeMap<String, String>| {
        let all: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        all.join(" ")
    };
    let (args, env) = (&file.workspace.build_args, &file.run.env);
    wish(!args.is_empty(), "[workspace] build_args", variables(args), "none".into());
    wish(limits.memory > defaults.memory, "[limits] memory", size(limits.memory), size(defaults.memory));
    wish(limits.cpus > defaults.cpus, "[limits] cpus", limits.cpus.to_string(), defaults.cpus.to_string());
    wish(limits.pids > defaults.pids, "[limits] pids", limits.pids.to_string(), defaults.pids.to_string());
    wish(limits.disk > defaults.disk, "[limits] disk", size(limits.disk), size(defaults.disk));
    let files = (limits.open_files, defaults.open_files);
    wish(files.0 > files.1, "[limits] open_files", files.0.to_string(), files.1.to_string());
    wish(max_file > MAX_FILE, "[history] max_file", size(max_file), size(MAX_FILE));
    wish(!env.is_empty(), "[run] env", variables(env), "none".into());
    wishes
}

fn size_of(key: &str, text: Option<&str>, default: u64) -> Result<u64, String> {
    text.map_or(Ok(default), |text| parse_size(text).map_err(|why| format!("{key}: {why}")))
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
    fn what_goes_beyond_the_defaults_is_a_wish_and_what_does_not_is_none() {
        let project = parse(
            "[workspace]\nbuild_args = { V = \"1 2\" }\n[limits]\nmemory = \"64g\"\npids = 100\n[run]\nenv = { A = \"b\" }\ntimeout = \"30m\"\n",
        )
        .unwrap();
        let wishes: Vec<_> =
            project.wishes.iter().map(|w| (w.key.as_str(), w.value.as_str(), w.default.as_str())).collect();
        assert_eq!(
            wishes,
            [
                ("[workspace] build_args", "V=\"1 2\"", "none"),
                ("[limits] memory", "64g", "4g"),
                ("[run] env", "A=\"b\"", "none"),
            ]
        );
        assert_eq!(project.run.timeout_ms, Some(1_800_000));
        assert!(parse("[limits]\nmemory = \"4g\"\n[history]\nmax_file = \"1m\"\n").unwrap().wishes.is_empty());
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let Err(Error::Unsupported { what, .. }) = parse("[network]\nallow = [\"*\"]\n[history]\nquiet = \"1s\"\n")
        else {
            panic!()
        };
        assert_eq!(what, ["[network] allow", "[history] quiet"]);
    }

    #[test]
    fn a_variables_name_is_one() {
        assert!(matches!(parse("[run]\nenv = { \"A=B\" = \"c\" }\n"), Err(Error::Mistake { .. })));
    }
}
