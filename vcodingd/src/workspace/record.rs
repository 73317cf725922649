//! What is kept of a workspace: in the store, and beside its history as `record.json`, so that a
//! lost store can be rebuilt.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::{Kind, Timestamp, WorkspaceId, WorkspaceName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::failure;
use super::machine::Intent;
use crate::config::Run;
use crate::provider::{GuestSpec, ImageId, Limits, User};
use crate::store;

/// The copy beside the history.
const COPY: &str = "record.json";
/// A longer one is none of ours.
const MAX_COPY: u64 = 4 << 20;

/// A workspace, as it survives the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceRecord {
    pub id: WorkspaceId,
    /// Grows with every change: of two records the later.
    pub revision: u64,
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
    /// References or ids of images that go unless they become its own: those that it had before, and one that is being made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<String>,
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
    /// Its VOLUMEs, which lie in memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
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
    #[serde(default = "default_disk")]
    pub disk: u64,
    /// What was asked for, where this computer gives less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files_asked: Option<u32>,
}

/// Of a workspace that was made before there was a limit.
fn default_disk() -> u64 {
    crate::config::Limits::default().disk
}

impl store::Record for WorkspaceRecord {
    const TABLE: &'static str = "workspaces";
    /// 2: `revision`.
    const VERSION: u8 = 2;

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn upgrade(mut record: Value, from: u8) -> Value {
        if let (0..=1, Value::Object(fields)) = (from, &mut record) {
            fields.insert("revision".into(), 0.into());
        }
        record
    }
}

/// The copy's form.
#[derive(Serialize)]
struct Copy<'a> {
    version: u8,
    #[serde(flatten)]
    record: &'a WorkspaceRecord,
}

impl WorkspaceRecord {
    /// References of all its images that were not removed.
    pub fn images(&self) -> Vec<String> {
        self.image.iter().map(|image| image.reference.clone()).chain(self.superseded.iter().cloned()).collect()
    }

    /// Writes the copy into the directory that no guest sees; durable when this returns. Blocking.
    ///
    /// # Errors
    /// The path is in the error.
    pub fn write_copy(&self, host: &Path) -> Result<(), protocol::Error> {
        let path = host.join(COPY);
        let copy = Copy { version: <Self as store::Record>::VERSION, record: self };
        let text = serde_json::to_vec(&copy).map_err(|e| protocol::Error::new(Kind::Internal, e.to_string()))?;
        write_synced(&path, 0o600, &text).map_err(|e| failure::of_file(&path, &e))
    }

    /// Reads the copy, of this version or an earlier one.
    ///
    /// # Errors
    /// What cannot be read, is no record, or was written by a newer daemon.
    pub fn read_copy(host: &Path) -> std::io::Result<Self> {
        let mut text = Vec::new();
        std::fs::File::open(host.join(COPY))?.take(MAX_COPY).read_to_end(&mut text)?;
        let copy: Value = serde_json::from_slice(&text)?;
        // The first version did not say so.
        let version = copy.get("version").and_then(Value::as_u64).unwrap_or(1);
        match u8::try_from(version) {
            Ok(version) if version <= <Self as store::Record>::VERSION => Ok(store::read_record(copy, version)?),
            _ => Err(std::io::Error::other(format!("it was written by a newer vcodingd (version {version})"))),
        }
    }

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
                file_size: self.limits.disk,
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

    /// Whether what a guest writes to is where it is mounted from.
    pub fn mounted_are_there(&self) -> bool {
        let there = |path: PathBuf| std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
        there(self.tree()) && there(self.home()) && there(self.run())
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

    /// A copy of the first version stays readable, and is written as one of this.
    #[test]
    fn a_copy_of_version_1_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let first: Value = serde_json::from_str(include_str!("testdata/record-1.json")).unwrap();
        std::fs::write(dir.path().join(COPY), first.to_string()).unwrap();
        let record = WorkspaceRecord::read_copy(dir.path()).unwrap();
        assert_eq!((record.name.as_str(), record.rest, record.revision), ("shop", Rest::Ready, 0));
        record.write_copy(dir.path()).unwrap();
        let mut written: Value = serde_json::from_slice(&std::fs::read(dir.path().join(COPY)).unwrap()).unwrap();
        assert_eq!(WorkspaceRecord::read_copy(dir.path()).unwrap(), record);
        let fields = written.as_object_mut().unwrap();
        assert_eq!((fields.remove("version"), fields.remove("revision")), (Some(2.into()), Some(0.into())));
        let disk = written["limits"].as_object_mut().unwrap().remove("disk");
        assert_eq!(disk, Some(default_disk().into()), "there was no limit then");
        assert_eq!(written, first);
        std::fs::write(dir.path().join(COPY), r#"{"version":3,"id":"new"}"#).unwrap();
        assert!(WorkspaceRecord::read_copy(dir.path()).unwrap_err().to_string().contains("newer vcodingd"));
    }
}
