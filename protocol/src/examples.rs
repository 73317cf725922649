//! A call of each method, in an order in which they can be made one after the other: docs/protocol.md shows them, and an
//! end-to-end test sends them to a daemon as they stand.
//!
//! Two things are the reader's own: the project's path and a run's id.

/// Stands for the project's directory.
pub const PROJECT: &str = "/home/you/shop";
/// Stands for the id that `run.start` answered.
pub const RUN: &str = "01kb5d3m8x0000000000000000";
/// Stands for the hash that `consent.show` answered.
pub const HASH: &str = "HASH";

/// Method and parameters. Calls in a row with `+` before the method go over one connection with the one before.
#[rustfmt::skip]
pub const ALL: &[(&str, &str)] = &[
    ("daemon.status", r#"{}"#),
    ("daemon.doctor", r#"{}"#),
    ("rpc.discover", r#"{}"#),
    ("consent.show", r#"{"project":"/home/you/shop"}"#),
    ("consent.set", r#"{"project":"/home/you/shop","hash":"HASH","agree":true}"#),
    ("workspace.up", r#"{"project":"/home/you/shop","name":"shop","progress":true}"#),
    ("workspace.list", r#"{}"#),
    ("workspace.show", r#"{"workspace":"shop"}"#),
    ("exec.start", r#"{"workspace":{"project":"/home/you/shop"},"exec":"1","argv":["sh","-c","echo more >> a.txt"]}"#),
    ("exec.start", r#"{"workspace":"shop","exec":"1","argv":["sleep","60"],"terminal":{"term":"xterm","columns":80,"rows":24}}"#),
    ("+exec.resize", r#"{"exec":"1","columns":120,"rows":40}"#),
    ("+exec.signal", r#"{"exec":"1","signal":"TERM"}"#),
    ("checkpoint.create", r#"{"workspace":"shop","label":"more"}"#),
    ("checkpoint.list", r#"{"workspace":"shop","limit":10}"#),
    ("checkpoint.diff", r#"{"workspace":"shop","from":"base","to":"more","paths":["a.txt"]}"#),
    ("run.start", r#"{"workspace":"shop","argv":["sh","-c","echo from the run; sleep 60"],"timeout_ms":600000}"#),
    ("run.list", r#"{"workspace":"shop"}"#),
    ("run.show", r#"{"run":"01kb5d3m8x0000000000000000"}"#),
    ("run.subscribe", r#"{"run":"01kb5d3m8x0000000000000000","from":[0,0],"once":true}"#),
    ("run.subscribe", r#"{"run":"01kb5d3m8x0000000000000000","bytes":true,"once":true}"#),
    ("run.report", r#"{"run":"01kb5d3m8x0000000000000000"}"#),
    ("run.cancel", r#"{"run":"01kb5d3m8x0000000000000000"}"#),
    ("checkpoint.rollback", r#"{"workspace":"shop","to":"base"}"#),
    ("checkpoint.rollback", r#"{"workspace":"shop","to":"@~1"}"#),
    ("transfer.apply", r#"{"workspace":"shop","branch":"from-vcoding"}"#),
    ("transfer.collect", r#"{"workspace":"shop","patterns":["*.txt"],"to":"/home/you/shop/collected"}"#),
    ("secret.set", r#"{"name":"ANTHROPIC_API_KEY","value":"sk-…"}"#),
    ("secret.list", r#"{}"#),
    ("secret.remove", r#"{"name":"ANTHROPIC_API_KEY"}"#),
    ("audit.search", r#"{"workspace":"shop","method":"checkpoint","limit":10}"#),
    ("workspace.stop", r#"{"workspace":"shop"}"#),
    ("workspace.start", r#"{"workspace":"shop"}"#),
    ("workspace.destroy", r#"{"workspace":"shop","force":true,"purge":true}"#),
    ("workspace.trash", r#"{}"#),
    ("workspace.gc", r#"{"dry_run":true}"#),
    ("daemon.shutdown", r#"{}"#),
];

/// The line that is sent.
#[must_use]
pub fn line(id: u64, method: &str, params: &str) -> String {
    let method = method.trim_start_matches('+');
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
}
