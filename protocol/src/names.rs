//! Names and identifiers, which cannot be constructed wrong.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName {
    what: &'static str,
    text: String,
    rule: &'static str,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = self.text.chars().take(80).collect();
        write!(f, "{text:?} is not a {}: {}", self.what, self.rule)
    }
}

impl std::error::Error for InvalidName {}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) { Ok(Self(text)) } else { Err(InvalidName { what: $what, text, rule: $rule }) }
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

fn is_ulid(text: &str) -> bool {
    // Crockford's base 32 without i, l, o, u; 26 digits hold 130 bits, so the first is at most 7.
    text.len() == 26
        && text.bytes().next().is_some_and(|b| b.is_ascii_digit() && b <= b'7')
        && text
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'h' | b'j' | b'k' | b'm' | b'n' | b'p'..=b't' | b'v'..=b'z'))
}

fn is_workspace_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 63
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && bytes.all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-'))
}

name_type!(
    /// A workspace's name: `[a-z0-9][a-z0-9_.-]{0,62}`, unique in one state directory.
    WorkspaceName, "workspace name",
    "lower-case letters, digits, '_', '.', '-', at most 63, the first a letter or digit",
    is_workspace_name
);
name_type!(
    /// A workspace's identity: a ULID in lower case. It is in paths and labels.
    WorkspaceId, "workspace id", "26 lower-case digits of a ULID", is_ulid
);
name_type!(
    /// A run's identity: a ULID in lower case.
    RunId, "run id", "26 lower-case digits of a ULID", is_ulid
);

impl WorkspaceName {
    /// The name that a project's directory suggests: lower-cased, other characters `-`.
    pub fn suggested_by(directory: &str) -> Self {
        let mut text: String = directory
            .chars()
            .map(|c| c.to_ascii_lowercase())
            .map(|c| if matches!(c, 'a'..='z' | '0'..='9' | '_' | '.' | '-') { c } else { '-' })
            .collect();
        text = text.trim_start_matches(['-', '_', '.']).to_owned();
        text.truncate(60);
        if text.is_empty() {
            text.push_str("project");
        }
        Self(text)
    }

    /// The same name with `-N` behind it, for when it is taken.
    pub fn numbered(&self, n: u32) -> Self {
        let suffix = format!("-{n}");
        let mut text = self.0.clone();
        text.truncate(63 - suffix.len());
        text.push_str(&suffix);
        Self(text)
    }
}

/// Which workspace a call means: its name or id, or the project it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum WorkspaceRef {
    /// A workspace's name or id.
    Name(String),
    /// The workspace of the project at this directory (its real path).
    Project(ProjectRef),
}

/// A project's directory, and which of its workspaces (default: the one made without `--from`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectRef {
    pub project: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<WorkspaceName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_contract_says() {
        for good in ["a", "0", "my-app_2.x", &"a".repeat(63)] {
            assert!(good.parse::<WorkspaceName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "A", "a/b", "a b", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<WorkspaceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_always_suggests_a_valid_name() {
        for (dir, name) in
            [("My App", "my-app"), ("", "project"), ("…", "project"), (".config", "config"), ("Ünïcode", "n-code")]
        {
            let suggested = WorkspaceName::suggested_by(dir);
            assert_eq!(suggested.as_str(), name, "{dir}");
            assert!(suggested.as_str().parse::<WorkspaceName>().is_ok());
        }
        let long = WorkspaceName::suggested_by(&"x".repeat(300)).numbered(4_000_000_000);
        assert!(long.as_str().parse::<WorkspaceName>().is_ok(), "{long}");
    }

    #[test]
    fn ids_are_lower_case_ulids_and_nothing_else() {
        assert!("01hf3zq8m3v9k5w1x2y3z4a5b6".parse::<WorkspaceId>().is_ok());
        for bad in [
            "",
            "01HF3ZQ8M3V9K5W1X2Y3Z4A5B6",
            "81hf3zq8m3v9k5w1x2y3z4a5b6",
            "01hf3zq8m3v9k5w1x2y3z4a5bi",
            "../../../../../../etc/pass",
        ] {
            assert!(bad.parse::<WorkspaceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_workspace_is_named_by_text_or_by_project() {
        let name: WorkspaceRef = serde_json::from_str("\"demo\"").unwrap();
        assert_eq!(name, WorkspaceRef::Name("demo".into()));
        let project: WorkspaceRef = serde_json::from_str(r#"{"project":"/p"}"#).unwrap();
        assert_eq!(project, WorkspaceRef::Project(ProjectRef { project: "/p".into(), name: None }));
        assert!(serde_json::from_str::<WorkspaceRef>(r#"{"project":"/p","nam":"x"}"#).is_err());
    }
}
