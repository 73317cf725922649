//! What a guest may reach: its model endpoint, and nothing else.
//!
//! ```text
//! agent ── PID 1 of the guest ── forwarded connection ──▶ serve ──▶ Client ──▶ the provider
//!          (token of its run)                              │ Gate: is it a live run's token?
//!                                                          │ judge: does the body make the
//!                                                          │        provider an exit?
//!                                                          │ headers: those that are known
//!                                                          └ the key goes in, the usage is counted
//! ```
//!
//! The guest holds a [`Token`] that is worth nothing elsewhere; the key never enters it. Streams
//! pass unbuffered, nothing is tried twice, and neither key nor text of either side is logged.

mod client;
mod endpoint;
mod gate;
mod headers;
mod judge;
mod meter;
mod policy;
mod proxy;
#[cfg(test)]
mod tests;
mod token;
mod usage;

pub use client::Client;
pub use endpoint::{Endpoint, InvalidEndpoint, Wire};
pub use gate::Gate;
pub use proxy::serve;
pub use token::{Fingerprint, Token};
pub use usage::{Counts, Failure, Usage};
