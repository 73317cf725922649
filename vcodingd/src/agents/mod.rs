//! Agents: what they are, where their programs come from, how they are started, what their output says.
//!
//! ```text
//! manifest   TOML → Manifest: package and hash per platform, command, environment, endpoint
//! store      Manifest → program: fetched from the registry, verified, unpacked; shared, read-only
//!            for guests; no package manager, no script of a package is ever run
//! launch     Manifest + program + prompt → argv, environment, input of a guest's frame
//! parser     lines of output → events, and a verdict; one per output format
//! ```

mod claude;
mod fetch;
mod launch;
mod manifest;
mod parser;
mod store;
#[cfg(test)]
mod tests;
mod unpack;

use std::path::PathBuf;

pub use launch::{Launch, LaunchRequest, Session, Template, launch, session_of};
pub use manifest::{
    Arch, Command, Endpoint, Format, Integrity, Libc, Manifest, Package, Platform, Wire, find, manifests,
};
pub use parser::{MAX_EVENTS, MAX_LINE, MAX_OUTPUT, MAX_STRING, MAX_TEXT, Parser, Verdict, parser};
pub use store::{Installed, REGISTRY, Store};

/// Why an agent cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no agent {name:?}; known are: {}", .known.join(", "))]
    Unknown { name: String, known: Vec<String> },
    #[error("the agent manifest {} has a mistake: {why}", .path.display())]
    Manifest { path: PathBuf, why: String },
    #[error("there is no {what}")]
    Unsupported { what: String },
    /// May be better later, or with another registry in the configuration.
    #[error("{url} cannot be fetched: {why}")]
    Registry { url: String, why: String },
    /// Not what was pinned: never used, whoever changed it.
    #[error("{url} is not what the manifest pins: expected {expected}, got {found}")]
    Tampered { url: String, expected: Box<Integrity>, found: Box<Integrity> },
    #[error("the package {package} cannot be used: {why}")]
    Package { package: String, why: String },
    #[error("the agents' store: {0}")]
    Store(#[from] fs::Error),
    #[error("the agents' store cannot be written: {0}")]
    Write(#[from] std::io::Error),
}
