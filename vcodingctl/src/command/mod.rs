//! A module a command group: arguments → call → rendering.

mod apply;
mod daemon;
mod exec;
mod follow;
mod history;
mod names;
mod run;
mod secret;
mod workspace;

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use client::{Client, Places, start};
use protocol::names::ProjectRef;
use protocol::{Error, Kind, WorkspaceRef};

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
        Command::Up { rebuild } => workspace::up(*rebuild, &session, printer),
        Command::Run(args) => run::run(args, &session, printer),
        Command::Runs { all } => run::runs(*all, &session, printer),
        Command::Logs { run, follow } => run::logs(run, *follow, &session, printer),
        Command::Cancel { run } => run::cancel(run, &session, printer),
        Command::Checkpoint { label } => history::checkpoint(label.clone(), &session, printer),
        Command::Log { limit } => history::log(*limit, &session, printer),
        Command::Diff { from, to, stat, paths } => {
            let compare = history::Compare { from: from.as_deref(), to: to.as_deref(), stat: *stat, paths };
            history::diff(&compare, &session, printer)
        }
        Command::Rollback { to, paths } => history::rollback(to, paths, &session, printer),
        Command::Apply { branch } => apply::run(branch.clone(), &session, printer),
        Command::Ls => workspace::ls(&session, printer),
        Command::Show => workspace::show(&session, printer),
        Command::Start => workspace::start(&session, printer),
        Command::Stop => workspace::stop(&session, printer),
        Command::Destroy { force, purge } => workspace::destroy(*force, *purge, &session, printer),
        Command::Secret { command } => secret::run(command, &session, printer),
        Command::Daemon { command } => daemon::run(*command, &session, printer),
        Command::Completion { shell } => Ok(completion(*shell, printer)),
        Command::Version => Ok(version(printer)),
        Command::Exec(args) => exec::exec(args, &session),
        Command::Shell => exec::shell(&session),
    }
}

fn completion(shell: clap_complete::Shell, printer: &Printer) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "vcodingctl", &mut script);
    printer.raw(&script);
    0
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

    /// The daemon, started if there is none.
    pub fn daemon(&self) -> Result<Client, Error> {
        start::connect_or_start(&self.places)
    }

    /// The workspace that is meant: `-w`, or the project's.
    pub fn workspace(&self) -> Result<WorkspaceRef, Error> {
        match &self.workspace {
            Some(name) if self.project.is_none() => Ok(WorkspaceRef::Name(name.clone())),
            _ => Ok(WorkspaceRef::Project(ProjectRef { project: self.project()?, name: self.name()? })),
        }
    }

    /// `-w` as a workspace's name.
    pub fn name(&self) -> Result<Option<protocol::WorkspaceName>, Error> {
        let parse = |text: &String| {
            text.parse().map_err(|e: protocol::names::InvalidName| Error::new(Kind::Usage, e.to_string()))
        };
        self.workspace.as_ref().map(parse).transpose()
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
            .hint("cd to your project, or name a workspace with -w (vcodingctl ls lists them)"))
    }
}
