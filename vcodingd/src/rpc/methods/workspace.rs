//! `workspace.*`.

use jsonrpsee::RpcModule;
use protocol::methods::List;
use protocol::workspace::WorkspaceList;

use super::{Context, register};

pub(super) fn register_all(module: &mut RpcModule<Context>) {
    register::<List, _, _>(module, async |_, _, _| Ok(WorkspaceList { workspaces: Vec::new() }));
}
