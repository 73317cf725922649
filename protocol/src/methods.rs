//! Every method of the socket: its name, its types, one sentence about it.

use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// One method. A subscription's `Output` is its subscription id; its notifications are
/// documented at its name.
pub trait Method {
    const NAME: &'static str;
    const ABOUT: &'static str;
    type Params: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    type Output: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
}

/// A method as `rpc.discover` and docs/protocol.md describe it.
#[derive(Debug)]
pub struct Entry {
    pub name: &'static str,
    pub about: &'static str,
    pub params: Value,
    pub output: Value,
}

macro_rules! methods {
    ($($ty:ident $name:literal ($params:ty) -> $output:ty, $about:literal;)*) => {
        $(
            #[doc = $about]
            #[derive(Debug, Clone, Copy)]
            pub struct $ty;

            impl Method for $ty {
                const NAME: &'static str = $name;
                const ABOUT: &'static str = $about;
                type Params = $params;
                type Output = $output;
            }
        )*

        /// All methods in the order of the documentation, and the schemas that they share.
        pub fn catalogue() -> (Vec<Entry>, Value) {
            let mut generator = SchemaGenerator::default();
            let entries = vec![$(Entry {
                name: $name,
                about: $about,
                params: generator.subschema_for::<$params>().into(),
                output: generator.subschema_for::<$output>().into(),
            },)*];
            // What notifications carry.
            let _ = (generator.subschema_for::<run::RunItem>(), generator.subschema_for::<ws::Progress>());
            let definitions = generator.take_definitions(true).into();
            (entries, definitions)
        }
    };
}

use crate::checkpoint as cp;
use crate::daemon::{DaemonStatus, Done, NoParams};
use crate::{audit, consent, doctor, exec, run, secret, transfer, workspace as ws};

methods! {
    Status "daemon.status" (NoParams) -> DaemonStatus,
        "Which daemon this is, and which state directory it owns.";
    Shutdown "daemon.shutdown" (NoParams) -> Done,
        "End the daemon; guests and runs go on, and the next daemon finds them.";
    Doctor "daemon.doctor" (NoParams) -> doctor::DoctorResult,
        "What is wrong with host, engine, keys, store, workspaces and disk, and the command that mends it.";
    Discover "rpc.discover" (NoParams) -> Value,
        "This interface as an OpenRPC document.";
    Up "workspace.up" (ws::UpParams) -> ws::UpResult,
        "Make a project's workspace, or make sure that it runs.";
    List "workspace.list" (NoParams) -> ws::WorkspaceList,
        "All workspaces, oldest first.";
    Show "workspace.show" (ws::WorkspaceParams) -> ws::ShowResult,
        "One workspace, with what isolates it as the kernel and the engine report it.";
    Start "workspace.start" (ws::WorkspaceParams) -> ws::ShowResult,
        "Start a stopped guest.";
    Stop "workspace.stop" (ws::StopParams) -> ws::ShowResult,
        "Checkpoint, then stop the guest; its work tree, home and history stay.";
    Destroy "workspace.destroy" (ws::DestroyParams) -> ws::DestroyResult,
        "End a workspace; refuses while there is work that was never applied.";
    Trash "workspace.trash" (NoParams) -> ws::TrashList,
        "Destroyed workspaces that are still kept; `workspace.up` with `from` brings one back.";
    Gc "workspace.gc" (ws::GcParams) -> ws::GcResult,
        "End what nobody needs: destroyed workspaces whose time is over, images that no workspace has.";
    ExecStart "exec.start" (exec::ExecParams) -> exec::ExecResult,
        "Run a command on the descriptors sent with this line; the reply is its end.";
    ExecSignal "exec.signal" (exec::ExecSignalParams) -> Done,
        "Send a signal to a command started on this connection.";
    ExecResize "exec.resize" (exec::ExecResizeParams) -> Done,
        "Tell a command's terminal its new size.";
    RunStart "run.start" (run::RunStartParams) -> run::RunView,
        "Start an agent or a background command; it belongs to no connection.";
    RunList "run.list" (run::RunListParams) -> run::RunList,
        "Runs, newest first.";
    RunShow "run.show" (run::RunParams) -> run::RunView,
        "One run.";
    RunCancel "run.cancel" (run::RunParams) -> run::RunView,
        "End a run with its whole process tree; the reply comes when it has ended.";
    RunReportOf "run.report" (run::RunParams) -> run::RunReport,
        "One run with its prompt, what it changed, and its checkpoints.";
    RunSubscribe "run.subscribe" (run::RunSubscribeParams) -> Value,
        "Events of a run from any point on, as `run.event` notifications, ended by its record.";
    CheckpointCreate "checkpoint.create" (cp::CheckpointCreateParams) -> cp::CheckpointResult,
        "Record the work tree as it is.";
    CheckpointList "checkpoint.list" (cp::CheckpointListParams) -> cp::CheckpointList,
        "Checkpoints, newest first.";
    CheckpointDiff "checkpoint.diff" (cp::DiffParams) -> cp::DiffResult,
        "What changed between two checkpoints, or since one.";
    CheckpointRollback "checkpoint.rollback" (cp::RollbackParams) -> cp::RollbackResult,
        "Bring the work tree back to a checkpoint, and record that as a new one.";
    Apply "transfer.apply" (transfer::ApplyParams) -> transfer::ApplyResult,
        "Take the work home as a branch of the project's repository.";
    Collect "transfer.collect" (transfer::CollectParams) -> transfer::CollectResult,
        "Copy files of the work tree to a directory of this computer, each whole or not at all.";
    ConsentShow "consent.show" (consent::ConsentShowParams) -> consent::Consent,
        "What a project asks for that only its user may grant.";
    ConsentSet "consent.set" (consent::ConsentSetParams) -> consent::Consent,
        "Grant what was shown, or take that back.";
    SecretSet "secret.set" (secret::SecretSetParams) -> Done,
        "Keep a key on the host, in place of one of the same name.";
    SecretListAll "secret.list" (NoParams) -> secret::SecretList,
        "The names of the keys that are there; never their values.";
    SecretRemove "secret.remove" (secret::SecretRemoveParams) -> Done,
        "Forget a key that was kept.";
    AuditSearch "audit.search" (audit::AuditSearchParams) -> audit::AuditList,
        "Who did what: the newest entries that fit, oldest first.";
}

/// The OpenRPC document (specification 1.3) that `rpc.discover` answers.
pub fn openrpc(version: &str) -> Value {
    let (entries, definitions) = catalogue();
    let methods: Vec<Value> = entries
        .into_iter()
        .map(|entry| {
            json!({
                "name": entry.name,
                "summary": entry.about,
                "paramStructure": "by-name",
                "params": [{"name": "params", "schema": entry.params}],
                "result": {"name": "result", "schema": entry.output},
            })
        })
        .collect();
    let document = json!({
        "openrpc": "1.3.2",
        "info": {"title": "vcodingd", "version": version, "x-protocol": crate::VERSION},
        "methods": methods,
        "components": {"schemas": definitions},
    });
    relocate(document)
}

/// schemars refers to `#/$defs/X`; an OpenRPC document keeps schemas under components.
fn relocate(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| match (&*key, &value) {
                    ("$ref", Value::String(target)) => {
                        (key, Value::String(target.replacen("#/$defs/", "#/components/schemas/", 1)))
                    }
                    _ => (key, relocate(value)),
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(relocate).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_openrpc_document_resolves() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(target)) = map.get("$ref") {
                        found.push(target.clone());
                    }
                    map.values().for_each(|v| references(v, found));
                }
                Value::Array(items) => items.iter().for_each(|v| references(v, found)),
                _ => {}
            }
        }
        let document = openrpc("0");
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{}", found.len());
        for target in found {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
    }

    #[test]
    fn method_names_are_unique_and_dotted() {
        let (entries, _) = catalogue();
        let mut names: Vec<_> = entries.iter().map(|e| e.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(names.iter().all(|n| n.contains('.')));
    }
}
