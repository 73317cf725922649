//! The way into a guest: keys, files, carriers, connections, a warm pool of them.
//!
//! ```text
//! keys ─ guest_files    what lies on both sides before the first byte
//! carrier               bytes: the guest's socket, or the engine's stream
//!   └─ connection       SSH over them, the guest's key pinned
//!        ├─ pool        some connections always warm; a command gets one, at best alone
//!        │    └─ session    one command's channel, and what becomes of its connection
//!        └─ forward     a port of the guest's loopback that ends here
//! ```
//!
//! The peer is hostile: it is held to one algorithm of each sort and to deadlines, what it opens
//! by itself is refused, and every queue that it fills is bounded, which at worst stops its own
//! connection.

mod carrier;
mod connection;
mod error;
mod forward;
mod guest_files;
mod keys;
mod pool;
mod session;

#[cfg(test)]
pub(crate) mod real;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use error::{Error, Result};
pub use forward::{Forward, Forwarded};
pub use guest_files::{GuestFiles, ModelPorts, write_guest_files};
pub use keys::Keys;
pub use pool::{Pool, Stalled, Target, Warming};
pub use session::{Company, Message, Pty, Reader, Session, Writer};
