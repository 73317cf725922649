//! What was asked and what became of it.

use std::fs::File;
use std::io::Write;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::http;

/// Requests kept; a run has dozens. Older ones leave first.
const KEPT: usize = 1024;

/// One request and its fate. It is recorded before the first byte of its answer leaves.
#[derive(Debug, Clone, Serialize)]
pub struct Exchange {
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers in order, names as sent: what a proxy put in or left out can be asserted.
    pub headers: Vec<(String, String)>,
    /// The body as JSON; null where there was none or it was no JSON.
    pub body: Value,
    /// What was answered and why.
    pub verdict: Verdict,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// This step of the script (from 0).
    Step(usize),
    /// A fault on cue, at this step.
    Fault(usize),
    /// A request that is no part of the conversation (without tools, a list of models, a HEAD).
    Side,
    /// The request does not carry what the script expects: the test that caused it has failed.
    Refused(String),
}

impl Exchange {
    /// A header's value, its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        http::header(&self.headers, name)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    exchanges: Mutex<Vec<Exchange>>,
    grew: Condvar,
    file: Mutex<Option<File>>,
}

impl Log {
    pub(crate) fn to_file(file: File) -> Self {
        Self { file: Mutex::new(Some(file)), ..Self::default() }
    }

    pub(crate) fn add(&self, exchange: Exchange) -> std::io::Result<()> {
        if let Some(file) = &mut *self.file.lock().unwrap_or_else(PoisonError::into_inner) {
            let mut line = serde_json::to_vec(&exchange)?;
            line.push(b'\n');
            file.write_all(&line)?;
        }
        let mut exchanges = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
        if exchanges.len() == KEPT {
            exchanges.remove(0);
        }
        exchanges.push(exchange);
        self.grew.notify_all();
        Ok(())
    }

    pub(crate) fn all(&self) -> Vec<Exchange> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn wait(&self, limit: Duration, done: impl Fn(&[Exchange]) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut exchanges = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if done(&exchanges) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            exchanges = self.grew.wait_timeout(exchanges, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
