//! `checkpoint.*` and `transfer.*`.

use jsonrpsee::RpcModule;
use protocol::checkpoint::{CheckpointList, CheckpointResult};
use protocol::methods::{Apply, CheckpointCreate, CheckpointDiff, CheckpointList as List, CheckpointRollback, Collect};
use protocol::{Error, Kind};

use super::{Context, register};
use crate::timeline::remarks;
use crate::transfer::CollectRequest;

const LISTED: u32 = 1000;
const MAX_LISTED: u32 = 100_000;
const MAX_LABEL: usize = 200;

pub(super) fn register_all(module: &mut RpcModule<Context>) {
    register::<CheckpointCreate, _, _>(module, async |context, _, params| {
        let label = params.label.map(label_of).transpose()?;
        let (checkpoint, created, found) = context.registry.find(&params.workspace)?.checkpoint(label).await?;
        let (notes, asides) = (remarks::lines(&found), remarks::asides(&found));
        Ok(CheckpointResult { checkpoint, created, notes, asides })
    });
    register::<List, _, _>(module, async |context, _, params| {
        let limit = params.limit.unwrap_or(LISTED).min(MAX_LISTED);
        let handle = context.registry.find(&params.workspace)?;
        Ok(CheckpointList { checkpoints: handle.checkpoints(limit as usize).await? })
    });
    register::<CheckpointDiff, _, _>(module, async |context, _, params| {
        context.registry.find(&params.workspace)?.diff(params.from, params.to, params.paths).await
    });
    register::<CheckpointRollback, _, _>(module, async |context, _, params| {
        let handle = context.registry.find(&params.workspace)?;
        handle.rollback(params.to, params.paths, params.clean, params.while_running).await
    });
    register::<Collect, _, _>(module, async |context, _, params| {
        let refused = |what: &str| Err(Error::new(Kind::InvalidParameters, format!("transfer.collect: {what}")));
        if params.patterns.is_empty() || params.patterns.iter().any(|pattern| pattern.0.is_empty()) {
            return refused("there is no pattern, or an empty one");
        }
        if !params.to.is_absolute() {
            return refused("to is no absolute path");
        }
        let patterns = params.patterns.into_iter().map(|pattern| pattern.0).collect();
        let request = CollectRequest { patterns, to: params.to, force: params.force };
        let state_dir = context.registry.shared().state_dir.clone();
        context.registry.find(&params.workspace)?.collect(state_dir, request).await
    });
    register::<Apply, _, _>(module, async |context, _, params| {
        context.registry.find(&params.workspace)?.apply(params.branch, params.while_running).await
    });
}

/// A label is a name that a person types again: no control characters, none of the names that
/// mean something else.
fn label_of(text: String) -> Result<String, Error> {
    let refused = |why: &str| {
        let shown: String = text.chars().take(80).collect();
        Error::new(Kind::InvalidParameters, format!("{shown:?} cannot be a label: {why}"))
    };
    if text.is_empty() || text.len() > MAX_LABEL {
        return Err(refused("it has 1 to 200 bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err(refused("it has no control characters"));
    }
    if text == "base" || text.starts_with(['@', '-']) || text.starts_with("run:") {
        return Err(refused("that name is taken; base, @…, run:… and -… are not free"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_mean_something_else_are_refused() {
        assert_eq!(label_of("before refactoring".into()).unwrap(), "before refactoring");
        for bad in ["", "base", "@", "@~1", "run:x", "-m", "a\nb", &"x".repeat(201)] {
            assert!(label_of(bad.into()).is_err(), "{bad:?}");
        }
    }
}
