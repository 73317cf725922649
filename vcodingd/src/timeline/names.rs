//! The names that a checkpoint answers to, for listings.

use history::{Checkpoint, Id};

/// `@` for the newest, `base`, and its label; where a run began and ended its cause says.
pub fn of(base: Option<Id>, head: Option<Id>, checkpoint: &Checkpoint) -> Vec<String> {
    let mut names = Vec::new();
    if head == Some(checkpoint.id) {
        names.push("@".to_owned());
    }
    if base == Some(checkpoint.id) {
        names.push("base".to_owned());
    }
    if let Some(run) = &checkpoint.meta.run {
        names.push(match checkpoint.meta.cause.as_str() {
            "run-start" => format!("run:{run}^"),
            _ => format!("run:{run}"),
        });
    }
    names.extend(checkpoint.meta.label.clone());
    names
}
