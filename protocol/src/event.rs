//! What happened in a run, as one model over every agent's own output format.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Bytes, RunId, Timestamp, WorkspaceId};

/// One event of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// `[record, sub]`: the record's number in the run's log, without gap, and the event's place
    /// in it. Never changes; compared in that order.
    pub seq: [u64; 2],
    pub time: Timestamp,
    pub workspace: WorkspaceId,
    pub run: RunId,
    #[serde(flatten)]
    pub body: EventBody,
}

/// The events. Text in them is the agent's: a stranger's. Clients must ignore types they do not
/// know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum EventBody {
    /// The agent says who it is.
    Session {
        /// By which it can be resumed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
    },
    /// The agent says something.
    Text { text: String },
    /// The agent thinks aloud.
    Thinking { text: String },
    /// The agent uses a tool.
    ToolCall {
        /// Names the call in its [`EventBody::ToolResult`].
        id: String,
        /// The tool's own name: `Bash`, `Edit`, …
        name: String,
        /// One line for people: the command, the file, the pattern.
        summary: String,
        /// The tool's input; strings in it are cut at 16 KiB.
        input: Value,
    },
    /// What came of it.
    ToolResult {
        id: String,
        ok: bool,
        /// At most 64 KiB; its end is kept where it was longer.
        output: String,
    },
    /// A file was edited by a tool.
    Edit { path: Bytes, added: u64, deleted: u64 },
    /// The agent's list of steps.
    Plan { steps: Vec<PlanStep> },
    /// A model request failed and will be repeated.
    Retry { attempt: u64, of: u64, wait_ms: u64, why: String },
    /// A line of output that is no event of the agent's format.
    Output { stream: OutputStream, text: Bytes },
    /// The agent says that it has finished.
    Finished {
        ok: bool,
        /// Its last words, or why it failed.
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cost_usd: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        turns: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input_tokens: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output_tokens: Option<u64>,
    },
    /// The log is full; so much output was not kept.
    Dropped { bytes: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanStep {
    pub text: String,
    pub state: PlanState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PlanState {
    Pending,
    InProgress,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutputStream {
    Stdout,
    Stderr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_flat_json_with_its_type() {
        let event = Event {
            seq: [3, 0],
            time: Timestamp::from_unix_ms(0),
            workspace: "01jd0000000000000000000000".parse().unwrap(),
            run: "01jd0000000000000000000001".parse().unwrap(),
            body: EventBody::ToolResult { id: "t".into(), ok: true, output: "x".into() },
        };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            r#"{"seq":[3,0],"time":"1970-01-01T00:00:00.000Z","workspace":"01jd0000000000000000000000","run":"01jd0000000000000000000001","type":"tool-result","id":"t","ok":true,"output":"x"}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
