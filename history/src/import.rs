//! Copying a project into a work tree, in one pass: each file is read once, gated, copied, hashed and packed.
//!
//! What comes in is what git would add now: the tracked files as they are in the project's work tree, and those that are untracked
//! and not ignored. Files are copied, never hard-linked, since a guest could write through such a link. Links are copied as links.
//! What is kept out (secrets, large files, submodules, devices) is said and remembered.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fs::{Root, Stat};

use crate::assemble::assemble;
use crate::cache::{Cache, Key, Seen};
use crate::commit::{self, Checkpoint, Meta};
use crate::compare::tally;
use crate::history::{BASE, HEAD, History, Owner};
use crate::modes::Modes;
use crate::notes::{Class, Note, Notes};
use crate::object::Kind;
use crate::origin::Origin;
use crate::pack::Writer;
use crate::rules::{HEAD as SECRET_HEAD, secret};
use crate::scan::{Local, now_ms, read_once, remember, too_large};
use crate::walk::{Leaf, Place, Visitor, walk};
use crate::{Error, Result, names, project};

/// What [`History::import`] answers.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The first checkpoint, called `base`.
    pub checkpoint: Checkpoint,
    pub files: u64,
    pub bytes: u64,
    /// What was not copied, with why. What the rules ignore is not in it.
    pub left_out: Notes,
    /// The commit the project's HEAD was at.
    pub project_head: Option<String>,
    /// What a reader should know: links that lead out, files that changed meanwhile.
    pub notes: Vec<String>,
}

/// How many paths of each class [`Imported::left_out`] lists, since so many are remembered for publishing.
const REMEMBERED: usize = 1_000_000;
const NOTES: usize = 100;
/// What a project may weigh, as a walk weighs it: it is its user's own.
pub(crate) const MOST: u64 = 3_000_000;
const TRIES: usize = 3;

impl History {
    /// Copies `project` into the work tree `tree`, which is emptied first, and makes the checkpoint `base`. It may be killed and run
    /// again until there is a second checkpoint; then it refuses, since it would empty a work tree with work in it.
    ///
    /// `let_in` says of a file that looks like a secret, and that `.vcodinginclude` names, whether the user agreed to that.
    /// `progress` hears the number of files copied so far.
    pub fn import(
        &mut self,
        project: &Path,
        tree: &Path,
        owner: Option<Owner>,
        meta: &Meta,
        let_in: &LetIn<'_>,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Imported> {
        if self.base()?.is_some() && self.base()? != self.head()? {
            return Err(Error::HasWork);
        }
        let (source, target) = (Root::open(project)?, Root::open(tree)?);
        target.clear()?;
        let tracked = project::tracked(project)?;
        let rules = project::rules(&source, &tracked)?;

        let writer = self.store.writer();
        let copy = Copy {
            target: &target,
            owner,
            max_file: self.settings.max_file,
            let_in,
            writer: &writer,
            report: Mutex::new(Report {
                files: 0,
                bytes: 0,
                notes: Notes::default(),
                modes: Modes::default(),
                progress,
            }),
        };
        let mut walked = walk(&source, &rules, &copy, REMEMBERED, MOST)?;
        let mut report = copy.report.into_inner().unwrap_or_else(PoisonError::into_inner);
        let assembled = assemble(&mut walked, &writer, &Cache::default(), |_| Ok(None))?;
        for path in &assembled.hollow {
            // It was made before it was known that nothing in it is copied. If it holds something all the same, it stays.
            target.remove_dir(names::as_path(path))?;
        }
        let counts = tally(|id| assembled.entries(&self.store, id), None, Some(assembled.root))?;
        let commit = commit::write(assembled.root, None, meta, counts);
        let id = writer.add(&mut crate::pack::Deflater::new(), Kind::Commit, &commit)?;
        let finished = writer.finish_with(&target)?;
        self.store.keep(finished)?;

        let kept_out = walked.notes.listed(|_| true).into_iter().map(|note| note.path.clone()).collect();
        Origin { head: tracked.head.clone(), kept_out, sparse: tracked.sparse }.save(&self.host.join("origin"))?;
        // What the cache knows went by the rules of its time.
        self.forget()?;
        let left_out = std::mem::take(&mut walked.notes);
        rules.save(&self.host.join("rules"))?;
        self.rules = rules;
        report.modes.weigh(walked.weight);
        report.modes.save(&self.host.join("modes"))?;
        self.modes = report.modes;
        let mut cache = remember(walked, assembled.trees);
        cache.mark_racy(now_ms());
        self.remember(cache, report.files)?;
        self.store.set_reference(HEAD, id)?;
        self.store.set_reference(BASE, id)?;

        let mut notes = tracked.notes;
        notes.extend(report.notes.lines());
        (report.progress)(report.files);
        Ok(Imported {
            checkpoint: self.checkpoint_at(id)?,
            files: report.files,
            bytes: report.bytes,
            left_out,
            project_head: tracked.head,
            notes,
        })
    }
}

/// By the path of a file.
pub type LetIn<'a> = dyn Fn(&[u8]) -> bool + Sync + 'a;

struct Copy<'a, 'caller> {
    target: &'a Root,
    owner: Option<Owner>,
    max_file: u64,
    let_in: &'a LetIn<'a>,
    writer: &'a Writer<'a>,
    report: Mutex<Report<'caller>>,
}

struct Report<'caller> {
    files: u64,
    bytes: u64,
    notes: Notes,
    modes: Modes,
    progress: &'caller mut (dyn FnMut(u64) + Send),
}

impl Visitor for Copy<'_, '_> {
    type Local = Local;

    fn local(&self) -> Local {
        Local::new()
    }

    fn left_out(&self, _directory: &Root, note: &Note) -> Result<bool> {
        // The project's own repository is read by other means.
        Ok(!note.class.is_aside() && note.path != b".git")
    }

    fn enter(&self, path: &[u8], directory: &Root) -> Result<()> {
        let mode = Modes::granted(directory.stat(Path::new(""))?.mode);
        if !path.is_empty() {
            self.target.make_dir(names::as_path(path), mode)?;
            self.own(path)?;
        }
        self.target.set_dir_mode(names::as_path(path), mode)?;
        self.report().modes.add(path, mode);
        Ok(())
    }

    fn file(&self, local: &mut Local, place: &Place<'_>, name: &OsString) -> Result<Leaf> {
        match place.directory.stat(Path::new(name)) {
            Ok(stat) if stat.size > self.max_file => {
                return Ok(Leaf::LeftOut(Class::TooLarge, too_large(self.max_file)));
            }
            Ok(_) => {}
            Err(error) => return Ok(Leaf::Failed(error.to_string())),
        }
        let path = names::join(place.path, name.as_bytes());
        let mut read = None;
        for _ in 0..TRIES {
            match read_once(place.directory, name, self.max_file, &mut local.content) {
                Ok(answer) => read = Some(answer),
                Err(why) => return Ok(Leaf::Failed(why)),
            }
            if read.is_some_and(|(_, still)| still) {
                break;
            }
        }
        let (stat, still) = read.expect("it was read at least once");
        if local.content.len() as u64 > self.max_file {
            return Ok(Leaf::LeftOut(Class::TooLarge, too_large(self.max_file)));
        }
        let head = &local.content[..local.content.len().min(SECRET_HEAD)];
        if let Some(why) = secret(&path, head) {
            if !place.scope.included(name.as_bytes(), false) {
                return Ok(Leaf::LeftOut(Class::Secret, why));
            }
            if !(self.let_in)(&path) {
                let why = format!("{why}; .vcodinginclude names it, and nobody agreed to that");
                return Ok(Leaf::LeftOut(Class::Secret, why));
            }
            self.note(&path, format!("{why}, let in by .vcodinginclude"));
        }
        if !still {
            self.note(&path, "changed while it was copied".to_owned());
        }
        let id = match self.writer.add(&mut local.deflater, Kind::Blob, &local.content) {
            Ok(id) => id,
            Err(error @ Error::Collision) => return Ok(Leaf::Failed(error.to_string())),
            Err(error) => return Err(error),
        };
        let copied = self.write(&path, &stat, &local.content)?;
        let seen = Seen { key: Key::of(&copied), id, racy: false, suspect: false };
        self.count(local.content.len() as u64);
        Ok(Leaf::File(seen))
    }

    fn link(&self, local: &mut Local, place: &Place<'_>, name: &OsString) -> Result<Leaf> {
        let target = match place.directory.read_link(Path::new(name)) {
            Ok(target) => target,
            Err(error) => return Ok(Leaf::Failed(error.to_string())),
        };
        let path = names::join(place.path, name.as_bytes());
        if leads_out(place.path, &target) {
            self.note(&path, format!("a link that leads out of the project, to {}", names::show(target.as_bytes())));
        }
        let id = self.writer.add(&mut local.deflater, Kind::Blob, target.as_bytes())?;
        self.target.symlink(&target, names::as_path(&path))?;
        self.own(&path)?;
        self.count(target.len() as u64);
        Ok(Leaf::Link(id))
    }
}

impl<'caller> Copy<'_, 'caller> {
    /// Writes a file of the work tree and says how it stands there.
    fn write(&self, path: &[u8], stat: &Stat, content: &[u8]) -> Result<Stat> {
        let path = names::as_path(path);
        // Set-id bits stay behind, and its owner can always write it.
        let mode = (stat.mode & 0o777) | 0o600;
        let mut file = self.target.create_new(path, mode)?;
        file.write_all(content)
            .and_then(|()| file.set_permissions(std::fs::Permissions::from_mode(mode)))
            .map_err(Error::io("write", path))?;
        if let Some(owner) = self.owner {
            std::os::unix::fs::fchown(file.as_fd(), Some(owner.uid), Some(owner.gid))
                .map_err(Error::io("set the owner of", path))?;
        }
        Ok(Stat::of_file(&file)?)
    }

    fn own(&self, path: &[u8]) -> Result<()> {
        if let Some(owner) = self.owner {
            self.target.chown(names::as_path(path), owner.uid, owner.gid)?;
        }
        Ok(())
    }

    fn note(&self, path: &[u8], why: String) {
        self.report().notes.add(Note::new(path.to_vec(), Class::Remark, why), NOTES);
    }

    fn count(&self, bytes: u64) {
        let mut report = self.report();
        report.files += 1;
        report.bytes += bytes;
        if report.files.is_multiple_of(64) {
            let files = report.files;
            (report.progress)(files);
        }
    }

    fn report(&self) -> MutexGuard<'_, Report<'caller>> {
        // Numbers and remarks hold whatever a panicking worker was at.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a link in `directory` names something outside of the project (by its text; nothing is resolved).
pub(crate) fn leads_out(directory: &[u8], target: &OsStr) -> bool {
    let mut depth = directory.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).count();
    for component in Path::new(target).components() {
        match component {
            Component::RootDir | Component::Prefix(_) => return true,
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_out_are_known() {
        for (directory, target) in [("", "/etc"), ("", ".."), ("a/b", "../../../x"), ("a", "../b/../../c")] {
            assert!(leads_out(directory.as_bytes(), OsStr::new(target)), "{directory} {target}");
        }
        for (directory, target) in [("", "a"), ("a/b", "../../x"), ("a", "./b/../c")] {
            assert!(!leads_out(directory.as_bytes(), OsStr::new(target)), "{directory} {target}");
        }
    }
}
