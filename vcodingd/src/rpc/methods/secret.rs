//! `secret.*`.

use jsonrpsee::RpcModule;
use protocol::daemon::Done;
use protocol::methods::{SecretListAll as List, SecretRemove, SecretSet};
use protocol::secret::{SecretList, SecretSource, SecretView};
use protocol::{Error, Kind};

use super::{Context, register};
use crate::workspace::failure_of_secrets;

pub(super) fn register_all(module: &mut RpcModule<Context>) {
    register::<SecretSet, _, _>(module, async |context, _, params| {
        let value = params.value.expose().as_bytes();
        context.registry.shared().secrets.set(&params.name, value).map_err(|e| failure_of_secrets(&e))?;
        Ok(Done {})
    });
    register::<List, _, _>(module, async |context, _, _| {
        let names = context.registry.shared().secrets.list().map_err(|e| failure_of_secrets(&e))?;
        let secrets = names.into_iter().map(|name| SecretView { name, source: SecretSource::Kept, time: None });
        Ok(SecretList { secrets: secrets.collect() })
    });
    register::<SecretRemove, _, _>(module, async |context, _, params| {
        let removed = context.registry.shared().secrets.remove(&params.name).map_err(|e| failure_of_secrets(&e))?;
        if removed {
            return Ok(Done {});
        }
        let name: String = params.name.chars().take(80).collect();
        Err(Error::new(Kind::SecretNotFound, format!("no key {name} is kept")).hint("vcodingctl secret ls"))
    });
}
