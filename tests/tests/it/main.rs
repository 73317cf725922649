//! The product as its users have it: the built programs in a state directory of their own.
//!
//! `cargo xtask test` builds the programs first. A test that needs what this machine lacks says
//! `skipped: …` on standard error and passes.

mod daemon;
mod ending;
mod errors;
mod exact;
mod failing;
mod full;
mod images;
mod kill;
mod leaning;
mod losing;
mod main_job;
mod many;
mod ordinary;
mod power;
mod protocol;
mod replaced;
mod report;
mod run_claude;
mod samples;
mod scripting;
mod service;
mod walls;
mod world;
