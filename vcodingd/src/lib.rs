//! The daemon's rooms; ARCHITECTURE.md is the map, and says which may use which.

#![forbid(unsafe_code)]

pub mod agents;
pub mod audit;
pub mod config;
pub mod daemon;
pub mod egress;
pub mod exec;
pub mod image;
pub mod provider;
pub mod rpc;
pub mod runs;
pub mod secrets;
pub mod seldom;
pub mod ssh;
pub mod store;
pub mod timeline;
pub mod transfer;
pub mod workspace;
