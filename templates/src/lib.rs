//! What vcoding brings along as data: the manifests of the agents it knows, what their providers may be asked, and the templates
//! that `vcodingctl init` makes a project's files from.
//!
//! A template is a directory: `template.toml` with a title and questions, and files whose names and contents are rendered. The
//! built-in ones have the very form that a user's own have.

#![forbid(unsafe_code)]

mod built_in;
mod policy;
mod render;
mod report;
mod template;

pub use policy::{Obeyed, obeyed};
pub use render::{Value, Variables};
pub use report::report;
pub use template::{Error, File, Project, Question, Template, given};

/// The agents' manifests: name and TOML.
pub const AGENTS: &[(&str, &str)] = &[("claude", include_str!("../agents/claude.toml"))];

/// What a provider may be asked with a user's key: the wire's name and TOML.
pub const POLICIES: &[(&str, &str)] = &[("anthropic", include_str!("../policies/anthropic.toml"))];

/// What a project may be for.
pub const PURPOSES: &[&str] = &["application", "library", "web service", "data"];

/// The names of the built-in templates, which are those of languages; `plain` is for any other.
pub const LANGUAGES: &[&str] = &["python", "node", "go", "rust", "java", "plain"];
