//! The crate against a real file system, with a stranger at work in it.

mod files;
mod race;
mod removal;
mod usage;
