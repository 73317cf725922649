//! `secret.*`: keys, kept on the host and out of every guest.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A key on its way to the daemon. No method answers with one, and it does not show in debug
/// output.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SecretValue(String);

impl SecretValue {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The key itself. Named so that a reader notices.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSetParams {
    /// The name of the environment variable that the key usually is in: `ANTHROPIC_API_KEY`.
    pub name: String,
    /// At most 64 KiB, not empty, without control characters.
    pub value: SecretValue,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRemoveParams {
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretList {
    pub secrets: Vec<SecretView>,
}

/// A key that is there; never its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretView {
    pub name: String,
    pub source: SecretSource,
    /// When it was set; absent for one from the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// `secret set` put it into the state directory.
    Kept,
    /// The daemon's environment has a variable of that name.
    Environment,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_crosses_the_socket_but_never_shows_in_debug_output() {
        let params = SecretSetParams { name: "K".into(), value: SecretValue::new("sk-1".into()) };
        assert_eq!(serde_json::to_string(&params).unwrap(), r#"{"name":"K","value":"sk-1"}"#);
        assert!(!format!("{params:?}").contains("sk-1"));
    }
}
