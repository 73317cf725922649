//! What a repository asks for that only its user may grant.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Bytes;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsentShowParams {
    /// An absolute path.
    pub project: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsentSetParams {
    /// An absolute path.
    pub project: PathBuf,
    /// Of what was shown: what has changed since is not agreed to.
    pub hash: String,
    /// False takes an earlier consent to the wishes and to the included secrets back.
    pub agree: bool,
}

/// What is asked for, and whether that is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Consent {
    /// Of everything that is asked for, as it is now.
    pub hash: String,
    /// Files that decide how a guest is made and hold what was not agreed to since an agent's work came home; relative to the
    /// project.
    pub files: Vec<String>,
    /// What vcoding.toml asks for beyond the defaults.
    pub wishes: Vec<Wish>,
    /// Files that look like secrets, and that .vcodinginclude lets in all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Included>,
    /// Nothing waits for the user.
    pub agreed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wish {
    /// As it is written in vcoding.toml: `[limits] memory`.
    pub key: String,
    pub value: String,
    /// What holds without consent.
    pub default: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Included {
    /// Relative to the project.
    pub path: Bytes,
    /// What it is taken for.
    pub why: String,
}
