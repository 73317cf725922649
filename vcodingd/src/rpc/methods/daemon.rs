//! `daemon.*` and `rpc.discover`.

use jsonrpsee::RpcModule;
use protocol::daemon::{DaemonStatus, Done};
use protocol::doctor::DoctorResult;
use protocol::methods::{self, Discover, Doctor, Shutdown, Status};
use protocol::workspace::Phase;

use super::{Context, register};

pub(super) fn register_all(module: &mut RpcModule<Context>) {
    register::<Status, _, _>(module, async |context, _, _| {
        let workspaces = context.registry.list();
        let running = workspaces.iter().filter(|w| w.phase == Phase::Ready).count();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(DaemonStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: protocol::VERSION,
            pid: std::process::id(),
            started: context.started,
            state_dir: context.places.state.clone(),
            workspaces: count(workspaces.len()),
            running: count(running),
            notices: context.notices.clone(),
        })
    });
    register::<Shutdown, _, _>(module, async |context, _, _| {
        context.shutdown.cancel();
        Ok(Done {})
    });
    register::<Doctor, _, _>(module, async |context, _, _| {
        Ok(DoctorResult { findings: context.registry.doctor(&context.notices).await })
    });
    register::<Discover, _, _>(module, async |_, _, _| Ok(methods::openrpc(env!("CARGO_PKG_VERSION"))));
}
