//! The real program against a daemon that says what it is told: what people and programs see.

mod commands;
mod errors;
mod fake;
mod following;
mod samples;
mod snapshot;
mod vcodingctl;
mod wizard;
