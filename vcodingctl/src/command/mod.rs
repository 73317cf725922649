//! A module a command group: arguments → call → rendering.

mod apply;
mod audit;
mod collect;
mod consent;
mod daemon;
mod doctor;
mod exec;
mod follow;
mod history;
mod leftovers;
mod log_file;
pub mod names;
mod output;
mod run;
mod secret;
mod service;
mod workspace;

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use client::{Client, Places, start};
use protocol::names::ProjectRef;
use protocol::{Bytes, Error, Kind, WorkspaceRef};

use crate::args::{Args, Command, Global};
use crate::printer::Printer;

/// An error, and the exit status where it is not the kind's own.
#[derive(Debug)]
pub struct Failure {
    pub error: Error,
    pub status: Option<u8>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, status: None }
    }
}

/// The exit status.
pub type Outcome = Result<u8, Failure>;

pub fn run(args: &Args, printer: &Printer) -> Outcome {
    let session = Session::new(&args.global)?;
    match &args.command {
        Command::Init(args) => crate::init::run(args, &session, printer),
        Command::Up { rebuild, no_cache, from } => {
            workspace::up((*rebuild, *no_cache), from.clone(), &session, printer)
        }
        Command::Run(args) => run::run(args, &session, printer),
        Command::Runs { all } => run::runs(*all, &session, printer),
        Command::Logs { run, follow, raw } => run::logs(run, (*follow, *raw), &session, printer),
        Command::Report { run, output } => crate::report::run(run, output.as_deref(), &session, printer),
        Command::Cancel { run } => run::cancel(run, &session, printer),
        Command::Checkpoint { label } => history::checkpoint(label.clone(), &session, printer),
        Command::Log { limit } => history::log(*limit, &session, printer),
        Command::Diff { from, to, stat, paths } => {
            let compare = history::Compare { from: from.as_deref(), to: to.as_deref(), stat: *stat, paths };
            history::diff(&compare, &session, printer)
        }
        Command::Rollback { to, runs, clean, paths } => {
            history::rollback(to, (*clean, *runs), paths, &session, printer)
        }
        Command::Apply { branch, runs } => apply::run(branch.clone(), *runs, &session, printer),
        Command::Collect { globs, to, force } => collect::run(globs, to.as_deref(), *force, &session, printer),
        Command::Consent(answer) => consent::run(*answer, &session, printer),
        Command::Ls { trash: false } => workspace::ls(&session, printer),
        Command::Ls { trash: true } => leftovers::ls(&session, printer),
        Command::Gc { trash, dry_run } => leftovers::gc(*trash, *dry_run, &session, printer),
        Command::Show => workspace::show(&session, printer),
        Command::Start => workspace::start(&session, printer),
        Command::Stop { runs } => workspace::stop(*runs, &session, printer),
        Command::Destroy { force, purge } => workspace::destroy(*force, *purge, &session, printer),
        Command::Secret { command } => secret::run(command, &session, printer),
        Command::Doctor => doctor::run(&session, printer),
        Command::Audit(args) => audit::run(args, &session, printer),
        Command::Daemon { command } => daemon::run(*command, &session, printer),
        Command::Completion { shell } => Ok(completion(*shell, printer)),
        Command::Help { words } => {
            printer.paged(&crate::help::of(words)?);
            Ok(0)
        }
        Command::Man { directory } => {
            printer.line(&format!("{} manual pages in {}", crate::help::manual(directory)?, directory.display()));
            Ok(0)
        }
        Command::Version => Ok(version(printer)),
        Command::Exec(args) => exec::exec(args, &session, printer),
        Command::Shell => exec::shell(&session, printer),
    }
}

fn completion(shell: clap_complete::Shell, printer: &Printer) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::help::command(), "vcodingctl", &mut script);
    printer.raw(&script);
    0
}

/// `typed` relative to the project; from outside of it, and where only a workspace is named, it is that already.
fn below(typed: &OsStr, here: Option<&Path>, project: Option<&Path>) -> Result<Bytes, Error> {
    let prefix = here.zip(project).and_then(|(here, project)| here.strip_prefix(project).ok()).unwrap_or(Path::new(""));
    let typed = Path::new(typed);
    let whole = match (typed.is_absolute(), project) {
        (true, Some(project)) => typed.strip_prefix(project).map(Path::to_owned).ok(),
        (true, None) => None,
        (false, _) => Some(prefix.join(typed)),
    };
    match whole.and_then(|path| plain(&path)) {
        Some(path) => Ok(Bytes::from(path.into_os_string())),
        None => {
            let typed = crate::render::text::one_line(&typed.to_string_lossy());
            Err(Error::new(Kind::Usage, format!("{typed} is no path below the project"))
                .hint("without paths the whole work tree is meant"))
        }
    }
}

/// Without `.` and `..`; `None` for what is empty then, or leads out.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if plain.pop() => {}
            Component::Normal(name) => plain.push(name),
            _ => return None,
        }
    }
    (!plain.as_os_str().is_empty()).then_some(plain)
}

fn version(printer: &Printer) -> u8 {
    #[derive(serde::Serialize)]
    struct Version {
        version: &'static str,
        protocol: u32,
    }
    let version = Version { version: env!("CARGO_PKG_VERSION"), protocol: protocol::VERSION };
    if printer.json {
        printer.document(&version);
    } else {
        printer.line(&format!("vcodingctl {} (protocol {})", version.version, version.protocol));
    }
    0
}

/// Where the daemon is, and which workspace is meant.
#[derive(Debug)]
pub struct Session {
    pub places: Places,
    workspace: Option<String>,
    project: Option<PathBuf>,
}

impl Session {
    fn new(global: &Global) -> Result<Self, Error> {
        let mut places = Places::from_env()?;
        if let Some(socket) = &global.socket {
            places.explicit_socket = Some(socket.clone());
        }
        Ok(Self { places, workspace: global.workspace.clone(), project: global.project.clone() })
    }

    /// Whether the command line says which project is meant.
    pub fn names_project(&self) -> bool {
        self.project.is_some()
    }

    /// The daemon, started if there is none.
    pub fn daemon(&self) -> Result<Client, Error> {
        start::connect_or_start(&self.places, crate::printer::of_the_daemon)
    }

    /// The workspace that is meant: `-w`, or the project's.
    pub fn workspace(&self) -> Result<WorkspaceRef, Error> {
        match &self.workspace {
            Some(name) if self.project.is_none() => Ok(WorkspaceRef::Name(name.clone())),
            _ => Ok(WorkspaceRef::Project(ProjectRef { project: self.project()?, name: self.name()? })),
        }
    }

    /// `-w` as it was typed.
    pub fn named(&self) -> Option<&str> {
        self.workspace.as_deref()
    }

    /// `-w` as a workspace's name.
    pub fn name(&self) -> Result<Option<protocol::WorkspaceName>, Error> {
        let parse = |text: &String| {
            text.parse().map_err(|e: protocol::names::InvalidName| Error::new(Kind::Usage, e.to_string()))
        };
        self.workspace.as_ref().map(parse).transpose()
    }

    /// Paths as typed here, for the daemon: relative to the project.
    pub fn paths(&self, typed: &[OsString]) -> Result<Vec<Bytes>, Error> {
        let here = std::env::current_dir().and_then(|here| here.canonicalize()).ok();
        let project = if self.workspace.is_some() && self.project.is_none() { None } else { self.project().ok() };
        typed.iter().map(|path| below(path, here.as_deref(), project.as_deref())).collect()
    }

    /// The project: `--project`, else the nearest ancestor with a vcoding.toml or a .git, else
    /// the current directory if it has a Dockerfile.
    pub fn project(&self) -> Result<PathBuf, Error> {
        let unreadable = |path: &Path, e: std::io::Error| {
            Error::new(Kind::NoProject, format!("{}: {e}", path.display())).hint("cd to your project")
        };
        if let Some(path) = &self.project {
            return path.canonicalize().map_err(|e| unreadable(path, e));
        }
        let here = std::env::current_dir().map_err(|e| unreadable(Path::new("."), e))?;
        let here = here.canonicalize().map_err(|e| unreadable(&here, e))?;
        let marked = |dir: &&Path| dir.join("vcoding.toml").exists() || dir.join(".git").exists();
        if let Some(found) = here.ancestors().find(marked) {
            return Ok(found.to_owned());
        }
        if here.join("Dockerfile").exists() {
            return Ok(here);
        }
        Err(Error::new(Kind::NoProject, format!("{} is no project: neither it nor a directory above has a vcoding.toml or a .git, and it has no Dockerfile", here.display()))
            .hint("cd to your project; or vcodingctl init, which makes this one; or -w NAME (vcodingctl ls lists them)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_where_they_are_typed() {
        let (here, project) = (Path::new("/p/src/deep"), Path::new("/p"));
        let ask = |typed: &str| below(OsStr::new(typed), Some(here), Some(project)).ok();
        let path = |text: &str| Some(Bytes::from(OsString::from(text)));
        assert_eq!(ask("a.rs"), path("src/deep/a.rs"));
        assert_eq!(ask("./../a.rs"), path("src/a.rs"));
        assert_eq!(ask("/p/README"), path("README"));
        for outside in ["../../../x", "../../..", "/q/x", "/p"] {
            assert_eq!(ask(outside), None, "{outside}");
        }
        let elsewhere = below(OsStr::new("a/b"), Some(Path::new("/q")), Some(project)).ok();
        assert_eq!(elsewhere, path("a/b"), "from outside they are the project's");
        assert_eq!(below(OsStr::new("a/b"), Some(here), None).ok(), path("a/b"));
    }
}
