//! What is forbidden, allowed or named, as data.

use serde::Deserialize;

/// The files of `policies/obeyed.toml` with one reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Obeyed {
    pub why: String,
    /// A pattern, and a path that it is for.
    pub files: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rules: Vec<Obeyed>,
}

/// The files that programs run or obey unasked.
#[must_use]
pub fn obeyed() -> Vec<Obeyed> {
    let file: File = toml::from_str(include_str!("../policies/obeyed.toml")).expect("a test reads it");
    file.rules
}
