//! How things look: pure functions from the protocol's types to lines of text. Who prints them,
//! and where, is the [`crate::printer`]'s business.

pub mod events;
pub mod ink;
pub mod patch;
pub mod table;
pub mod text;
pub mod wall;
