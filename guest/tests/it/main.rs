//! The guest's program where it belongs: as PID 1 and login shell of a sealed container, behind a
//! real sshd, driven by the real `ssh`.
//!
//! Without an engine each test says SKIPPED.

mod commands;
mod container;
mod runs;
mod trees;
mod wiring;
