//! `daemon.doctor`: what is wrong, with the command that mends it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Nothing is wrong; somebody may want to know.
    Note,
    /// It works, and will not for ever.
    Warning,
    /// Something does not work.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// `host`, `engine`, `daemon`, `keys`, `store`, `workspaces`, `disk`.
    pub area: String,
    pub severity: Severity,
    /// What is how.
    pub message: String,
    /// The command that mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    #[must_use]
    pub fn new(area: &str, severity: Severity, message: impl Into<String>) -> Self {
        Self { area: area.to_owned(), severity, message: message.into(), fix: None }
    }

    #[must_use]
    pub fn fix(mut self, command: impl Into<String>) -> Self {
        self.fix = Some(command.into());
        self
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoctorResult {
    /// By area, in the order above.
    pub findings: Vec<Finding>,
}
