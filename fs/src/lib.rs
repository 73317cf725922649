//! Files below a directory that a stranger may be writing to at the same moment.
//!
//! Everything here starts at a [`Root`], a directory held open, and names what lies below it by a relative path of plain names.
//! The kernel resolves such a path (`openat2` with `RESOLVE_BENEATH | NO_SYMLINKS | NO_MAGICLINKS | NO_XDEV`), so a link planted
//! anywhere in it is refused instead of followed, however fast it is swapped in; what then happens to the last name is an `*at` call
//! with a single component. No path is checked first and used after.
//!
//! - Files are opened with `O_NOFOLLOW | O_NONBLOCK` and must turn out to be regular: a fifo does not hang us. A file under a write
//!   lease answers `EAGAIN`; it is tried again against one [`Patience`] that a root shares with all it opens, then it is
//!   [`Error::Busy`].
//! - Files are never truncated, since that would write through a hard link to its other names: they are created new
//!   ([`Root::create_new`]) or written aside and renamed into place ([`Root::replace`]).
//! - Removal ([`Root::remove_all`]) holds the same few descriptors at any depth.
//!
//! Not held: a directory that is moved out of the root while a call works in it takes that call's effect along. A guest cannot do
//! that across its mount; whoever holds work trees must not move them while writing.

#![forbid(unsafe_code)]

mod entries;
mod error;
mod open;
mod remove;
mod replace;
mod root;
mod stat;
mod usage;

pub use entries::{Entries, Entry};
pub use error::{Error, Result};
pub use open::Patience;
pub use replace::{TEMPORARY_PREFIX, is_temporary};
pub use root::Root;
pub use stat::{Kind, Stat, Time};
pub use usage::Usage;
