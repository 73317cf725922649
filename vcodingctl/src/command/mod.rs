//! A module a command group: arguments → call → rendering.

mod daemon;
mod workspace;

use std::path::{Path, PathBuf};

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
        Command::Ls => workspace::ls(&session, printer),
        Command::Daemon { command } => daemon::run(*command, &session, printer),
        Command::Version => {
            printer.line(&format!("vcodingctl {}", env!("CARGO_PKG_VERSION")));
            Ok(0)
        }
        _ => Err(Error::new(Kind::Usage, "this command is not there yet").hint("vcodingctl --help").into()),
    }
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
        let parse = |text: &String| text.parse().map_err(|e: protocol::names::InvalidName| Error::new(Kind::Usage, e.to_string()));
        self.workspace.as_ref().map(parse).transpose()
    }

    /// The project: `--project`, else the nearest ancestor with a vcoding.toml or a .git, else
    /// the current directory if it has a Dockerfile.
    pub fn project(&self) -> Result<PathBuf, Error> {
        let unreadable = |path: &Path, e: std::io::Error| Error::new(Kind::NoProject, format!("{}: {e}", path.display())).hint("cd to your project");
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
