//! What is kept of a workspace: in the store, and beside its history as `record.json`, so that a
//! lost store can be rebuilt.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::{Timestamp, WorkspaceId, WorkspaceName};
use serde::{Deserialize, Serialize};

use super::machine::Intent;
use crate::config::Run;
use crate::provider::{GuestSpec, ImageId, Limits, User};
use crate::store;

/// A workspace, as it survives the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceRecord {
    pub id: WorkspaceId,
    pub name: WorkspaceName,
    /// The project's real path.
    pub project: PathBuf,
    pub created: Timestamp,
    /// Random; a container is ours only if the record beside its directories has it too.
    pub nonce: String,
    pub uid: u32,
    pub gid: u32,
    pub rest: Rest,
    /// The operation under way; written before its first step and gone after its last.
    #[serde(default)]
    pub intent: Option<Intent>,
    /// Why the last operation failed, until one succeeds.
    #[serde(default)]
    pub problem: Option<String>,
    #[serde(default)]
    pub image: Option<ImageRecord>,
    /// The hash of the helper that the guest was made with.
    #[serde(default)]
    pub helper: String,
    pub limits: LimitsRecord,
    /// Files over this many bytes stay out of the history.
    pub max_file: u64,
    pub default_agent: String,
    #[serde(default)]
    pub models: std::collections::BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Run::is_empty")]
    pub run: Run,
}

/// Where a workspace is when no operation is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// Its first `up` has not come to its end.
    New,
    /// Its guest is to run.
    Ready,
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// `sha256:…`.
    pub id: String,
    /// `vcoding/<name>:<hash>`.
    pub reference: String,
    /// Of the Dockerfile and vcoding.toml it was made from.
    pub source: String,
    /// The image's ENV.
    pub env: Vec<String>,
    /// Where commands begin.
    pub directory: String,
    /// The user's shell.
    pub shell: String,
    /// Its C library is musl; else glibc.
    #[serde(default)]
    pub musl: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsRecord {
    pub memory: u64,
    pub milli_cpus: u64,
    pub pids: u32,
    pub open_files: u32,
}

impl store::Record for WorkspaceRecord {
    const TABLE: &'static str = "workspaces";
    const VERSION: u8 = 1;

    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl WorkspaceRecord {
    pub fn user(&self) -> User {
        User { uid: self.uid, gid: self.gid }
    }

    /// The guest that this record asks for; `None` before there is an image.
    pub fn spec(&self, state_dir: &Path) -> Option<GuestSpec> {
        let image = self.image.as_ref()?;
        Some(GuestSpec {
            id: self.id.clone(),
            nonce: self.nonce.clone(),
            name: self.name.clone(),
            image: ImageId(image.id.clone()),
            user: self.user(),
            state_dir: state_dir.to_owned(),
            helper: self.helper.clone(),
            init_args: ["--model-port", MODEL_PORT_TEXT, "--relay-port", RELAY_PORT_TEXT].map(str::to_owned).into(),
            limits: Limits {
                memory: self.limits.memory,
                milli_cpus: self.limits.milli_cpus,
                pids: self.limits.pids,
                open_files: self.limits.open_files,
            },
        })
    }
}

/// Where PID 1 of a guest listens for model requests; a guest has a loopback of its own.
pub const MODEL_PORT: u16 = 4100;
const MODEL_PORT_TEXT: &str = "4100";
/// Where it hands them to the daemon's remote forward.
pub const RELAY_PORT: u16 = 4101;
const RELAY_PORT_TEXT: &str = "4101";

/// A workspace's directories beneath the state directory.
#[derive(Debug, Clone)]
pub struct Places {
    /// `workspaces/<id>`.
    pub own: PathBuf,
}

impl Places {
    pub fn of(state_dir: &Path, id: &WorkspaceId) -> Self {
        Self { own: state_dir.join("workspaces").join(id.as_str()) }
    }

    pub fn tree(&self) -> PathBuf {
        self.own.join("tree")
    }

    pub fn home(&self) -> PathBuf {
        self.own.join("home")
    }

    pub fn run(&self) -> PathBuf {
        self.own.join("run")
    }

    pub fn etc(&self) -> PathBuf {
        self.own.join("etc")
    }

    /// Never mounted.
    pub fn host(&self) -> PathBuf {
        self.own.join("host")
    }

    pub fn keys(&self) -> PathBuf {
        self.host().join("keys")
    }

    pub fn run_host(&self, run: &protocol::RunId) -> PathBuf {
        self.host().join("runs").join(run.as_str())
    }
}

/// Writes a file by a temporary beside it, synced, renamed into place, the directory synced.
///
/// # Errors
/// The path is not in the error; the caller names it.
pub fn write_synced(path: &Path, mode: u32, content: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().ok_or_else(|| std::io::Error::other("a file needs a directory"))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_that_init_is_told_are_the_ports() {
        assert_eq!(MODEL_PORT.to_string(), MODEL_PORT_TEXT);
        assert_eq!(RELAY_PORT.to_string(), RELAY_PORT_TEXT);
    }

    /// A record of the first version stays readable.
    #[test]
    fn a_record_of_version_1_is_read() {
        let text = include_str!("testdata/record-1.json");
        let record: WorkspaceRecord = serde_json::from_str(text).unwrap();
        assert_eq!(record.name.as_str(), "shop");
        assert_eq!(record.rest, Rest::Ready);
        assert_eq!(serde_json::to_value(&record).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
    }
}
