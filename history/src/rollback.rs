//! Going back: the work tree made like a checkpoint, and verified.
//!
//! Scan, compare with the target, unlink what is too much, write the rest, scan again: only a tree id that is the target's counts.
//! Each name is replaced by a rename beneath a directory that is held open. What no checkpoint holds is never deleted: ignored and
//! left-out files stay where they are and are counted, or are moved away where that is wanted; where one stands in the way of a file
//! of the target, it is renamed aside and said.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs::Root;

use crate::checkpoint::Activity;
use crate::commit::{self, Checkpoint, Meta};
use crate::compare::{Change, compare, tally};
use crate::graft::{Made, Wanted, graft, is_plain};
use crate::history::{HEAD, History, Owner};
use crate::leftover::{Leftovers, Sweep};
use crate::notes::{Class, Notes};
use crate::object::Kind;
use crate::pack::Deflater;
use crate::scan::{Basis, Scanned, remember, scan};
use crate::tree::{Mode, Strict};
use crate::{Error, Id, Result, names};

/// What [`History::rollback`] answers.
#[derive(Clone, Debug)]
pub struct RolledBack {
    /// The checkpoint that was appended.
    pub checkpoint: Checkpoint,
    /// What is left out or could not be read.
    pub notes: Notes,
    /// What was moved out of the way and what hindered, for a reader.
    pub remarks: Vec<String>,
    /// What is in no checkpoint, was not there at the target and stays.
    pub left: Leftovers,
    /// What of that was moved away.
    pub moved: Leftovers,
}

/// What to go back to.
#[derive(Clone, Copy, Debug)]
pub struct Rollback<'a> {
    pub to: Id,
    /// Only these (files or directories; one that the checkpoint does not have is removed); all if there are none.
    pub paths: &'a [Vec<u8>],
    /// What no checkpoint holds and what came after `to` is moved into this directory, which is made if there is any; else it stays.
    pub clean: Option<&'a Path>,
}

/// How often the tree is brought to the target before it is given up. A frozen guest needs one turn.
const TURNS: usize = 3;
/// Names tried for what is moved aside.
const ASIDES: u32 = 1000;

impl History {
    /// Makes the work tree like a checkpoint, or parts of it, and appends a checkpoint with the result.
    ///
    /// The caller has taken a checkpoint before, so that this can be undone, and nothing else writes to the tree. Whatever happens,
    /// running it again is safe.
    pub fn rollback(
        &mut self,
        tree: &Path,
        owner: Option<Owner>,
        back: &Rollback<'_>,
        meta: &Meta,
    ) -> Result<RolledBack> {
        let parent = self.newest()?;
        let source = self.checkpoint_at(back.to)?;
        let root = Root::open(tree)?;
        let target = if back.paths.is_empty() {
            source.tree
        } else {
            self.with_paths(&root, parent.tree, source.tree, back.paths)?
        };
        let sweep = Sweep::new(source.meta.time_ms, self.base()? == Some(back.to), back.paths);
        let mut moved = Leftovers::default();
        if let Some(clean) = back.clean {
            let moving = sweep.moving_into(clean);
            self.look(&root, target, Some(&moving))?;
            moved = moving.take();
        }
        let (mut scanned, remarks) = self.reach(&root, owner, target, &sweep)?;
        let left = sweep.take();
        let notes = std::mem::take(&mut scanned.walked.notes);
        self.remember(remember(scanned.walked, scanned.assembled.trees), scanned.read)?;
        root.sync_filesystem()?;
        let checkpoint = self.append(&parent, target, meta)?;
        Ok(RolledBack { checkpoint, notes, remarks, left, moved })
    }

    /// Brings the work tree to `target`; says what was in the way. The `sweep` has met what the last scan leaves out.
    fn reach(
        &mut self,
        root: &Root,
        owner: Option<Owner>,
        target: Id,
        sweep: &Sweep<'_>,
    ) -> Result<(Scanned, Vec<String>)> {
        let mut notes = Vec::new();
        for _ in 0..TURNS {
            drop(sweep.take());
            let scanned = self.look(root, target, Some(sweep))?;
            if scanned.assembled.root == target && self.stands(target, &scanned.walked.notes)? {
                return Ok((scanned, notes));
            }
            let changes = compare(|id| self.store.read_tree(id), Some(scanned.assembled.root), Some(target))?;
            let mut writer = Restore { history: self, root, owner, notes: &mut notes };
            writer.apply(&changes)?;
            notes.extend(scanned.walked.notes.listed(Class::is_failure).iter().map(|note| note.line()));
            notes.sort();
            notes.dedup();
        }
        Err(Error::Inexact { notes })
    }

    /// Whether nothing of `target` was among what could not be looked at. A directory that is too much for a scan and that the target
    /// does not have is left as any other thing that no checkpoint holds.
    fn stands(&self, target: Id, notes: &Notes) -> Result<bool> {
        let failures = notes.listed(Class::is_failure);
        for note in &failures {
            let aside = matches!(note.class, Class::TooDeep | Class::TooMany) && !note.path.is_empty();
            if !aside || self.store.lookup(target, &note.path)?.is_some() {
                return Ok(false);
            }
        }
        Ok(failures.len() as u64 == notes.total(Class::is_failure))
    }

    /// The tree as it is, with `reference` answering for what cannot be read; its objects are kept.
    fn look(&mut self, root: &Root, reference: Id, sweep: Option<&Sweep<'_>>) -> Result<Scanned> {
        let writer = self.store.writer();
        let basis = Basis {
            store: &self.store,
            cache: &self.cache,
            rules: &self.rules,
            max_file: self.settings.max_file,
            reference,
            activity: Activity::Still,
            most: self.modes.most(self.settings.most),
            sweep,
        };
        let scanned = scan(root, &basis, &writer)?;
        let finished = writer.finish()?;
        self.store.keep(finished)?;
        Ok(scanned)
    }

    /// The work tree as it is, with `paths` as they are in `source`.
    fn with_paths(&mut self, root: &Root, reference: Id, source: Id, paths: &[Vec<u8>]) -> Result<Id> {
        let now = self.look(root, reference, None)?.assembled.root;
        let mut wanted: Vec<Wanted> = Vec::new();
        for path in paths {
            let path = path.strip_suffix(b"/").unwrap_or(path);
            if !is_plain(path) {
                return Err(fs::Error::BadPath { path: names::as_path(path).to_path_buf() }.into());
            }
            let entry = self.store.lookup(source, path)?.map(|entry| (entry.mode, entry.id));
            wanted.push((path.to_vec(), entry));
        }
        let mut made = Made::new();
        let target = graft(&|id| self.store.read_tree(id), now, &wanted, Strict::History, &mut made)?;
        let writer = self.store.writer();
        let mut deflater = Deflater::new();
        for bytes in made.values() {
            writer.add(&mut deflater, Kind::Tree, bytes)?;
        }
        let finished = writer.finish()?;
        self.store.keep(finished)?;
        Ok(target)
    }

    fn append(&mut self, parent: &Checkpoint, tree: Id, meta: &Meta) -> Result<Checkpoint> {
        let counts = tally(|id| self.store.read_tree(id), Some(parent.tree), Some(tree))?;
        let writer = self.store.writer();
        let bytes = commit::write(tree, Some(parent.id), meta, counts);
        let id = writer.add(&mut Deflater::new(), Kind::Commit, &bytes)?;
        let finished = writer.finish()?;
        self.store.keep(finished)?;
        self.store.set_reference(HEAD, id)?;
        self.mark_run(meta, id)?;
        self.checkpoint_at(id)
    }
}

/// Writes a target's files into the work tree.
struct Restore<'a> {
    history: &'a History,
    root: &'a Root,
    owner: Option<Owner>,
    notes: &'a mut Vec<String>,
}

impl Restore<'_> {
    fn apply(&mut self, changes: &[Change]) -> Result<()> {
        // What goes, from the leaves up; a directory goes if nothing is left in it, so left-out files hold it.
        for change in changes.iter().rev() {
            let Some((old, _)) = change.old else { continue };
            let becomes_other = change.new.is_none_or(|(new, _)| new.is_directory() != old.is_directory());
            if becomes_other {
                self.remove(&change.path, old)?;
            }
        }
        // What comes, from the top down. Files of one directory follow each other, so that it is opened once.
        let mut held: Option<(&[u8], Root)> = None;
        for change in changes {
            let Some((mode, id)) = change.new else { continue };
            let (directory, name) = names::split(&change.path);
            let open = match held.take() {
                Some((path, open)) if path == directory => open,
                _ => self.root.dir(names::as_path(directory))?,
            };
            let replaces = change.old.is_some_and(|(old, _)| !old.is_directory());
            self.put(&open, &change.path, names::as_path(name), mode, id, replaces)?;
            held = Some((directory, open));
        }
        Ok(())
    }

    fn remove(&self, path: &[u8], mode: Mode) -> Result<()> {
        let path = names::as_path(path);
        let removed =
            if mode.is_directory() { self.root.remove_dir(path).map(|_| ()) } else { self.root.remove_file(path) };
        match removed {
            Err(error) if !error.is_missing() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Makes `name` in `directory` what the target says. `replaces` says that what stands there is in a checkpoint.
    fn put(&mut self, directory: &Root, path: &[u8], name: &Path, mode: Mode, id: Id, replaces: bool) -> Result<()> {
        for _ in 0..2 {
            let made = match mode {
                Mode::Directory => directory.make_dir(name, 0o755),
                Mode::Symlink => {
                    let target = self.history.store.read(Kind::Blob, id)?;
                    let target = std::ffi::OsStr::from_bytes(&target);
                    if replaces { directory.replace_link(target, name) } else { directory.symlink(target, name) }
                }
                Mode::File | Mode::Executable => {
                    let content = self.history.store.read(Kind::Blob, id)?;
                    self.write(directory, name, mode, &content, replaces)
                }
                Mode::Commit => return Err(Error::BadTree { id, why: "a submodule".to_owned() }),
            };
            match made {
                Ok(()) => {
                    if mode.is_directory() {
                        directory.set_dir_mode(name, self.history.modes.of(path))?;
                    }
                    if let Some(owner) = self.owner.filter(|_| matches!(mode, Mode::Directory | Mode::Symlink)) {
                        directory.chown(name, owner.uid, owner.gid)?;
                    }
                    return Ok(());
                }
                // A directory is there already, held by what was left out.
                Err(fs::Error::Exists { .. })
                    if mode.is_directory() && directory.stat(name)?.kind == fs::Kind::Directory =>
                {
                    return Ok(());
                }
                // Something that no checkpoint holds; a rename onto a directory says so in its own words.
                Err(fs::Error::Exists { .. }) => self.set_aside(directory, path, name)?,
                Err(fs::Error::Io { .. })
                    if directory.stat(name).is_ok_and(|stat| stat.kind == fs::Kind::Directory) =>
                {
                    self.set_aside(directory, path, name)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Inexact { notes: vec![format!("{}: something stands in its place", names::show(path))] })
    }

    fn write(&self, directory: &Root, name: &Path, mode: Mode, content: &[u8], replaces: bool) -> fs::Result<()> {
        let bits = if mode == Mode::Executable { 0o755 } else { 0o644 };
        let owner = self.owner;
        let fill = |file: &mut std::fs::File| {
            file.write_all(content)?;
            file.set_permissions(std::fs::Permissions::from_mode(bits))?;
            match owner {
                Some(owner) => std::os::unix::fs::fchown(file.as_fd(), Some(owner.uid), Some(owner.gid)),
                None => Ok(()),
            }
        };
        if replaces {
            return directory.replace(name, bits, fill);
        }
        // Where nothing stands, a file made in place saves the rename. A kill may leave half of it: the next turn replaces it.
        let mut file = directory.create_new(name, bits)?;
        fill(&mut file).map_err(|source| fs::Error::Io { doing: "write", path: name.to_path_buf(), source })
    }

    fn set_aside(&mut self, directory: &Root, path: &[u8], name: &Path) -> Result<()> {
        for number in 1..=ASIDES {
            let aside = names::aside(name.as_os_str(), number);
            if directory.stat(Path::new(&aside)).is_ok() {
                continue;
            }
            directory.rename(name, Path::new(&aside))?;
            let aside = names::show(aside.as_bytes());
            self.notes
                .push(format!("{}: what stood there is in no checkpoint and is kept as {aside}", names::show(path)));
            return Ok(());
        }
        Err(Error::Inexact { notes: vec![format!("{}: too much was moved aside already", names::show(path))] })
    }
}
