//! What the host and the program in the guest say to each other.
//!
//! The program (`src/main.rs`) is PID 1, login shell and supervisor of a guest. The host speaks to
//! it in two ways only: by [`frame`]s over an SSH session's standard input, and by the files of a
//! [`run`]'s directory. Both begin with a version; a daemon speaks the current and earlier ones.
//! What comes from the guest is text from a stranger: every reader here is bounded.

#![forbid(unsafe_code)]

pub mod frame;
pub mod places;
pub mod run;

pub use frame::{Frame, Job};
