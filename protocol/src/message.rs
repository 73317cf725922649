//! The envelopes of JSON-RPC 2.0, as a client writes and reads them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::Error;

/// A call.
#[derive(Debug, Serialize)]
pub struct Request<'a, P> {
    pub jsonrpc: &'static str,
    pub id: u64,
    pub method: &'a str,
    pub params: P,
}

impl<'a, P> Request<'a, P> {
    pub fn new(id: u64, method: &'a str, params: P) -> Self {
        Self { jsonrpc: "2.0", id, method, params }
    }
}

/// Any line that the daemon sends: a response (`id`, and `result` or `error`), or a
/// notification (`method` and `params`).
#[derive(Debug, Deserialize)]
pub struct Incoming {
    #[serde(default)]
    pub id: Option<Value>,
    #[serde(default)]
    pub method: Option<String>,
    #[serde(default)]
    pub params: Option<Box<RawValue>>,
    #[serde(default)]
    pub result: Option<Box<RawValue>>,
    #[serde(default)]
    pub error: Option<WireError>,
}

/// An error as any JSON-RPC peer might write it; ours always has `data`.
#[derive(Debug, Clone, Deserialize)]
pub struct WireError {
    pub code: i32,
    pub message: String,
    #[serde(default)]
    pub data: Option<crate::error::ErrorData>,
}

impl From<WireError> for Error {
    fn from(wire: WireError) -> Self {
        let kind = match wire.code {
            -32700 | -32600 => crate::Kind::InvalidMessage,
            -32601 => crate::Kind::UnknownMethod,
            -32602 => crate::Kind::InvalidParameters,
            _ => crate::Kind::Internal,
        };
        match wire.data {
            Some(data) => Error { code: wire.code, message: wire.message, data },
            None => Error { code: wire.code, ..Error::new(kind, wire.message) },
        }
    }
}

/// What a subscription's notification carries.
#[derive(Debug, Serialize, Deserialize)]
pub struct Subscribed<T> {
    pub subscription: Value,
    pub result: T,
}

/// A `progress` notification: the call it belongs to, and what happens.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProgressOf<T> {
    pub id: Value,
    pub progress: T,
}
