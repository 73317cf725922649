//! `workspace.*`, `consent.*`.

use std::sync::Arc;

use jsonrpsee::RpcModule;
use protocol::methods::{ConsentSet, ConsentShow, Destroy, Gc, List, Show, Start, Stop, Trash, Up};
use protocol::workspace::{Limits, Phase, ShowResult, TrashList, WorkspaceList};
use tokio::sync::mpsc;

use super::{Context, register};
use crate::rpc::call::Call;
use crate::workspace::{Handle, Say};

/// Steps and lines that wait for a client to read them.
const PROGRESS: usize = 256;

pub(super) fn register_all(module: &mut RpcModule<Context>) {
    register::<List, _, _>(module, async |context, _, _| Ok(WorkspaceList { workspaces: context.registry.list() }));
    register::<Up, _, _>(module, async |context, call, params| {
        let wanted = params.progress;
        told(&call, wanted, async |say| context.registry.up(params, say).await).await
    });
    register::<Show, _, _>(module, async |context, _, params| Ok(shown(&context.registry.find(&params.workspace)?)));
    register::<Start, _, _>(module, async |context, _, params| {
        let handle = context.registry.find(&params.workspace)?;
        handle.start().await?;
        Ok(shown(&handle))
    });
    register::<Stop, _, _>(module, async |context, _, params| {
        let handle = context.registry.find(&params.workspace)?;
        handle.stop(params.while_running).await?;
        Ok(shown(&handle))
    });
    register::<ConsentShow, _, _>(module, async |context, _, params| {
        context.registry.consent(params.project, None).await
    });
    register::<ConsentSet, _, _>(module, async |context, _, params| {
        context.registry.consent(params.project, Some((params.hash, params.agree))).await
    });
    register::<Destroy, _, _>(module, async |context, _, params| {
        context.registry.destroy(&params.workspace, params.force, params.purge).await
    });
    register::<Trash, _, _>(module, async |context, _, _| Ok(TrashList { trash: context.registry.trash().await? }));
    register::<Gc, _, _>(module, async |context, _, params| context.registry.gc(params).await);
}

fn shown(handle: &Handle) -> ShowResult {
    let workspace = handle.view();
    // What ended is isolated by nothing.
    let snapshot = handle.snapshot();
    let wall = snapshot.wall.clone().filter(|_| workspace.phase != Phase::Broken);
    let limits = snapshot.limits;
    let limits = Limits {
        memory: limits.memory,
        milli_cpus: limits.milli_cpus,
        pids: limits.pids,
        disk: limits.disk,
        open_files: limits.open_files,
        open_files_asked: limits.open_files_asked,
    };
    ShowResult { workspace, wall, limits: Some(limits), in_memory: snapshot.volumes.clone() }
}

/// Does `work` while its progress goes to the caller, all of it before the answer.
pub(super) async fn told<T>(call: &Arc<Call>, wanted: bool, work: impl AsyncFnOnce(Say) -> T) -> T {
    if !wanted {
        return work(Say::default()).await;
    }
    let (sender, mut steps) = mpsc::channel(PROGRESS);
    let telling = async {
        while let Some(progress) = steps.recv().await {
            call.progress(progress).await;
        }
    };
    let (done, ()) = tokio::join!(work(Say::to(sender)), telling);
    done
}
