//! `secret.*`.

use jsonrpsee::RpcModule;
use protocol::daemon::Done;
use protocol::methods::{SecretListAll as List, SecretRemove, SecretSet};
use protocol::secret::SecretList;
use protocol::{Error, Kind};

use super::{Context, register};
use crate::workspace::failure_of_secrets;

pub(super) fn register_all(module: &mut RpcModule<Context>) {
    register::<SecretSet, _, _>(module, async |context, _, params| {
        let value = params.value.expose().as_bytes();
        context.registry.shared().secrets.set(&params.name, value).map_err(|e| failure_of_secrets(&e))?;
        Ok(Done {})
    });
    register::<List, _, _>(module, async |context, _, _| Ok(SecretList { secrets: context.registry.secrets()? }));
    register::<SecretRemove, _, _>(module, async |context, _, params| {
        let removed = context.registry.shared().secrets.remove(&params.name).map_err(|e| failure_of_secrets(&e))?;
        if removed {
            return Ok(Done {});
        }
        let name: String = params.name.chars().take(80).collect();
        Err(Error::new(Kind::SecretNotFound, format!("no key {name} is kept")).hint("vcodingctl secret ls"))
    });
}
