//! The way over a directory tree: which names there are, with the rules applied, by two workers.
//!
//! Both a scan of the work tree and the copy of a project go this way; what they do with a file is their [`Visitor`]'s business. The
//! walk is a stack of jobs, not a recursion: a directory is opened by its path beneath the root, so the number of descriptors does
//! not grow with depth, and a wide directory is cut into batches, so that both workers have something to do in it.
//!
//! What a walk finds is held in memory, so it is weighed: a file's name counts one, a long one more, a directory two and more. What is
//! left out by a rule is not held and weighs nothing; a directory is read in runs. One that would be too much is not listed: it keeps
//! the state that it had, and that is said.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use fs::{Kind, Root};

use crate::cache::Seen;
use crate::files::Files;
use crate::names::{self, MAX_DEPTH, MAX_PATH};
use crate::notes::{Class, Note, Notes};
use crate::rules::{self, Rules, Scope, Verdict};
use crate::{Error, Id, Result};

/// Two gain a factor of up to 1.9 over one; more gain nothing on a small machine.
const WORKERS: usize = 2;
const BATCH: usize = 128;
/// Names of a directory that are read before those that are left out are dropped.
const RUN: usize = 1 << 16;
/// What weighs one, in bytes of a name or path.
const HEAVY: usize = 64;

/// What a visitor makes of a file or link.
pub(crate) enum Leaf {
    /// A file that is as [`Visitor::known`] has it.
    AsKnown(Seen),
    File(Seen),
    Link(Id),
    /// Not in the history, by a rule.
    LeftOut(Class, String),
    /// Not readable now; it keeps the entry it had.
    Failed(String),
}

/// A directory in which a visitor is asked about names.
pub(crate) struct Place<'a> {
    pub(crate) path: &'a [u8],
    pub(crate) directory: &'a Root,
    pub(crate) scope: &'a Scope<'a>,
}

pub(crate) trait Visitor: Sync {
    /// What a worker keeps for itself.
    type Local;

    fn local(&self) -> Self::Local;

    /// The files of a directory of which it is known that they are in the history, sorted by name: the rules are not asked again.
    fn known(&self, _path: &[u8]) -> Option<&Files> {
        None
    }

    /// A directory is about to be walked. Errors of a visitor end the walk.
    fn enter(&self, path: &[u8], directory: &Root) -> Result<()>;

    /// A name in `directory` is left out; whether that is noted.
    fn left_out(&self, _directory: &Root, _note: &Note) -> Result<bool> {
        Ok(true)
    }

    fn file(&self, local: &mut Self::Local, place: &Place<'_>, name: &OsString) -> Result<Leaf>;

    fn link(&self, local: &mut Self::Local, place: &Place<'_>, name: &OsString) -> Result<Leaf>;
}

/// What was found in one directory.
#[derive(Default)]
pub(crate) struct Listing {
    /// Sorted by name but in directories that were cut into batches.
    pub(crate) files: Files,
    pub(crate) links: Vec<(Vec<u8>, Id)>,
    /// How many batches are in it.
    pub(crate) batches: usize,
    /// How many of the files are as they were known.
    pub(crate) as_known: usize,
    pub(crate) directories: Vec<Vec<u8>>,
    /// Names whose previous entry stays.
    pub(crate) failed: Vec<Vec<u8>>,
    /// Something is in it that the history leaves out.
    pub(crate) holds_more: bool,
    /// The directory itself could not be walked: all of it keeps its previous state.
    pub(crate) broken: bool,
}

#[derive(Default)]
pub(crate) struct Walked {
    /// By path. Ordered so that going backwards meets every directory before the one it lies in.
    pub(crate) listings: BTreeMap<Vec<u8>, Listing>,
    /// What is left out, and what could not be read.
    pub(crate) notes: Notes,
    /// Of all that is listed.
    pub(crate) weight: u64,
}

struct Job {
    path: Vec<u8>,
    /// The directory is ignored; only what is kept all the same counts.
    only_kept: bool,
    work: Work,
}

enum Work {
    Directory,
    Batch { directory: Arc<Root>, names: Vec<(OsString, Kind)> },
}

/// A directory's names, sorted by what becomes of them.
struct Listed {
    directory: Root,
    listing: Listing,
    notes: Notes,
    jobs: Vec<Job>,
    leaves: Vec<(OsString, Kind)>,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    working: usize,
    error: Option<Error>,
}

struct Walk<'a, V> {
    root: &'a Root,
    rules: &'a Rules,
    visitor: &'a V,
    note_limit: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
    walked: Mutex<Walked>,
    weight: AtomicU64,
    most: u64,
}

/// Walks all of `root`, as far as it weighs no more than `most`. Of each class of notes `note_limit` paths are kept.
pub(crate) fn walk<V: Visitor>(
    root: &Root,
    rules: &Rules,
    visitor: &V,
    note_limit: usize,
    most: u64,
) -> Result<Walked> {
    let top = Job { path: Vec::new(), only_kept: false, work: Work::Directory };
    let walk = Walk {
        root,
        rules,
        visitor,
        note_limit,
        queue: Mutex::new(Queue { jobs: vec![top], working: 0, error: None }),
        wake: Condvar::new(),
        walked: Mutex::default(),
        weight: AtomicU64::new(0),
        most,
    };
    std::thread::scope(|scope| {
        for _ in 1..WORKERS {
            scope.spawn(|| walk.work());
        }
        walk.work();
    });
    let queue = walk.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    match queue.error {
        Some(error) => Err(error),
        None => {
            let walked = walk.walked.into_inner().unwrap_or_else(PoisonError::into_inner);
            Ok(Walked { weight: walk.weight.into_inner(), ..walked })
        }
    }
}

impl<V: Visitor> Walk<'_, V> {
    fn work(&self) {
        let mut local = self.visitor.local();
        while let Some(job) = self.next() {
            let done = self.perform(&mut local, job);
            let mut queue = lock(&self.queue);
            queue.working -= 1;
            if let Err(error) = done {
                queue.jobs.clear();
                queue.error.get_or_insert(error);
            }
            if queue.jobs.is_empty() && queue.working == 0 {
                self.wake.notify_all();
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        loop {
            // The newest first: what lies deep is done before what lies wide, so the stack stays small.
            if let Some(job) = queue.jobs.pop() {
                queue.working += 1;
                return Some(job);
            }
            if queue.working == 0 {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn push(&self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let mut queue = lock(&self.queue);
        if queue.error.is_none() {
            queue.jobs.extend(jobs);
            self.wake.notify_all();
        }
    }

    fn perform(&self, local: &mut V::Local, job: Job) -> Result<()> {
        let scope = self.rules.scope(&job.path);
        match job.work {
            Work::Batch { directory, names } => {
                let place = Place { path: &job.path, directory: &directory, scope: &scope };
                self.leaves(local, &place, names)
            }
            Work::Directory => match self.list(&job.path, &scope, job.only_kept) {
                Ok(listed) => {
                    // Before its subdirectories can be entered by the other worker.
                    self.visitor.enter(&job.path, &listed.directory)?;
                    self.record(&job.path, listed.listing, listed.notes);
                    self.push(listed.jobs);
                    self.split(local, &job, &scope, listed.directory, listed.leaves)
                }
                Err(NotListed::Visitor(error)) => Err(error),
                Err(NotListed::Here(class, why)) => {
                    let note = Note::new(job.path.clone(), class, why);
                    let noted = match self.root.dir(names::as_path(names::split(&job.path).0)) {
                        Ok(parent) if !job.path.is_empty() => self.visitor.left_out(&parent, &note)?,
                        _ => true,
                    };
                    let mut walked = lock(&self.walked);
                    if noted {
                        walked.notes.add(note, self.note_limit);
                    }
                    walked.listings.entry(job.path).or_default().broken = true;
                    Ok(())
                }
            },
        }
    }

    /// Lists a directory and sorts its names by what becomes of them.
    fn list(&self, path: &[u8], scope: &Scope<'_>, only_kept: bool) -> std::result::Result<Listed, NotListed> {
        if path.len() > MAX_PATH || path.iter().filter(|&&byte| byte == b'/').count() >= MAX_DEPTH {
            return Err(NotListed::Here(Class::TooDeep, "lies too deep to be walked".to_owned()));
        }
        let directory = self.root.dir(names::as_path(path))?;
        let mut listing = Listing { holds_more: only_kept, ..Listing::default() };
        let mut notes = Notes::default();
        let (mut leaves, mut jobs) = (Vec::new(), Vec::new());
        let mut weight = 0;
        let mut entries = directory.entries()?;
        loop {
            let run = entries.by_ref().take(RUN).collect::<fs::Result<Vec<_>>>();
            let mut run = run?;
            if run.is_empty() {
                break;
            }
            if weight > 0 {
                // Runs follow each other in no order.
                listing.batches = 1;
            }
            // As what is known of them is sorted: looking it up goes forward through memory.
            run.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            let (known, mut next) = (self.visitor.known(path), 0);
            let mut more = 0;
            for entry in run {
                let name = entry.name.as_bytes();
                more += 1 + (name.len() / HEAVY) as u64;
                if entry.kind == Kind::File && known.is_some_and(|known| goes_on_with(known, &mut next, name)) {
                    leaves.push((entry.name, entry.kind));
                    continue;
                }
                let is_directory = entry.kind == Kind::Directory;
                let verdict = rules::settle(scope.verdict(name, is_directory, only_kept), &directory, name);
                let out = outside(path, name, entry.kind, scope).or_else(|| ruled_out(verdict, entry.kind));
                if let Some((class, why)) = out {
                    more -= 1 + (name.len() / HEAVY) as u64;
                    listing.holds_more = true;
                    let note = Note::new(names::join(path, name), class, why);
                    if self.visitor.left_out(&directory, &note).map_err(NotListed::Visitor)? {
                        notes.add(note, self.note_limit);
                    }
                } else if is_directory {
                    more += 1 + (path.len() / HEAVY) as u64;
                    listing.directories.push(name.to_vec());
                    let only_kept = verdict == Verdict::OnlyKept;
                    jobs.push(Job { path: names::join(path, name), only_kept, work: Work::Directory });
                } else {
                    leaves.push((entry.name, entry.kind));
                }
            }
            weight += more;
            if self.weight.fetch_add(more, Ordering::Relaxed) + more > self.most {
                // Others may still fit.
                self.weight.fetch_sub(weight, Ordering::Relaxed);
                let why = "holds more names than a checkpoint of this work tree may have, so it keeps the state it had";
                return Err(NotListed::Here(Class::TooMany, why.to_owned()));
            }
        }
        drop(entries);
        Ok(Listed { directory, listing, notes, jobs, leaves })
    }

    /// Works on the first batch of a directory's files and leaves the others to whoever is free.
    fn split(
        &self,
        local: &mut V::Local,
        job: &Job,
        scope: &Scope<'_>,
        directory: Root,
        mut names: Vec<(OsString, Kind)>,
    ) -> Result<()> {
        let directory = Arc::new(directory);
        let mut batches = Vec::new();
        while names.len() > BATCH {
            let names = names.split_off(names.len() - BATCH);
            let work = Work::Batch { directory: Arc::clone(&directory), names };
            batches.push(Job { path: job.path.clone(), only_kept: job.only_kept, work });
        }
        self.push(batches);
        self.leaves(local, &Place { path: &job.path, directory: &directory, scope }, names)
    }

    fn leaves(&self, local: &mut V::Local, place: &Place<'_>, names: Vec<(OsString, Kind)>) -> Result<()> {
        let mut listing = Listing { batches: 1, ..Listing::default() };
        listing.files.reserve(names.len());
        let mut notes = Notes::default();
        for (name, kind) in names {
            let leaf = match kind {
                Kind::Symlink => self.visitor.link(local, place, &name)?,
                _ => self.visitor.file(local, place, &name)?,
            };
            let name = name.into_vec();
            match leaf {
                Leaf::AsKnown(seen) => {
                    listing.as_known += 1;
                    listing.files.push(&name, seen);
                }
                Leaf::File(seen) => listing.files.push(&name, seen),
                Leaf::Link(id) => listing.links.push((name, id)),
                Leaf::LeftOut(class, why) => {
                    listing.holds_more = true;
                    let note = Note::new(names::join(place.path, &name), class, why);
                    if self.visitor.left_out(place.directory, &note)? {
                        notes.add(note, self.note_limit);
                    }
                }
                Leaf::Failed(why) => {
                    notes.add(Note::new(names::join(place.path, &name), Class::Unreadable, why), self.note_limit);
                    listing.failed.push(name);
                }
            }
        }
        self.record(place.path, listing, notes);
        Ok(())
    }

    fn record(&self, path: &[u8], part: Listing, notes: Notes) {
        let mut walked = lock(&self.walked);
        walked.notes.merge(notes, self.note_limit);
        let listing = walked.listings.entry(path.to_vec()).or_default();
        listing.files.append(part.files);
        listing.links.extend(part.links);
        listing.batches += part.batches;
        listing.as_known += part.as_known;
        listing.directories.extend(part.directories);
        listing.failed.extend(part.failed);
        listing.holds_more |= part.holds_more;
    }
}

/// Whether `name` is the next of the `known` ones; those before it are gone.
fn goes_on_with(known: &Files, next: &mut usize, name: &[u8]) -> bool {
    while let Some((first, _)) = known.get(*next) {
        match first.cmp(name) {
            std::cmp::Ordering::Less => *next += 1,
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Greater => return false,
        }
    }
    false
}

/// Why a directory has no listing.
enum NotListed {
    Here(Class, String),
    Visitor(Error),
}

impl From<fs::Error> for NotListed {
    fn from(error: fs::Error) -> Self {
        Self::Here(Class::Unreadable, error.to_string())
    }
}

/// Why a name is outside of every history, whatever the rules say.
fn outside(path: &[u8], name: &[u8], kind: Kind, scope: &Scope<'_>) -> Option<(Class, &'static str)> {
    if fs::is_temporary(std::ffi::OsStr::from_bytes(name)) {
        return Some((Class::Temporary, "a name that is only made for a moment"));
    }
    if names::is_aside(name) {
        return Some((Class::MovedAside, "was moved out of the way by a rollback"));
    }
    if name == b".git" {
        let why = if path.is_empty() { "the work tree's own repository" } else { "the inside of another repository" };
        return Some((Class::OtherRepository, why));
    }
    if let Some(why) = names::refused(name) {
        return Some((Class::BadName, why));
    }
    (kind == Kind::Directory && scope.is_outside(name)).then_some((Class::OtherRepository, "a submodule"))
}

/// Why a name is out by the rules or by what it is.
fn ruled_out(verdict: Verdict, kind: Kind) -> Option<(Class, &'static str)> {
    match verdict {
        Verdict::Cache | Verdict::Ignored { cache: true } => Some((Class::Cache, "a cache")),
        Verdict::Ignored { cache: false } => Some((Class::ProjectIgnored, "the project's rules ignore it")),
        Verdict::In | Verdict::OnlyKept if kind == Kind::Special => Some((Class::Special, "a fifo, socket or device")),
        Verdict::In | Verdict::OnlyKept => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A worker that panicked takes the walk down with it: its scope panics again.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
