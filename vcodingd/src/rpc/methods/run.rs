//! `run.*`.

use std::sync::Arc;

use futures_util::StreamExt;
use jsonrpsee::core::SubscriptionError;
use jsonrpsee::{PendingSubscriptionSink, RpcModule, SubscriptionMessage};
use protocol::methods::{RunCancel, RunList as List, RunReportOf, RunShow, RunStart, RunSubscribe};
use protocol::run::{RunItem, RunList, RunSubscribeParams};
use protocol::{Error, Method};

use super::workspace::told;
use super::{Context, parse, register, wire_error};

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
        .register_subscription(RunSubscribe::NAME, NOTIFICATION, END, |params, pending, context, _| {
            // The sink outlives the borrowed parameters.
            let params = parse::<RunSubscribeParams>(RunSubscribe::NAME, &params);
            async move { subscribe(params, pending, context).await }
        })
        .expect("method names are unique, which protocol's test holds");
}

async fn subscribe(
    params: Result<RunSubscribeParams, Error>,
    pending: PendingSubscriptionSink,
    context: Arc<Context>,
) -> Result<(), SubscriptionError> {
    let opened = async {
        let params = params?;
        context.registry.follow(&params).await
    };
    let mut items = match opened.await {
        Ok(items) => items,
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
        let last = matches!(item, RunItem::End(_));
        let message = SubscriptionMessage::new(NOTIFICATION, sink.subscription_id(), &item)?;
        // Waits while the client does not read; the log keeps what comes meanwhile.
        if sink.send(message).await.is_err() || last {
            return Ok(());
        }
    }
}
