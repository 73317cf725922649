//! Where a guest runs: one trait, its implementations, and the suite that all of them pass.
//!
//! ```text
//! Provider ── docker/   a sealed container of a local engine
//!          └─ fake/     guests in memory, for the workspace suite
//! ```
//!
//! A guest is named by its workspace's id; how a provider calls it is its own affair. Every call
//! has a deadline, may be repeated, and may be dropped: what was begun in the engine is found
//! again by the next call. Nothing here keeps state that a restart would lose.

mod claim;
#[cfg(test)]
mod contract;
pub mod docker;
mod error;
pub mod fake;
mod guest;
mod walls;

use std::fmt::Debug;
use std::time::Duration;

use futures_util::future::BoxFuture;
use protocol::WorkspaceId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub use claim::{Claim, ClaimedBind, is_ours, recorded_nonce};
pub use error::{Error, Result};
pub use guest::{
    Bind, BuildEvent, BuildSpec, Engine, Guest, GuestSpec, GuestState, ImageId, ImageInfo, InitProcess, Limits, Look,
    NamedImage, PathKind, Peeked, User,
};
pub use walls::{WallReport, Walls};

/// How much of a guest's `/run` there is; the engine's and the helper's small files.
pub const RUN_BYTES: u64 = 16 << 20;
/// How much of a guest's `/tmp` there is.
pub const TMP_BYTES: u64 = 1 << 30;
/// How much of each of the image's VOLUMEs there is.
pub const VOLUME_BYTES: u64 = 1 << 30;
/// How much shared memory a guest has.
pub const SHM_BYTES: u64 = 256 << 20;

/// SSH's bytes, both ways.
pub trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

/// A place where guests run.
pub trait Provider: Debug + Send + Sync {
    /// What the engine is and what it can do.
    fn probe(&self) -> BoxFuture<'_, Result<Engine>>;

    /// What is known of an image, by its name or id. [`Error::NoSuchImage`] if it is not here.
    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<ImageInfo>>;

    /// Builds an image. Events go to `progress`; a receiver that is slow slows the build, one
    /// that is gone is no error. [`Error::BuildFailed`] carries the step and the end of its output.
    fn build(&self, build: BuildSpec, progress: mpsc::Sender<BuildEvent>) -> BoxFuture<'_, Result<ImageId>>;

    /// Names an image once more.
    fn tag<'a>(&'a self, image: &'a ImageId, name: &'a str) -> BoxFuture<'a, Result<()>>;

    /// The images that have names which begin so, once for each name.
    fn images<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<NamedImage>>>;

    /// Removes an image's name, and the image with its last one. A missing one is fine.
    fn remove_image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<()>>;

    /// What lies at some paths in an image, none of whose code is run; in their order. Links above
    /// a path are followed within the image, one at its end is not. A file to be read that is
    /// longer than [`Peeked::MAX_FILE`] is [`Error::Refused`].
    fn peek<'a>(&'a self, image: &'a ImageId, looks: &'a [Look<'a>]) -> BoxFuture<'a, Result<Vec<Peeked>>>;

    /// Makes the guest, stopped. One that exists with the same spec is fine; one with another is
    /// [`Error::Conflict`].
    fn create<'a>(&'a self, spec: &'a GuestSpec) -> BoxFuture<'a, Result<()>>;

    /// Starts the guest and compares what the kernel reports of it with what was asked for. A
    /// difference stops it: [`Error::Breached`]. One that runs already is compared again.
    fn start<'a>(&'a self, spec: &'a GuestSpec) -> BoxFuture<'a, Result<Walls>>;

    /// TERM, and after `grace` KILL. One that is stopped is fine. A frozen one is thawed first.
    fn stop<'a>(&'a self, id: &'a WorkspaceId, grace: Duration) -> BoxFuture<'a, Result<()>>;

    /// Ends and removes the guest with what the engine keeps for it. A missing one is fine.
    fn remove<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<()>>;

    /// Freezes every process of the guest. A frozen one is fine.
    fn pause<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<()>>;

    /// Thaws it. One that is not frozen is fine.
    fn unpause<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<()>>;

    /// Ends every process of the running guest but its init, whatever they do to escape it.
    fn sweep<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<()>>;

    /// The guest as the engine knows it; `None` if there is none of ours.
    fn inspect<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<Option<Guest>>>;

    /// The guests of this state directory, each claim checked; what merely says so is left out.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Guest>>>;

    /// Removes what a daemon of this state directory that was killed left half-way in the engine; how many things. None by
    /// default.
    fn clean(&self) -> BoxFuture<'_, Result<usize>> {
        Box::pin(std::future::ready(Ok(0)))
    }

    /// The running guest's PID 1 as this host sees it.
    fn init_process<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<InitProcess>>;

    /// Whether this PID 1 is there still. A look at this host's processes, not at the engine.
    fn is_there(&self, init: &InitProcess) -> bool;

    /// How many processes of the guest whose PID 1 this is were ended, in this life of it, because all of them together used
    /// more memory than its limit. A look at this host's files, not at the engine; `None` where they do not tell (an engine in
    /// a machine of its own, say), and where that PID 1 is gone: then the guest's state says whether it ran out of memory.
    fn memory_kills(&self, init: &InitProcess) -> Option<u64>;

    /// SSH's bytes by the engine's own stream (the carrier `stream`).
    fn carrier_stream<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<Box<dyn Carrier>>>;
}
