//! What may be configured: the repository's vcoding.toml and the user's config.toml, parsed
//! once into types that cannot be wrong.
//!
//! vcoding.toml is the repository's word: what it may decide alone is taken; what goes beyond
//! the defaults is a wish, and nothing comes of it before the user has agreed (the workspace's
//! room asks). What this version cannot do is refused by name, not ignored.

mod project;
mod user;

pub use project::{Limits, Project, Run};
pub use user::User;

use std::path::PathBuf;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path} cannot be read: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// The parser's message names the line.
    #[error("{path}: {why}")]
    Mistake { path: PathBuf, why: String },
    #[error("{path} asks for what this version cannot do: {}", .what.join("; "))]
    Unsupported { path: PathBuf, what: Vec<String> },
}

/// What the parser says, on one line, and on which line of the file.
fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let what = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        match error.span().and_then(|span| text.get(..span.start)) {
            Some(before) => format!("line {}: {what}", before.matches('\n').count() + 1),
            None => what,
        }
    })
}

/// A size as people write it: `4g`, `512m`, `65536`; in bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        "t" | "tb" => 1 << 40,
        _ => return Err(format!("{text:?} is not a size; write it like \"512m\" or \"4g\"")),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale))
        .ok_or_else(|| format!("{text:?} is not a size; write it like \"512m\" or \"4g\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("4g"), Ok(4 << 30));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("65536"), Ok(65536));
        for bad in ["", "g", "4x", "-1", "99999999999999t"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
