//! What is said on vcodingd's socket: types and nothing else.
//!
//! JSON-RPC 2.0, one message a line, UTF-8, at most [`MAX_LINE`] bytes a line. Each method is a
//! type that implements [`Method`]: its name, its parameters, its result. [`methods::catalogue`]
//! lists them all, and `rpc.discover` serves that list as an OpenRPC document.
//!
//! History of [`VERSION`]:
//! - 1 (2026-11): the first.

#![forbid(unsafe_code)]

pub mod audit;
pub mod bytes;
pub mod checkpoint;
pub mod consent;
pub mod daemon;
pub mod doctor;
pub mod error;
pub mod event;
pub mod examples;
pub mod exec;
pub mod message;
pub mod methods;
pub mod names;
pub mod run;
pub mod secret;
pub mod time;
pub mod transfer;
pub mod workspace;

pub use bytes::Bytes;
pub use error::{Error, Kind};
pub use methods::Method;
pub use names::{RunId, WorkspaceId, WorkspaceName, WorkspaceRef};
pub use time::Timestamp;

/// The protocol's major version. Within it, methods and result fields are only added.
pub const VERSION: u32 = 1;

/// The longest line either side may send, in bytes, the newline included.
pub const MAX_LINE: usize = 4 * 1024 * 1024;

/// The most descriptors one line may carry (`exec.start` sends three).
pub const MAX_DESCRIPTORS: usize = 4;
