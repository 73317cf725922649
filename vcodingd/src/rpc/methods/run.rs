//! `run.*`.

use std::sync::Arc;

use futures_util::StreamExt;
use jsonrpsee::core::SubscriptionError;
use jsonrpsee::{Extensions, PendingSubscriptionSink, RpcModule, SubscriptionMessage};
use protocol::methods::{RunCancel, RunList as List, RunReportOf, RunShow, RunStart, RunSubscribe};
use protocol::run::{RunItem, RunList, RunSubscribeParams};
use protocol::{Error, Kind, Method};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

use super::workspace::told;
use super::{Context, parse, register, wire_error};
use crate::rpc::call::Call;

const NOTIFICATION: &str = "run.event";
const END: &str = "run.unsubscribe";

pub(super) fn register_all(module: &mut RpcModule<Context>) {
    register::<RunStart, _, _>(module, async |context, call, params| {
        let wanted = params.progress;
        told(&call, wanted, async |say| context.registry.run_start(params, say).await).await
    });
    register::<List, _, _>(module, async |context, _, params| {
        Ok(RunList { runs: context.registry.runs(params.workspace.as_ref())? })
    });
    register::<RunShow, _, _>(module, async |context, _, params| context.registry.run(&params.run));
    register::<RunReportOf, _, _>(module, async |context, _, params| context.registry.run_report(&params.run).await);
    register::<RunCancel, _, _>(module, async |context, _, params| context.registry.run_cancel(&params.run).await);
    module
        .register_subscription(RunSubscribe::NAME, NOTIFICATION, END, |params, pending, context, extensions| {
            // The sink outlives the borrowed parameters.
            let params = parse::<RunSubscribeParams>(RunSubscribe::NAME, &params);
            async move { subscribe(params, pending, context, extensions).await }
        })
        .expect("method names are unique, which protocol's test holds");
}

async fn subscribe(
    params: Result<RunSubscribeParams, Error>,
    pending: PendingSubscriptionSink,
    context: Arc<Context>,
    extensions: Extensions,
) -> Result<(), SubscriptionError> {
    let opened = async {
        let params = params?;
        let pipe = pipe_of(&params, &extensions)?;
        Ok((context.registry.follow(&params).await?, pipe))
    };
    let (mut items, mut pipe) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            pending.reject(wire_error(error)).await;
            return Ok(());
        }
    };
    let sink = pending.accept().await?;
    loop {
        let item = tokio::select! {
            () = sink.closed() => return Ok(()),
            item = items.next() => item,
        };
        let Some(item) = item else { return Ok(()) };
        if let (RunItem::Output(piece), Some(pipe)) = (&item, &mut pipe) {
            // Waits, too; whoever closes the pipe wants no more of it.
            let piece = piece.encode();
            let written = tokio::select! {
                () = sink.closed() => return Ok(()),
                written = pipe.write_all(&piece) => written,
            };
            if written.is_err() {
                return Ok(());
            }
            continue;
        }
        let last = matches!(item, RunItem::End(_));
        if last {
            // Its reader's end of the output.
            pipe = None;
        }
        let message = SubscriptionMessage::new(NOTIFICATION, sink.subscription_id(), &item)?;
        // Waits while the client does not read; the log keeps what comes meanwhile.
        if sink.send(message).await.is_err() || last {
            return Ok(());
        }
    }
}

/// The pipe that came with the call, for the output's bytes.
fn pipe_of(params: &RunSubscribeParams, extensions: &Extensions) -> Result<Option<pipe::Sender>, Error> {
    let call =
        extensions.get::<Arc<Call>>().ok_or_else(|| Error::new(Kind::Internal, "a call without its connection"))?;
    let Some(descriptor) = call.take_descriptors().into_iter().next() else { return Ok(None) };
    let refused = |what: String| Error::new(Kind::InvalidParameters, format!("{}: {what}", RunSubscribe::NAME));
    if !params.bytes {
        return Err(refused("a descriptor is for bytes alone".into()));
    }
    // It is the daemon's alone: a pipe's reading end keeps its own mode.
    rustix::io::ioctl_fionbio(&descriptor, true)
        .map_err(std::io::Error::from)
        .and_then(|()| pipe::Sender::from_owned_fd(descriptor))
        .map(Some)
        .map_err(|e| refused(format!("the descriptor is no pipe's writing end: {e}")))
}
