//! The daemon's rooms; ARCHITECTURE.md is the map, and says which may use which.

#![forbid(unsafe_code)]

pub mod audit;
pub mod config;
pub mod daemon;
pub mod exec;
pub mod rpc;
pub mod store;
