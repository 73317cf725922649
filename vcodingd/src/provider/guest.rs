//! What a guest and an image are, in no engine's words.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::{WorkspaceId, WorkspaceName};

/// Everything that decides how a guest is made. Two equal specs make the same guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestSpec {
    pub id: WorkspaceId,
    /// By which the guest is known as ours again; in our record of it, too.
    pub nonce: String,
    /// Also the guest's host name, as far as the kernel takes it.
    pub name: WorkspaceName,
    pub image: ImageId,
    pub user: User,
    /// The real path of the state directory; every bind lies beneath it.
    pub state_dir: PathBuf,
    /// The hash that names the helper's directory, `store/guest/<hash>`.
    pub helper: String,
    /// What follows `vcoding-guest init`.
    pub init_args: Vec<String>,
    pub limits: Limits,
}

/// Who a guest's processes are, as this host counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes; swap is not added to it.
    pub memory: u64,
    /// Thousandths of a processor.
    pub milli_cpus: u64,
    pub pids: u32,
    /// Bytes of one file.
    pub file_size: u64,
    pub open_files: u32,
}

/// One of our mounts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bind {
    pub target: String,
    pub source: PathBuf,
    pub writable: bool,
}

impl GuestSpec {
    /// Our binds, and no others. The paths are computed from the id, never read from a label.
    pub fn binds(&self) -> Vec<Bind> {
        binds(&self.state_dir, &self.id, &self.helper)
    }
}

/// The binds of a workspace's guest with the helper named `helper`.
pub(super) fn binds(state_dir: &Path, id: &WorkspaceId, helper: &str) -> Vec<Bind> {
    let own = state_dir.join("workspaces").join(id.as_str());
    let store = state_dir.join("store");
    let bind = |target: &str, source: PathBuf, writable| Bind { target: target.to_owned(), source, writable };
    vec![
        bind("/work", own.join("tree"), true),
        bind("/home/work", own.join("home"), true),
        bind("/run/vcoding", own.join("run"), true),
        bind("/etc/vcoding", own.join("etc"), false),
        bind("/etc/passwd", own.join("etc/passwd"), false),
        bind("/etc/group", own.join("etc/group"), false),
        bind("/opt/vcoding/bin", store.join("guest").join(helper), false),
        bind("/opt/vcoding/agents", store.join("agents"), false),
    ]
}

/// An image's content id, `sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageId(pub String);

/// What an image says about itself: text from a stranger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    pub id: ImageId,
    pub names: Vec<String>,
    /// As written in the image: a name, a number, or `user:group`; empty means root.
    pub user: String,
    /// `NAME=value`, in the image's order.
    pub env: Vec<String>,
    pub working_dir: String,
    pub volumes: Vec<String>,
    pub on_build: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub architecture: String,
}

/// A build's input. `context` is a tar archive, read from its start.
#[derive(Debug)]
pub struct BuildSpec {
    pub context: File,
    /// The Dockerfile's name within the context.
    pub dockerfile: String,
    pub target: Option<String>,
    pub args: BTreeMap<String, String>,
    pub tag: String,
    pub labels: BTreeMap<String, String>,
    pub no_cache: bool,
    /// Whose the directories of `RUN --mount=type=cache` are: builds of another word find others there. None are
    /// wanted if it is empty.
    pub caches: String,
    /// How long it may take.
    pub limit: Duration,
}

/// What a build says while it runs. Names and lines are text from a stranger, of bounded length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// `step` counts from 1 in the order in which steps began.
    Started {
        step: u32,
        name: String,
    },
    Cached {
        step: u32,
        name: String,
    },
    Log {
        step: u32,
        line: String,
    },
    Done {
        step: u32,
        elapsed_ms: u64,
    },
    Failed {
        step: u32,
        cause: String,
    },
}

/// How closely to look at a path in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look<'a> {
    /// What it is.
    At(&'a str),
    /// And what is in it, if it is a regular file.
    Into(&'a str),
}

impl<'a> Look<'a> {
    pub fn path(self) -> &'a str {
        match self {
            Self::At(path) | Self::Into(path) => path,
        }
    }
}

/// What lies at a path in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    pub kind: PathKind,
    /// A regular file's bytes, if it was looked into.
    pub content: Option<Vec<u8>>,
}

impl Peeked {
    /// A longer file is an error, not a shorter answer.
    pub const MAX_FILE: usize = 1 << 20;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    Missing,
    File,
    Directory,
    Link,
    Other,
}

/// The engine, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    pub name: String,
    pub version: String,
    pub storage_driver: String,
    pub rootless: bool,
    pub seccomp: bool,
    /// Whether limits on processes and memory are kept.
    pub pids_limit: bool,
    pub memory_limit: bool,
    pub cgroup_version: u8,
}

/// A guest as its engine reports it, after its claim to be ours was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    pub id: WorkspaceId,
    pub name: String,
    pub image: ImageId,
    pub state: GuestState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestState {
    Created,
    Running {
        pid: i32,
    },
    Paused {
        pid: i32,
    },
    Exited {
        code: i64,
        out_of_memory: bool,
    },
    /// Being removed, or broken in the engine: only removing it helps.
    Dead,
}

impl GuestState {
    /// One word for people.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running { .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Exited { .. } => "stopped",
            Self::Dead => "dead",
        }
    }
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitProcess {
    pub pid: i32,
    /// Clock ticks after the host's start (field 22 of /proc/PID/stat).
    pub start_time: u64,
    /// The inode of its pid namespace, where the daemon may see it: as root.
    pub pid_namespace: Option<u64>,
}

impl InitProcess {
    /// The inode of a process's pid namespace, for those who may see it.
    pub fn pid_namespace_of(pid: i32) -> Option<u64> {
        std::fs::metadata(format!("/proc/{pid}/ns/pid")).ok().map(|namespace| namespace.ino())
    }
}

/// A name of an image, and what the image takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    pub name: String,
    /// With layers that others share.
    pub bytes: u64,
}
