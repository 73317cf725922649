//! Guests in memory: the same contract, without an engine.
//!
//! ```text
//! Fake ── World: images, guests, failures to come; it outlives providers as an engine outlives
//!  │             the daemon, and runs on threads of its own
//!  └ carrier_stream ── Life: carriers, sshd, verbs, runs of one started guest
//! ```
//!
//! The SSH server is a real one in process, with the keys that were written for the guest; a
//! command is one of a few verbs, over the guest's real directories. There is no wall, no
//! image's content and no terminal: these are the engine's to prove.

mod images;
mod life;
mod sshd;
mod supervisor;
#[cfg(test)]
pub(crate) mod tests;
mod verbs;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use protocol::WorkspaceId;
use tokio::sync::mpsc;

pub use images::Image;
pub use world::{Op, World};

use super::{
    BuildEvent, BuildSpec, Carrier, Engine, Error, Guest, GuestSpec, ImageId, ImageInfo, InitProcess, Look, NamedImage,
    Peeked, Provider, Result, Walls,
};

/// A provider over a [`World`], for one state directory.
#[derive(Debug, Clone)]
pub struct Fake {
    world: Arc<World>,
    state_dir: PathBuf,
}

impl Fake {
    pub fn new(world: Arc<World>, state_dir: impl Into<PathBuf>) -> Self {
        Self { world, state_dir: state_dir.into() }
    }

    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// The next call of `op` fails and does nothing. Several fail one call each, in their order.
    pub fn fail_next(&self, op: Op, error: Error) {
        self.world.fail_next(op, error);
    }

    /// The next call of `op` does what it is asked to, and fails: as when the answer is lost.
    pub fn fail_after(&self, op: Op, error: Error) {
        self.world.fail_after(op, error);
    }

    /// What every call is: a failure to come, the act, another failure to come.
    async fn call<T>(&self, op: Op, act: impl Future<Output = Result<T>>) -> Result<T> {
        self.world.failure_before(op)?;
        let outcome = act.await?;
        self.world.failure_after(op)?;
        Ok(outcome)
    }
}

impl Provider for Fake {
    fn probe(&self) -> BoxFuture<'_, Result<Engine>> {
        self.call(Op::Probe, async {
            Ok(Engine {
                name: "fake".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                storage_driver: "memory".to_owned(),
                rootless: false,
                seccomp: true,
                pids_limit: true,
                memory_limit: true,
                cgroup_version: 2,
            })
        })
        .boxed()
    }

    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<ImageInfo>> {
        self.call(Op::Image, async move { self.world.image_info(reference) }).boxed()
    }

    fn build(&self, build: BuildSpec, progress: mpsc::Sender<BuildEvent>) -> BoxFuture<'_, Result<ImageId>> {
        self.call(Op::Build, async move { images::build(&self.world, build, &progress).await }).boxed()
    }

    fn tag<'a>(&'a self, image: &'a ImageId, name: &'a str) -> BoxFuture<'a, Result<()>> {
        self.call(Op::Tag, async move { self.world.images(|images| images.tag(&image.0, name)) }).boxed()
    }

    fn images<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<NamedImage>>> {
        self.call(Op::Image, async move { Ok(self.world.images(|images| images.named(prefix))) }).boxed()
    }

    fn remove_image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<()>> {
        self.call(Op::RemoveImage, async move {
            self.world.images(|images| images.remove(reference));
            Ok(())
        })
        .boxed()
    }

    fn peek<'a>(&'a self, image: &'a ImageId, looks: &'a [Look<'a>]) -> BoxFuture<'a, Result<Vec<Peeked>>> {
        self.call(Op::Peek, async move { self.world.images(|images| images.find(&image.0)?.peek(looks)) }).boxed()
    }

    fn create<'a>(&'a self, spec: &'a GuestSpec) -> BoxFuture<'a, Result<()>> {
        self.call(Op::Create, async move { self.world.create(&self.state_dir, spec) }).boxed()
    }

    fn start<'a>(&'a self, spec: &'a GuestSpec) -> BoxFuture<'a, Result<Walls>> {
        let start = async move {
            self.world.hang_if_stuck(&spec.id).await;
            self.world.start(spec)
        };
        self.call(Op::Start, start).boxed()
    }

    fn stop<'a>(&'a self, id: &'a WorkspaceId, grace: Duration) -> BoxFuture<'a, Result<()>> {
        self.call(Op::Stop, self.world.stop(id, grace)).boxed()
    }

    fn remove<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<()>> {
        self.call(Op::Remove, self.world.remove(id)).boxed()
    }

    fn pause<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<()>> {
        self.call(Op::Pause, async move { self.world.set_frozen(id, true) }).boxed()
    }

    fn unpause<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<()>> {
        self.call(Op::Unpause, async move { self.world.set_frozen(id, false) }).boxed()
    }

    fn sweep<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<()>> {
        self.call(Op::Sweep, async move {
            self.world.running(id)?.sweep();
            Ok(())
        })
        .boxed()
    }

    fn inspect<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<Option<Guest>>> {
        self.call(Op::Inspect, async move { Ok(self.world.inspect(id)) }).boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Guest>>> {
        self.call(Op::List, async move { Ok(self.world.list(&self.state_dir)) }).boxed()
    }

    fn init_process<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<InitProcess>> {
        self.call(Op::InitProcess, async move { Ok(self.world.running(id)?.init()) }).boxed()
    }

    fn is_there(&self, init: &InitProcess) -> bool {
        self.world.has_init(init)
    }

    fn memory_kills(&self, init: &InitProcess) -> Option<u64> {
        self.world.life_of(init).map(|life| life.memory_kills())
    }

    fn carrier_stream<'a>(&'a self, id: &'a WorkspaceId) -> BoxFuture<'a, Result<Box<dyn Carrier>>> {
        self.call(Op::CarrierStream, async move {
            let carrier: Box<dyn Carrier> = Box::new(sshd::connect(&self.world.running(id)?));
            Ok(carrier)
        })
        .boxed()
    }
}
