//! `audit.search`.

use jsonrpsee::RpcModule;
use protocol::methods::AuditSearch;
use protocol::{Error, Kind, WorkspaceRef};

use super::{Context, register};
use crate::audit::Search;

/// Entries, if the caller does not say.
const USUAL: u32 = 100;
const MOST: u32 = 10_000;

pub(super) fn register_all(module: &mut RpcModule<Context>) {
    register::<AuditSearch, _, _>(module, async |context, _, params| {
        let targets = match params.workspace {
            Some(name) => targets(&context, name)?,
            None => Vec::new(),
        };
        let search = Search {
            since: params.since,
            until: params.until,
            method: params.method,
            targets,
            failed: params.failed,
            limit: params.limit.unwrap_or(USUAL).min(MOST) as usize,
        };
        let audit = context.audit.clone();
        let found = tokio::task::spawn_blocking(move || audit.search(&search)).await;
        let unreadable = |e: &dyn std::fmt::Display| {
            let directory = context.places.state.join("audit");
            Error::new(Kind::Internal, format!("the audit log {}: {e}", directory.display()))
                .hint(format!("ls -l {}", directory.display()))
        };
        found.map_err(|e| unreadable(&e))?.map_err(|e| unreadable(&e))
    });
}

/// Everything by which calls name a workspace: one that is gone has only what was typed.
fn targets(context: &Context, name: String) -> Result<Vec<String>, Error> {
    let reference = WorkspaceRef::Name(name.clone());
    let mut targets = vec![name];
    if let Ok(handle) = context.registry.find(&reference) {
        let view = handle.snapshot().view.clone();
        targets.extend([view.name.to_string(), view.id.to_string(), view.project.display().to_string()]);
        targets.extend(context.registry.runs(Some(&reference))?.into_iter().map(|run| run.id.to_string()));
    }
    Ok(targets)
}
