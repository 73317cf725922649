//! A package's archive becomes files. Its hash was pinned, yet nothing in it is followed: plain files
//! below `package/`, written beneath a directory that is held open.

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use rustix::fs::Mode;

use super::Error;
use super::manifest::Package;

const MAX_BYTES: u64 = 2 << 30;
const MAX_ENTRIES: usize = 50_000;
const MAX_DEPTH: usize = 32;
const MAX_PATH: usize = 1024;

/// Unpacks `archive` into the empty directory `into` and syncs all of it.
pub(super) fn unpack(archive: File, into: &fs::Root, package: &Package) -> Result<(), Error> {
    let refused = |why: String| Error::Package { package: package.package.clone(), why };
    let unreadable = |e: io::Error| refused(format!("its archive is damaged: {e}"));
    let mut tree = Tree { root: into, made: BTreeSet::new() };
    let mut left = MAX_BYTES;
    // What lies between the files (names, padding) is bounded too, and so is what unpacks to no file at all.
    let bounded = GzDecoder::new(io::BufReader::with_capacity(1 << 16, archive)).take(MAX_BYTES + (64 << 20));
    let mut archive = tar::Archive::new(bounded);
    for (count, entry) in archive.entries().map_err(unreadable)?.enumerate() {
        let mut entry = entry.map_err(unreadable)?;
        if count == MAX_ENTRIES {
            return Err(refused(format!("it has more than {MAX_ENTRIES} files")));
        }
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let path = entry.path().map_err(unreadable)?.into_owned();
        let rel = below_package(&path).ok_or_else(|| refused(format!("{} is not below package/", path.display())))?;
        let mode = entry.header().mode().map_err(unreadable)?;
        if mode & 0o7000 != 0 {
            return Err(refused(format!("{} has a set-id or sticky bit", path.display())));
        }
        if kind.is_dir() {
            tree.directory(&rel)?;
        } else if kind.is_file() && !rel.as_os_str().is_empty() {
            left = left
                .checked_sub(entry.size())
                .ok_or_else(|| refused(format!("it is larger than {} MiB", MAX_BYTES >> 20)))?;
            let executable = mode & 0o111 != 0 || rel == Path::new(&package.binary);
            tree.file(&rel, if executable { 0o555 } else { 0o444 }, &mut entry)?;
        } else {
            return Err(refused(format!("{} is neither a file nor a directory", path.display())));
        }
    }
    match into.stat(Path::new(&package.binary)) {
        Ok(found) if found.kind == fs::Kind::File => tree.finish(),
        _ => Err(refused(format!("{} is not in it", package.binary))),
    }
}

/// Lets everyone read a directory, whatever the process's mask made of its mode.
pub(super) fn open_to_all(dir: &fs::Root) -> Result<(), Error> {
    rustix::fs::fchmod(dir.as_fd(), Mode::from_raw_mode(0o755)).map_err(io::Error::from)?;
    Ok(())
}

struct Tree<'a> {
    root: &'a fs::Root,
    made: BTreeSet<PathBuf>,
}

impl Tree<'_> {
    fn directory(&mut self, rel: &Path) -> Result<(), Error> {
        let mut path = PathBuf::new();
        for name in rel.components() {
            path.push(name);
            if !self.made.contains(&path) {
                open_to_all(&self.root.make_dirs(&path, 0o755)?)?;
                self.made.insert(path.clone());
            }
        }
        Ok(())
    }

    fn file(&mut self, rel: &Path, mode: u32, content: &mut impl Read) -> Result<(), Error> {
        self.directory(rel.parent().unwrap_or(Path::new("")))?;
        let mut file = self.root.create_new(rel, 0o600)?;
        io::copy(content, &mut file)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        Ok(())
    }

    fn finish(self) -> Result<(), Error> {
        for path in &self.made {
            self.root.dir(path)?.sync()?;
        }
        open_to_all(self.root)?;
        self.root.sync()?;
        Ok(())
    }
}

/// The path behind `package/`, if it is one of plain names.
fn below_package(path: &Path) -> Option<PathBuf> {
    let mut names = path.components();
    if names.next() != Some(Component::Normal("package".as_ref())) || path.as_os_str().len() > MAX_PATH {
        return None;
    }
    let rel: PathBuf = names.as_path().into();
    let plain = rel.components().all(|name| matches!(name, Component::Normal(_)));
    (plain && rel.components().count() <= MAX_DEPTH).then_some(rel)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use flate2::write::GzEncoder;

    use super::*;
    use crate::agents::find;

    /// An archive of raw headers, so that it can hold what an honest builder refuses.
    fn archive(entries: &[(&str, tar::EntryType, u32, &[u8])]) -> File {
        let mut zipped = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        for (path, kind, mode, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_size(content.len() as u64);
            if kind.is_symlink() || kind.is_hard_link() {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            zipped.write_all(header.as_bytes()).unwrap();
            zipped.write_all(content).unwrap();
            zipped.write_all(&vec![0; content.len().next_multiple_of(512) - content.len()]).unwrap();
        }
        zipped.write_all(&[0; 1024]).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&zipped.finish().unwrap()).unwrap();
        file.rewind().unwrap();
        file
    }

    fn unpacked(entries: &[(&str, tar::EntryType, u32, &[u8])]) -> (tempfile::TempDir, Result<(), Error>) {
        let dir = tempfile::tempdir().unwrap();
        let claude = find(None, "claude").unwrap();
        let package = claude.packages.values().next().unwrap();
        let result = unpack(archive(entries), &fs::Root::open(dir.path()).unwrap(), package);
        (dir, result)
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;
    const BINARY: (&str, tar::EntryType, u32, &[u8]) = ("package/claude", FILE, 0o644, b"x");

    #[test]
    fn files_get_two_modes_and_the_program_can_be_run_even_if_the_package_forgot() {
        let (dir, result) = unpacked(&[
            ("package/", tar::EntryType::Directory, 0o700, b""),
            BINARY,
            ("package/a/b/rg", FILE, 0o700, b"rg"),
            ("package/a/read.me", FILE, 0o666, b"text"),
        ]);
        result.unwrap();
        let mode = |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
        let modes = ["claude", "a/b/rg", "a/read.me", "a", "a/b", ""].map(mode);
        assert_eq!(modes, [0o555, 0o555, 0o444, 0o755, 0o755, 0o755]);
        assert_eq!(std::fs::read(dir.path().join("a/read.me")).unwrap(), b"text");
    }

    #[test]
    fn what_is_not_a_plain_file_below_the_package_is_refused() {
        use tar::EntryType as E;
        for (path, kind, mode) in [
            ("package/../../x", FILE, 0o644),
            ("/package/x", FILE, 0o644),
            ("other/x", FILE, 0o644),
            ("package", FILE, 0o644),
            ("package/link", E::Symlink, 0o777),
            ("package/hard", E::Link, 0o644),
            ("package/pipe", E::Fifo, 0o644),
            ("package/disk", E::Block, 0o644),
            ("package/null", E::Char, 0o644),
            ("package/root", FILE, 0o4755),
            ("package/group", FILE, 0o2755),
        ] {
            let (dir, result) = unpacked(&[BINARY, (path, kind, mode, b"")]);
            assert!(matches!(result, Err(Error::Package { .. })), "{path}: {result:?}");
            let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(names, ["claude"], "{path}");
        }
    }

    #[test]
    fn a_package_without_its_program_twice_the_same_file_or_a_cut_archive_is_refused() {
        let (_dir, result) = unpacked(&[("package/other", FILE, 0o755, b"x")]);
        assert!(result.unwrap_err().to_string().contains("claude is not in it"));
        let (_dir, result) = unpacked(&[BINARY, BINARY]);
        assert!(matches!(result, Err(Error::Store(fs::Error::Exists { .. }))), "{result:?}");
        let dir = tempfile::tempdir().unwrap();
        let claude = find(None, "claude").unwrap();
        let whole = archive(&[("package/claude", FILE, 0o755, &[7; 4096])]);
        whole.set_len(60).unwrap();
        let result = unpack(whole, &fs::Root::open(dir.path()).unwrap(), claude.packages.values().next().unwrap());
        assert!(result.is_err());
    }
}
