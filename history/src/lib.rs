//! A directory's past: checkpoints of a work tree that a stranger writes to, in a bare git repository that only the host touches.
//!
//! Start at [`History`]. [`History::import`] copies a project in and makes the first checkpoint; [`History::checkpoint`] records the
//! work tree as it is; [`History::diff`] and [`History::rollback`] compare and go back; [`History::publish`] takes the work home as a
//! branch of the user's repository.
//!
//! How a checkpoint is made: `walk` finds the names and applies the [`rules`], `scan` reads what the `cache` does not vouch for,
//! `assemble` makes trees of it, `pack` makes all new objects durable at once, and then one reference moves. Nothing here runs a
//! hook, a filter or any other program, reads an attribute or configuration from the work tree, or follows a link in it.

#![forbid(unsafe_code)]

mod assemble;
mod cache;
mod changed;
mod checkpoint;
mod commit;
mod compare;
mod diff;
mod error;
mod files;
mod graft;
mod history;
mod id;
mod import;
mod included;
mod leftover;
mod modes;
mod names;
mod notes;
mod obeyed;
mod object;
mod origin;
mod pack;
mod project;
mod publish;
mod record;
mod rollback;
pub mod rules;
mod scan;
mod store;
mod text;
mod tree;
mod walk;

pub use changed::Standing;
pub use checkpoint::{Activity, Checkpointed};
pub use commit::{Checkpoint, Meta};
pub use diff::{Diff, FileChange, MAX_PATCH};
pub use error::{Error, Result};
pub use history::{History, Owner, Settings};
pub use id::{Id, NotAnId};
pub use import::Imported;
pub use included::included_secrets;
pub use leftover::Leftovers;
pub use names::{is_git_directory, show};
pub use notes::{Class, Named, Note, Notes};
pub use obeyed::Obeyed;
pub use publish::{Publish, Published};
pub use rollback::{Rollback, RolledBack};
