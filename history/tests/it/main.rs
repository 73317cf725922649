//! A history over real directories, with git as the judge.

mod arena;
mod changed;
mod checkpoint;
mod diff;
mod faithful;
mod import;
mod publish;
mod rollback;
