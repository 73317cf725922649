//! A checkpoint as a commit: a fixed author, a summary, and what we know of it as one line of JSON.

use serde::{Deserialize, Serialize};

use crate::{Error, Id, Result, text};

/// Why, by whom and when a checkpoint was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// `up`, `checkpoint`, `run`, `rollback`, …; the caller's words.
    pub cause: String,
    pub label: Option<String>,
    /// The run it belongs to. The first checkpoint that names a run is its start, the last its end.
    pub run: Option<String>,
    /// Milliseconds since 1970.
    pub time_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub id: Id,
    pub tree: Id,
    pub parent: Option<Id>,
    pub meta: Meta,
    /// Files added, changed and deleted since the one before; an empty directory counts as a file.
    pub added: u64,
    pub changed: u64,
    pub deleted: u64,
}

/// What stands in the commit's message. Fields are only ever added, each with a default.
#[derive(Serialize, Deserialize)]
struct Block {
    v: u32,
    cause: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    time_ms: i64,
    added: u64,
    changed: u64,
    deleted: u64,
}

const VERSION: u32 = 1;

/// The commit's bytes.
pub(crate) fn write(tree: Id, parent: Option<Id>, meta: &Meta, (added, changed, deleted): (u64, u64, u64)) -> Vec<u8> {
    let seconds = meta.time_ms.div_euclid(1000).max(0);
    let parent = parent.map(|id| format!("parent {id}\n")).unwrap_or_default();
    let summary = text::neutral(meta.label.as_deref().unwrap_or(&meta.cause));
    let block = Block {
        v: VERSION,
        cause: meta.cause.clone(),
        label: meta.label.clone(),
        run: meta.run.clone(),
        time_ms: meta.time_ms,
        added,
        changed,
        deleted,
    };
    let block = serde_json::to_string(&block).expect("strings and numbers are JSON");
    let who = format!("vcoding <vcoding@localhost> {seconds} +0000");
    format!("tree {tree}\n{parent}author {who}\ncommitter {who}\n\n{summary}\n\n{block}\n").into_bytes()
}

pub(crate) fn read(id: Id, bytes: &[u8]) -> Result<Checkpoint> {
    parse(id, bytes).ok_or_else(|| Error::damaged(format!("the commit {id} is no checkpoint")))
}

fn parse(id: Id, bytes: &[u8]) -> Option<Checkpoint> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, message) = text.split_once("\n\n")?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.parse::<Id>().ok());
    let block: Block = serde_json::from_str(message.lines().next_back()?).ok()?;
    if block.v > VERSION {
        return None;
    }
    let meta = Meta { cause: block.cause, label: block.label, run: block.run, time_ms: block.time_ms };
    let (added, changed, deleted) = (block.added, block.changed, block.deleted);
    Some(Checkpoint { id, tree: field("tree ")?, parent: field("parent "), meta, added, changed, deleted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_comes_back_whatever_its_label() {
        for label in [None, Some("fix\n\n{\"v\":9}\n\u{202e}x"), Some("")] {
            let meta = Meta {
                cause: "run".into(),
                label: label.map(Into::into),
                run: Some("r1".into()),
                time_ms: 1_700_000_000_123,
            };
            let bytes = write(Id::EMPTY_TREE, Some(Id::EMPTY_TREE), &meta, (1, 2, 3));
            let back = read(Id::EMPTY_TREE, &bytes).unwrap();
            assert_eq!(back.meta, meta);
            assert_eq!((back.parent, back.added, back.changed, back.deleted), (Some(Id::EMPTY_TREE), 1, 2, 3));
        }
        assert!(read(Id::EMPTY_TREE, b"tree x\n\nno").is_err());
    }
}
