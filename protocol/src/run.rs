//! `run.*`: agent runs and background commands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::{Bytes, RunId, Timestamp, WorkspaceId, WorkspaceName, WorkspaceRef};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunStartParams {
    pub workspace: WorkspaceRef,
    /// An agent's name; without it, `argv` is a background command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What the agent is asked; at most 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Go on with that run's session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<RunId>,
    /// A wall-clock limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u64>,
    /// Send `progress` notifications (the agent may have to be fetched first).
    #[serde(default)]
    pub progress: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    Starting,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    TimedOut,
    /// The model endpoint refused or failed.
    Endpoint,
    /// A budget was used up.
    Budget,
    /// The guest or the run's supervisor ended before it did.
    Lost,
    /// Its files in the guest are not what the supervisor writes: cut off, replaced, forged.
    Tampered,
}

impl RunState {
    pub fn is_over(self) -> bool {
        !matches!(self, RunState::Starting | RunState::Running)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunView {
    pub id: RunId,
    pub workspace: WorkspaceId,
    pub workspace_name: WorkspaceName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The prompt's or the command's beginning.
    pub title: String,
    pub state: RunState,
    pub started: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The command's exit status, as the guest reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// `vcodingctl`'s exit status for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<u8>,
    /// Checkpoint before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Checkpoint after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The guest's memory limit in bytes, where the kernel ended the run for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunParams {
    pub run: RunId,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunListParams {
    /// Only of this workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<WorkspaceRef>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunList {
    pub runs: Vec<RunView>,
}

/// `run.subscribe`: the events from `from` (default: the first) on, to the end of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSubscribeParams {
    pub run: RunId,
    /// The `seq` of the first event wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<[u64; 2]>,
    /// End at the newest event instead of waiting for the run's end.
    #[serde(default)]
    pub once: bool,
    /// Every line as it was written, as `output` events: the agent's own format is not read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub raw: bool,
    /// Instead of events the output as it was written, byte for byte, as `output` items. `from` is then the `next` of the last
    /// one that came. Sent with a descriptor, the writing end of a pipe, they come there in a binary form (below), which is
    /// closed before the run's record is sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bytes: bool,
}

/// A `run.event` notification's `result`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunItem {
    Event(Box<Event>),
    /// Where `bytes` was asked for.
    Output(RunOutput),
    /// The run's record, last: nothing follows.
    End(Box<RunView>),
}

/// A piece of a run's output, as it was written. Through a pipe: the length of what follows (u32), `seq`, `next` (u64 each),
/// `time` (i64, milliseconds since 1970), and for each part its kind (1 stdout, 2 stderr, 3 dropped), a length (u32) and so many
/// bytes, a dropped part's being its number (u64); numbers are little endian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunOutput {
    /// Where it begins: a record's number, and a byte in it.
    pub seq: [u64; 2],
    /// The `from` of what follows.
    pub next: [u64; 2],
    pub time: Timestamp,
    /// In the order in which the daemon read them.
    pub parts: Vec<RunOutputPart>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunOutputPart {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The log is full; so many bytes were not kept.
    Dropped(u64),
}

impl RunOutput {
    /// A piece is never longer, in bytes: what claims to be is none.
    pub const MAX_ENCODED: usize = 4 << 20;
    const HEAD: usize = 40;

    /// The binary form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut body = Vec::with_capacity(1 << 17);
        for number in self.seq.iter().chain(&self.next) {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(&self.time.unix_ms().to_le_bytes());
        for part in &self.parts {
            let dropped;
            let (kind, bytes) = match part {
                RunOutputPart::Stdout(bytes) => (1, bytes.as_slice()),
                RunOutputPart::Stderr(bytes) => (2, bytes.as_slice()),
                RunOutputPart::Dropped(number) => {
                    dropped = number.to_le_bytes();
                    (3, &dropped[..])
                }
            };
            body.push(kind);
            body.extend_from_slice(&length(bytes));
            body.extend_from_slice(bytes);
        }
        let mut out = Vec::with_capacity(4 + body.len());
        out.extend_from_slice(&length(&body));
        out.extend_from_slice(&body);
        out
    }

    /// The first piece in `bytes` and how long it is there; `Ok(None)` while it is not there whole.
    ///
    /// # Errors
    /// What is no piece.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, &'static str> {
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if !(Self::HEAD..=Self::MAX_ENCODED).contains(&length) {
            return Err("its length");
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let (head, mut rest) = body.split_at(Self::HEAD);
        let number = |n: usize| head[8 * n..].first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let mut parts = Vec::new();
        while let Some((kind, after)) = rest.split_first() {
            let (length, after) = after.split_first_chunk::<4>().ok_or("a part's length")?;
            let (bytes, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or("a part's end")?;
            parts.push(match kind {
                1 => RunOutputPart::Stdout(bytes.to_vec().into()),
                2 => RunOutputPart::Stderr(bytes.to_vec().into()),
                3 => RunOutputPart::Dropped(u64::from_le_bytes(bytes.try_into().map_err(|_| "a number")?)),
                _ => return Err("a part's kind"),
            });
            rest = after;
        }
        let piece = Self {
            seq: [number(0), number(1)],
            next: [number(2), number(3)],
            time: Timestamp::from_unix_ms(number(4).cast_signed()),
            parts,
        };
        Ok(Some((piece, 4 + length)))
    }
}

/// Everything about one run but its events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunReport {
    pub run: RunView,
    /// What the agent was asked; a command has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// From its start to its end, or to now; absent where its workspace is gone, or where there is no checkpoint of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<crate::checkpoint::DiffResult>,
    /// From its start to its end, oldest first.
    pub checkpoints: Vec<crate::checkpoint::CheckpointView>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_survives_the_pipe_and_what_is_none_is_refused() {
        let piece = RunOutput {
            seq: [3, 1],
            next: [9, 0],
            time: Timestamp::from_unix_ms(5),
            parts: vec![
                RunOutputPart::Stdout(Bytes(vec![0, 255, 10])),
                RunOutputPart::Dropped(7),
                RunOutputPart::Stderr(Bytes(Vec::new())),
            ],
        };
        let mut bytes = piece.encode();
        let length = bytes.len();
        bytes.extend_from_slice(b"more");
        assert_eq!(RunOutput::decode(&bytes), Ok(Some((piece, length))));
        for cut in 0..length {
            assert_eq!(RunOutput::decode(&bytes[..cut]), Ok(None), "{cut}");
        }
        for (at, byte) in [(0, 1), (3, 255), (44, 9), (45, 200), (53, 1)] {
            let mut broken = bytes.clone();
            broken[at] = byte;
            assert!(RunOutput::decode(&broken).is_err(), "{at}");
        }
    }
}
