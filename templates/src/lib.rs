//! What vcoding brings along as data: the manifests of the agents it knows.

#![forbid(unsafe_code)]

/// The agents' manifests: name and TOML.
pub const AGENTS: &[(&str, &str)] = &[("claude", include_str!("../agents/claude.toml"))];
