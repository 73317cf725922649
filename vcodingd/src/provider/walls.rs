//! What really isolates a running guest, as the kernel reported it.

use super::guest::{InitProcess, User};

/// A started guest whose walls were compared and found as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walls {
    pub init: InitProcess,
    pub report: WallReport,
}

/// What was read from the kernel, for people. Everything here was compared already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WallReport {
    /// The network interfaces; only `lo` in a sealed guest.
    pub interfaces: Vec<String>,
    pub user: User,
    /// The union of all five sets; 0 in a sealed guest.
    pub capabilities: u64,
    pub no_new_privileges: bool,
    /// How many seccomp filters hold.
    pub seccomp_filters: u32,
    pub read_only_root: bool,
    /// What the guest shares with this host, as `target (ro|rw)`, in the order of the targets.
    pub shared: Vec<String>,
    /// Memory file systems, as `target size`.
    pub memory: Vec<String>,
    /// The engine's own files in the guest.
    pub engine_files: Vec<String>,
}

impl WallReport {
    /// The two lines that `up` prints.
    pub fn lines(&self) -> [String; 2] {
        let network = match self.interfaces.as_slice() {
            [lo] if lo == "lo" => "no network".to_owned(),
            others => format!("network {}", others.join(", ")),
        };
        let capabilities = if self.capabilities == 0 {
            "no capabilities".to_owned()
        } else {
            format!("capabilities {:#x}", self.capabilities)
        };
        let writable = self.shared.iter().filter_map(|s| s.strip_suffix(" (rw)")).collect::<Vec<_>>().join(", ");
        [
            format!(
                "sealed: {network}, uid {}, {capabilities}, {}, {} seccomp filter{}",
                self.user.uid,
                if self.no_new_privileges { "no new privileges" } else { "may gain privileges" },
                self.seccomp_filters,
                if self.seccomp_filters == 1 { "" } else { "s" },
            ),
            format!(
                "{} root; writable from here: {writable}",
                if self.read_only_root { "read-only" } else { "writable" }
            ),
        ]
    }
}
