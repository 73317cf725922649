//! `transfer.*`: work going home.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bytes, WorkspaceRef};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyParams {
    pub workspace: WorkspaceRef,
    /// Default `vcoding/<workspace>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyResult {
    pub branch: String,
    /// The commit the branch points at, in the project's repository; absent if there was nothing
    /// to take home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The commit it grew from; absent where the project had none when it was copied in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The checkpoint it was made from.
    pub checkpoint: String,
    pub added: u64,
    pub changed: u64,
    pub deleted: u64,
    /// Files among them that something on the host may run or obey, with the reason.
    pub flagged: Vec<Flagged>,
    #[serde(default)]
    pub notes: Vec<String>,
    /// The project's HEAD has no commit yet: the branch can only be begun with.
    #[serde(default)]
    pub unborn: bool,
    /// Files of the project that git would refuse to write over when the branch is merged, since they are not committed; some of
    /// them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_the_way: Vec<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Flagged {
    pub path: Bytes,
    pub why: String,
}
