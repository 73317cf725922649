//! The typed client of vcodingd's socket: find it, start it, call it.
//!
//! Blocking and small: `vcodingctl` and the tests are its users. [`places`] says where state,
//! configuration and socket lie (the daemon asks it too, so that both look at one spot),
//! [`start`] makes sure that a daemon listens there, [`Client`] speaks to it.

#![forbid(unsafe_code)]

mod connection;
pub mod places;
pub mod start;

pub use connection::Client;
pub use places::Places;
