//! Taking a checkpoint, and finding one again.

use std::path::Path;

use fs::Root;

use crate::commit::{self, Checkpoint, Meta};
use crate::compare::tally;
use crate::history::{BASE, HEAD, History};
use crate::notes::Notes;
use crate::object::Kind;
use crate::pack::Deflater;
use crate::scan::{Basis, remember, scan};
use crate::{Error, Id, Result};

/// What [`History::checkpoint`] answers.
#[derive(Clone, Debug)]
pub struct Checkpointed {
    /// The newest checkpoint now.
    pub checkpoint: Checkpoint,
    /// False if the work tree was as the newest checkpoint already.
    pub created: bool,
    /// What was left out or could not be read.
    pub notes: Notes,
}

/// What else may write to the work tree while a checkpoint is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// The guest runs.
    Running,
    /// A run has ended, though others may go on: files that were read beside it soon after they changed are read again, since a
    /// mapped write leaves no trace that a later scan could see.
    RunEnded,
    /// Nothing: the guest is frozen, stopped or gone. What is read now need not be suspected later.
    Still,
}

/// How few digits of an id name a checkpoint.
const MIN_PREFIX: usize = 4;

impl History {
    /// Records the work tree as it is now, unless it is as the newest checkpoint already; a new label is recorded even then.
    pub fn checkpoint(&mut self, tree: &Path, meta: &Meta, activity: Activity) -> Result<Checkpointed> {
        let parent = self.newest()?;
        let root = Root::open(tree)?;
        let writer = self.store.writer();
        let basis = Basis {
            store: &self.store,
            cache: &self.cache,
            rules: &self.rules,
            max_file: self.settings.max_file,
            reference: parent.tree,
            activity,
            most: self.modes.most(self.settings.most),
            sweep: None,
        };
        let mut scanned = scan(&root, &basis, &writer)?;
        let new = scanned.assembled.root;
        let labelled = meta.label.is_some() && meta.label != parent.meta.label;
        let created = new != parent.tree || labelled;
        let mut id = parent.id;
        if created {
            let read = |id: Id| scanned.assembled.entries(&self.store, id);
            let counts = tally(read, Some(parent.tree), Some(new))?;
            let bytes = commit::write(new, Some(parent.id), meta, counts);
            id = writer.add(&mut Deflater::new(), Kind::Commit, &bytes)?;
        }
        // A checkpoint is worth little beside a work tree that a loss of power empties: who comes back sees every file changed.
        let durable = created || scanned.read > 0;
        let finished = if durable { writer.finish_with(&root)? } else { writer.finish()? };
        self.store.keep(finished)?;
        if created {
            self.store.set_reference(HEAD, id)?;
        }
        self.mark_run(meta, id)?;
        let notes = std::mem::take(&mut scanned.walked.notes);
        self.remember(remember(scanned.walked, scanned.assembled.trees), scanned.read)?;
        let checkpoint = if created { self.checkpoint_at(id)? } else { parent };
        Ok(Checkpointed { checkpoint, created, notes })
    }

    /// Remembers where a run began and ended. References, since a run that changes nothing has no checkpoint of its own.
    pub(crate) fn mark_run(&self, meta: &Meta, id: Id) -> Result<()> {
        let Some(run) = meta.run.as_deref().filter(|run| is_run(run)) else {
            return Ok(());
        };
        let start = run_reference(run, "start");
        if self.store.reference(&start)?.is_none() {
            self.store.set_reference(&start, id)?;
        }
        self.store.set_reference(&run_reference(run, "end"), id)
    }

    /// Whether the checkpoint `id` has a file, link or directory at `path`.
    pub fn has(&self, id: Id, path: &[u8]) -> Result<bool> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let tree = self.checkpoint_at(id)?.tree;
        Ok(self.store.lookup(tree, path)?.is_some())
    }

    /// The newest `limit` checkpoints, newest first.
    pub fn list(&self, limit: usize) -> Result<Vec<Checkpoint>> {
        self.chain().take(limit).collect()
    }

    /// The checkpoint with this name: `base`, `@`, `@~N`, `run:ID` (its end), `run:ID^` (its start), a label, or at least four
    /// digits of its id. Of several with one label the newest is meant.
    pub fn resolve(&self, name: &str) -> Result<Checkpoint> {
        let unknown = || Error::NoSuchCheckpoint { name: name.to_owned() };
        if name == "base" {
            return self.checkpoint_at(self.store.reference(BASE)?.ok_or_else(unknown)?);
        }
        if name == "@" {
            return self.chain().next().ok_or_else(unknown)?;
        }
        if let Some(back) = name.strip_prefix("@~") {
            let back = back.parse().map_err(|_| unknown())?;
            return self.chain().nth(back).ok_or_else(unknown)?;
        }
        if let Some(run) = name.strip_prefix("run:") {
            let (run, side) = run.strip_suffix('^').map_or((run, "end"), |run| (run, "start"));
            let id = if is_run(run) { self.store.reference(&run_reference(run, side))? } else { None };
            return self.checkpoint_at(id.ok_or_else(unknown)?);
        }
        self.by_label_or_id(name)?.ok_or_else(unknown)
    }

    fn by_label_or_id(&self, name: &str) -> Result<Option<Checkpoint>> {
        let prefix = name.to_ascii_lowercase();
        let is_prefix = (MIN_PREFIX..=40).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut found: Option<Checkpoint> = None;
        let mut several = false;
        for checkpoint in self.chain() {
            let checkpoint = checkpoint?;
            if checkpoint.meta.label.as_deref() == Some(name) {
                return Ok(Some(checkpoint));
            }
            if is_prefix && checkpoint.id.to_string().starts_with(&prefix) {
                several |= found.is_some();
                found = Some(checkpoint);
            }
        }
        if several {
            return Err(Error::Ambiguous { name: name.to_owned() });
        }
        Ok(found)
    }

    /// All checkpoints, newest first.
    fn chain(&self) -> impl Iterator<Item = Result<Checkpoint>> {
        let mut next = self.head().transpose();
        std::iter::from_fn(move || {
            let checkpoint = next.take()?.and_then(|id| self.checkpoint_at(id));
            next = checkpoint.as_ref().ok().and_then(|checkpoint| checkpoint.parent).map(Ok);
            Some(checkpoint)
        })
    }
}

/// A run's id becomes part of a reference's path.
fn is_run(run: &str) -> bool {
    (1..=64).contains(&run.len())
        && run.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn run_reference(run: &str, side: &str) -> String {
    format!("refs/vcoding/runs/{run}/{side}")
}
