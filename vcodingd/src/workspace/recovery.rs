//! What the store lacks and the directories still have.
//!
//! Every record lies beside its workspace or run as well (`record.json`), written before the store's.
//! A store that was lost, set aside or cut off gets them from there; each workspace's owner then
//! compares with the engine, as after any start.

use std::path::{Path, PathBuf};

use protocol::{Error, RunId, WorkspaceId, WorkspaceName};
use serde::Serialize;

use super::machine::Operation;
use super::record::{Places, WorkspaceRecord};
use super::{Shared, failure, trash};
use crate::runs::RunRecord;
use crate::store;

/// What came back, and what did not.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recovered {
    /// Workspaces that the store did not have, or had as they were before.
    pub workspaces: Vec<WorkspaceName>,
    pub runs: usize,
    /// Directories of which neither the store nor the copy says what they are.
    pub unknown: Vec<PathBuf>,
}

impl Recovered {
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// For people, a line each.
    pub fn notices(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.workspaces.is_empty() || self.runs > 0 {
            let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
            let names: Vec<&str> = self.workspaces.iter().map(WorkspaceName::as_str).collect();
            let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
            lines.push(format!(
                "what the store had lost came back from the copies beside it: {}{names}, {}",
                count(self.workspaces.len(), "workspace"),
                count(self.runs, "run")
            ));
        }
        for path in &self.unknown {
            lines.push(format!(
                "{} is a workspace's directory without its record; its history is in host/history.git there: \
                 `git clone` reads it, `rm -r` ends it",
                path.display()
            ));
        }
        lines
    }
}

/// Puts into the store what it lacks.
///
/// # Errors
/// If the store cannot be written.
pub(super) async fn reconcile(shared: &Shared) -> Result<Recovered, Error> {
    let mut recovered = Recovered::default();
    for (id, directory) in ids_in::<WorkspaceId>(&shared.state_dir.join("workspaces")) {
        let places = Places::of(&shared.state_dir, &id);
        let stored = shared.workspaces.get(id.as_str());
        let copy = WorkspaceRecord::read_copy(&places.host()).ok().filter(|copy| copy.id == id);
        match (stored, copy) {
            // Not ours to touch: its own daemon will read it.
            (Err(store::Error::NewerRecord { .. }), _) => continue,
            (Ok(Some(stored)), Some(copy)) if copy.revision > stored.revision => {
                shared.workspaces.put(&copy).await.map_err(|e| failure::of_store(&e))?;
                // One ahead is a daemon that was killed between the two.
                if copy.revision > stored.revision + 1 {
                    recovered.workspaces.push(copy.name);
                }
            }
            (Ok(Some(_)), _) => {}
            (Ok(None) | Err(_), Some(copy)) => {
                shared.workspaces.put(&copy).await.map_err(|e| failure::of_store(&e))?;
                recovered.workspaces.push(copy.name);
            }
            (Ok(None) | Err(_), None) => {
                recovered.unknown.push(directory);
                continue;
            }
        }
        // What a purge has forgotten stays forgotten.
        let ending = |record: &WorkspaceRecord| {
            record.intent.as_ref().is_some_and(|intent| matches!(intent.operation, Operation::Destroy { .. }))
        };
        if shared.workspaces.get(id.as_str()).is_ok_and(|record| record.is_some_and(|record| ending(&record))) {
            continue;
        }
        for (run, directory) in ids_in::<RunId>(&places.host().join("runs")) {
            if run_came_back(shared, &run, &directory).await? {
                recovered.runs += 1;
            }
        }
    }
    // Runs of what was destroyed are known as long as it is kept.
    let ending = trash::old(&shared.state_dir, std::time::SystemTime::now());
    for (id, directory) in ids_in::<WorkspaceId>(&shared.state_dir.join("trash")) {
        if ending.iter().any(|(old, _)| *old == id) {
            continue;
        }
        for (run, directory) in ids_in::<RunId>(&directory.join("host/runs")) {
            // One that never ended has nobody who could end it.
            let over = RunRecord::read_copy(&directory).is_ok_and(|copy| copy.state.is_over());
            if over && run_came_back(shared, &run, &directory).await? {
                recovered.runs += 1;
            }
        }
    }
    Ok(recovered)
}

async fn run_came_back(shared: &Shared, run: &RunId, directory: &Path) -> Result<bool, Error> {
    let stored = shared.runs.get(run.as_str());
    let known_to_be_over = matches!(&stored, Ok(Some(stored)) if stored.state.is_over());
    if known_to_be_over || matches!(stored, Err(store::Error::NewerRecord { .. })) {
        return Ok(false);
    }
    // A run that never began may have no copy.
    let Some(copy) = RunRecord::read_copy(directory).ok().filter(|copy| copy.id == *run) else { return Ok(false) };
    let there = matches!(stored, Ok(Some(_)));
    if there && !copy.state.is_over() {
        return Ok(false);
    }
    shared.runs.put(&copy).await.map_err(|e| failure::of_store(&e))?;
    // One that is over in its copy alone is a daemon that was killed between the two.
    Ok(!there)
}

/// The directories whose names are ids, and no links.
fn ids_in<I: std::str::FromStr>(directory: &Path) -> Vec<(I, PathBuf)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).collect()
}
