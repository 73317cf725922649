//! Packs: many objects in one file that is synced once.
//!
//! One synced pack for each checkpoint costs a tenth of as many synced loose objects. Entries are whole (no deltas), deflated by
//! whoever brings the object, and appended under one lock. The order in which a pack becomes real: data synced, pack renamed into
//! place, index renamed into place, directory synced; only then may a reference name what is in it. A kill leaves a temporary file
//! or a pack without index, which nobody reads and [`sweep`] removes.

mod index;
mod merge;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use fs::Root;
use sha1_checked::Digest;

use crate::object::{self, Kind};
use crate::{Error, Id, Result};

pub(crate) use index::ids;
pub(crate) use merge::merge;

/// Within two in a hundred of the size that git's level 6 gives, in half the time.
const LEVEL: u32 = 2;
const HEADER: u64 = 12;

/// A worker's compressor and its buffer, kept from object to object.
pub(crate) struct Deflater {
    compress: Compress,
    buffer: Vec<u8>,
}

impl Deflater {
    pub(crate) fn new() -> Self {
        Self { compress: Compress::new(Compression::new(LEVEL), true), buffer: Vec::new() }
    }

    /// The object as a pack's entry: kind and length, then the deflated content.
    fn entry(&mut self, kind: Kind, content: &[u8]) -> &[u8] {
        self.buffer.clear();
        let mut rest = content.len() >> 4;
        let mut byte = (kind.code() << 4) | (content.len() & 0xf) as u8;
        while rest > 0 {
            self.buffer.push(byte | 0x80);
            byte = (rest & 0x7f) as u8;
            rest >>= 7;
        }
        self.buffer.push(byte);
        self.compress.reset();
        self.buffer.reserve(content.len() / 2 + 64);
        loop {
            let consumed =
                usize::try_from(self.compress.total_in()).expect("no more than the content, which is in memory");
            let status = self
                .compress
                .compress_vec(&content[consumed..], &mut self.buffer, FlushCompress::Finish)
                .expect("deflating has no error but misuse");
            if status == Status::StreamEnd {
                return &self.buffer;
            }
            self.buffer.reserve(self.buffer.capacity().max(64));
        }
    }
}

/// A pack in the making; shared by the workers of a scan.
pub(crate) struct Writer<'known> {
    directory: PathBuf,
    known: &'known HashSet<Id>,
    claimed: Mutex<HashSet<Id>>,
    pack: Mutex<Option<Growing>>,
}

/// What [`Writer::finish`] made.
#[derive(Default)]
pub(crate) struct Finished {
    pub(crate) ids: Vec<Id>,
    /// The pack's path without extension, if there was anything to write.
    pub(crate) pack: Option<PathBuf>,
}

struct Growing {
    temporary: PathBuf,
    file: BufWriter<File>,
    offset: u64,
    entries: Vec<index::Entry>,
}

impl<'known> Writer<'known> {
    /// Nothing touches the disk until the first object that is not `known`.
    pub(crate) fn new(directory: &Path, known: &'known HashSet<Id>) -> Self {
        Self { directory: directory.to_path_buf(), known, claimed: Mutex::default(), pack: Mutex::default() }
    }

    pub(crate) fn knows(&self, id: &Id) -> bool {
        self.known.contains(id) || lock(&self.claimed).contains(id)
    }

    /// Adds an object unless it is there already.
    pub(crate) fn add(&self, deflater: &mut Deflater, kind: Kind, content: &[u8]) -> Result<Id> {
        let id = object::id(kind, content)?;
        // Whoever claims an id writes it; if that fails, the whole pack fails.
        if self.known.contains(&id) || !lock(&self.claimed).insert(id) {
            return Ok(id);
        }
        let entry = deflater.entry(kind, content);
        let mut crc = Crc::new();
        crc.update(entry);
        self.append(id, crc.sum(), entry)?;
        Ok(id)
    }

    /// Appends an entry that is in a pack's form already.
    fn append(&self, id: Id, crc: u32, entry: &[u8]) -> Result<()> {
        let mut pack = lock(&self.pack);
        if pack.is_none() {
            *pack = Some(Growing::start(&self.directory)?);
        }
        let pack = pack.as_mut().expect("it was started above");
        pack.file.write_all(entry).map_err(Error::io("write", &pack.temporary))?;
        pack.entries.push(index::Entry { id, crc, offset: pack.offset });
        pack.offset += entry.len() as u64;
        Ok(())
    }

    /// Makes the pack durable and visible. Nothing added, nothing written.
    pub(crate) fn finish(self) -> Result<Finished> {
        self.finish_and(File::sync_all, || Ok(()))
    }

    /// The same, with everything in the work tree `tree` made durable as well: one call for all of it where both lie on one
    /// filesystem.
    pub(crate) fn finish_with(self, tree: &Root) -> Result<Finished> {
        let device = |error| Error::io("look at", &self.directory)(error);
        let together = std::fs::metadata(&self.directory).map_err(device)?.dev() == tree.stat(Path::new(""))?.dev;
        let whole = || tree.sync_filesystem().map_err(Error::from);
        if together { self.finish_and(|_| Ok(()), whole) } else { self.finish_and(File::sync_all, whole) }
    }

    /// `each` is done to every file that is whole, `whole` once they all are, before they get their names.
    fn finish_and(
        self,
        each: impl Fn(&File) -> std::io::Result<()>,
        whole: impl FnOnce() -> Result<()>,
    ) -> Result<Finished> {
        let pack = lock(&self.pack).take();
        match pack {
            Some(pack) => pack.finish(&self.directory, each, whole),
            None => whole().map(|()| Finished::default()),
        }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if let Some(pack) = lock(&self.pack).take() {
            // Given up: what stays is removed by the next sweep.
            let _ = std::fs::remove_file(&pack.temporary);
        }
    }
}

impl Growing {
    fn start(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(Error::io("make", directory))?;
        let temporary = directory.join(temporary("pack"));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(Error::io("create", &temporary))?;
        let mut file = BufWriter::with_capacity(1 << 17, file);
        // The count is filled in at the end.
        file.write_all(&header(0)).map_err(Error::io("write", &temporary))?;
        Ok(Self { temporary, file, offset: HEADER, entries: Vec::new() })
    }

    fn finish(
        self,
        directory: &Path,
        each: impl Fn(&File) -> std::io::Result<()>,
        whole: impl FnOnce() -> Result<()>,
    ) -> Result<Finished> {
        let Self { temporary, file, mut entries, .. } = self;
        let placed = (|| {
            let mut file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            let count = u32::try_from(entries.len()).map_err(std::io::Error::other)?;
            file.write_all_at(&header(count), 0)?;
            let sum = checksum(&mut file)?;
            file.write_all(&sum)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o444))?;
            each(&file)?;
            Ok(sum)
        })();
        let sum = placed.map_err(Error::io("write", &temporary))?;
        let index = index::write(&mut entries, &sum);
        let index_temporary = directory.join(self::temporary("idx"));
        write_new(&index_temporary, &index, each)?;
        whole()?;
        let name = format!("pack-{}", Id::new(sum));
        for (from, extension) in [(&temporary, "pack"), (&index_temporary, "idx")] {
            let to = directory.join(format!("{name}.{extension}"));
            std::fs::rename(from, &to).map_err(Error::io("rename", from))?;
        }
        sync_directory(directory)?;
        Ok(Finished { ids: entries.into_iter().map(|entry| entry.id).collect(), pack: Some(directory.join(name)) })
    }
}

fn header(count: u32) -> [u8; HEADER as usize] {
    let mut header = *b"PACK\0\0\0\x02\0\0\0\0";
    header[8..].copy_from_slice(&count.to_be_bytes());
    header
}

/// Over the whole file, which is read again since its head was only just known; leaves the position at the end.
fn checksum(file: &mut File) -> std::io::Result<[u8; 20]> {
    let mut hasher = object::checksum();
    let mut buffer = vec![0; 1 << 16];
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(object::sum(hasher)),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn temporary(kind: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}{}-{}.{kind}", fs::TEMPORARY_PREFIX, std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn write_new(path: &Path, bytes: &[u8], each: impl Fn(&File) -> std::io::Result<()>) -> Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path).map_err(Error::io("create", path))?;
    file.write_all(bytes)
        .and_then(|()| file.set_permissions(std::fs::Permissions::from_mode(0o444)))
        .and_then(|()| each(&file))
        .map_err(Error::io("write", path))
}

fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(Error::io("sync", directory))
}

/// The packs in `directory` that have an index, by their path without extension.
pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut packs = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(Error::io("list", directory))? {
        let path = entry.map_err(Error::io("list", directory))?.path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            packs.push(path.with_extension(""));
        }
    }
    packs.sort();
    Ok(packs)
}

/// Removes what a kill left. A pack without index is ours only where the whole directory is (`ours_alone`): elsewhere it may be one
/// that another program is about to finish.
pub(crate) fn sweep(directory: &Path, ours_alone: bool) -> Result<()> {
    for entry in std::fs::read_dir(directory).map_err(Error::io("list", directory))? {
        let entry = entry.map_err(Error::io("list", directory))?;
        let path = entry.path();
        let orphan = ours_alone
            && path.extension().is_some_and(|extension| extension == "pack")
            && !path.with_extension("idx").exists();
        if orphan || fs::is_temporary(&entry.file_name()) {
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A worker that panicked takes the scan down with it; what it left is never finished.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
