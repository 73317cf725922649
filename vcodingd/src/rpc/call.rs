//! What a method's function gets beside its parameters.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::message::ProgressOf;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::exec;

/// One call: on which connection, with which descriptors.
#[derive(Debug)]
pub struct Call {
    pub connection: Arc<ConnectionState>,
    id: Value,
    descriptors: Mutex<Vec<OwnedFd>>,
    out: mpsc::Sender<Box<RawValue>>,
}

/// What lives as long as a connection.
#[derive(Debug, Default)]
pub struct ConnectionState {
    /// Commands under way, by the name that their caller gave them.
    pub execs: Mutex<HashMap<String, exec::Controls>>,
}

impl Call {
    pub(super) fn new(
        connection: Arc<ConnectionState>,
        id: Value,
        descriptors: Vec<OwnedFd>,
        out: mpsc::Sender<Box<RawValue>>,
    ) -> Self {
        Self { connection, id, descriptors: Mutex::new(descriptors), out }
    }

    /// The descriptors that came with the call; the second time there are none.
    pub fn take_descriptors(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut *self.descriptors.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends a `progress` notification. A client that is gone misses it.
    pub async fn progress<T: Serialize>(&self, progress: T) {
        #[derive(Serialize)]
        struct Notification<'a, T> {
            jsonrpc: &'a str,
            method: &'a str,
            params: ProgressOf<T>,
        }
        let params = ProgressOf { id: self.id.clone(), progress };
        match serde_json::value::to_raw_value(&Notification { jsonrpc: "2.0", method: "progress", params }) {
            Ok(line) => drop(self.out.send(line).await),
            Err(error) => tracing::error!(%error, "progress is not JSON"),
        }
    }
}
