//! What a repository asks for that only its user may grant.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// False takes an earlier consent to the wishes back.
    pub agree: bool,
}

/// What is asked for, and whether that is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Consent {
    /// Of everything that is asked for, as it is now.
    pub hash: String,
    /// Files that decide how a guest is made, came home with an agent's work and were not agreed
    /// to since; relative to the project.
    pub files: Vec<String>,
    /// What vcoding.toml asks for beyond the defaults.
    pub wishes: Vec<Wish>,
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
