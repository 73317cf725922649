//! The pages of docs/ that are made from the types.

mod errors;
mod protocol;
