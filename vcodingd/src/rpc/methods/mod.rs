//! The method table: a function a method, grouped by the first word of their names.

mod audit;
mod checkpoint;
mod daemon;
mod exec;
mod run;
mod secret;
mod workspace;

use std::future::Future;
use std::sync::Arc;

use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, RpcModule};
use protocol::{Error, Kind, Method};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::call::Call;
use crate::audit::Audit;
use crate::workspace::Registry;

/// What the methods' functions work on.
#[derive(Debug)]
pub struct Context {
    pub audit: Audit,
    pub registry: Arc<Registry>,
    pub places: client::Places,
    pub started: protocol::Timestamp,
    /// What it found lost at its start, and what came back.
    pub notices: Vec<String>,
    pub shutdown: CancellationToken,
}

pub(super) fn table(context: Arc<Context>) -> RpcModule<Context> {
    let mut module = RpcModule::from_arc(context);
    daemon::register_all(&mut module);
    audit::register_all(&mut module);
    workspace::register_all(&mut module);
    exec::register_all(&mut module);
    run::register_all(&mut module);
    checkpoint::register_all(&mut module);
    secret::register_all(&mut module);
    module
}

/// Adds the method `M`.
fn register<M, F, Answer>(module: &mut RpcModule<Context>, function: F)
where
    M: Method,
    F: Fn(Arc<Context>, Arc<Call>, M::Params) -> Answer + Clone + Send + Sync + 'static,
    Answer: Future<Output = Result<M::Output, Error>> + Send + 'static,
    M::Output: Clone,
{
    module
        .register_async_method(M::NAME, move |params, context, extensions| {
            let function = function.clone();
            async move {
                let call = call_of(&extensions)?;
                let params = parse::<M::Params>(M::NAME, &params).map_err(wire_error)?;
                function(context, call, params).await.map_err(wire_error)
            }
        })
        .expect("method names are unique, which protocol's test holds");
}

/// Every call carries a [`Call`]; the dispatcher puts it there.
fn call_of(extensions: &Extensions) -> Result<Arc<Call>, ErrorObjectOwned> {
    let missing = || wire_error(Error::new(Kind::Internal, "a call came without its connection"));
    extensions.get::<Arc<Call>>().cloned().ok_or_else(missing)
}

/// Named parameters only: serde would also read a struct from an array.
fn parse<P: DeserializeOwned>(method: &str, params: &Params<'_>) -> Result<P, Error> {
    let text = params.as_str().unwrap_or("{}");
    let refused = |why: String| Error::new(Kind::InvalidParameters, format!("{method}: {why}")).hint("rpc.discover");
    if !text.trim_start().starts_with('{') {
        return Err(refused("parameters are an object with names".into()));
    }
    serde_json::from_str(text).map_err(|e| refused(e.to_string()))
}

/// Our error as jsonrpsee writes it.
pub(super) fn wire_error(error: Error) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(error.code, error.message, Some(error.data))
}
