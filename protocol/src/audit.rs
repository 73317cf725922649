//! `audit.*`: who did what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A call that changed something, or was to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// A ULID; entries of earlier versions have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// When it was answered.
    pub time: Timestamp,
    /// The caller's, as the kernel told.
    pub uid: u32,
    pub pid: i32,
    pub method: String,
    /// The workspace, run or project's path that the call names, as it names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `ok`, or the error's kind.
    pub outcome: String,
    pub took_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditSearchParams {
    /// Not before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Not after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// This method, or this group of methods: `workspace.up`, `workspace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// What was done to this workspace (name or id, also one that is gone), its runs and its project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Only what failed or was refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// The newest so many; 100 by default, at most 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditList {
    /// Oldest first.
    pub entries: Vec<AuditEntry>,
    /// There are older ones that fit.
    pub truncated: bool,
}
