//! Small binary files of our own: magic, version, fields, checksum. Paths in them are any bytes, which JSON cannot hold.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use sha1_checked::Digest;

use crate::{Error, Result, object};

/// Builds a record's content.
#[derive(Default)]
pub(crate) struct Fields(Vec<u8>);

impl Fields {
    pub(crate) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    pub(crate) fn signed(&mut self, number: i64) {
        // Zigzag: small numbers of either sign are short.
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// Reads them back; every answer is `None` where the content ends too early.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    pub(crate) fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.raw(length)
    }

    pub(crate) fn raw(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a record must survive a loss of power, or may be lost and made again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    Synced,
    Cache,
}

/// Replaces the file `path` by the record, in one step.
pub(crate) fn save(path: &Path, magic: &[u8; 8], fields: &Fields, durability: Durability) -> Result<()> {
    let mut hasher = object::checksum();
    hasher.update(magic);
    hasher.update(&fields.0);
    let sum = object::sum(hasher);
    write(path, &[magic.as_slice(), &fields.0, &sum], durability)
}

/// The record's content; `None` if there is no file, an error if it is not what was saved.
pub(crate) fn load(path: &Path, magic: &[u8; 8]) -> Result<Option<Vec<u8>>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let damaged = || Error::damaged(format!("{} is not as it was written", path.display()));
    let (content, sum) = bytes.split_last_chunk::<20>().ok_or_else(damaged)?;
    let mut hasher = object::checksum();
    hasher.update(content);
    if object::sum(hasher) != *sum {
        return Err(damaged());
    }
    Ok(Some(content.strip_prefix(magic).ok_or_else(damaged)?.to_vec()))
}

pub(crate) fn read(content: &[u8]) -> Reader<'_> {
    Reader(content)
}

/// Replaces a file of the host's own by the joined `parts`.
pub(crate) fn write(path: &Path, parts: &[&[u8]], durability: Durability) -> Result<()> {
    let directory = path.parent().expect("a record lies in a directory");
    let name = path.file_name().expect("a record has a name").to_string_lossy();
    // One writer a file: what a kill left under this name is written over.
    let temporary = directory.join(format!("{}{name}", fs::TEMPORARY_PREFIX));
    let written = (|| {
        let mut file = File::create(&temporary)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        if durability == Durability::Synced {
            file.sync_data()?;
        }
        std::fs::rename(&temporary, path)?;
        if durability == Durability::Synced {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    })();
    written.map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_torn_or_changed_record_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        assert!(load(&path, b"VCTEST01").unwrap().is_none());
        let mut fields = Fields::default();
        fields.bytes(b"content");
        save(&path, b"VCTEST01", &fields, Durability::Synced).unwrap();
        assert!(load(&path, b"VCTEST01").unwrap().is_some());
        assert!(load(&path, b"VCTEST02").is_err());
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(load(&path, b"VCTEST01").is_err(), "{cut}");
            let mut flipped = whole.clone();
            flipped[cut] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert!(load(&path, b"VCTEST01").is_err(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn fields_come_back(number: u64, signed: i64, bytes: Vec<u8>) {
            let mut fields = Fields::default();
            fields.number(number);
            fields.signed(signed);
            fields.bytes(&bytes);
            let mut reader = read(&fields.0);
            prop_assert_eq!((reader.number(), reader.signed(), reader.bytes()), (Some(number), Some(signed), Some(bytes.as_slice())));
            prop_assert!(reader.is_at_end());
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let mut reader = read(&bytes);
            while !reader.is_at_end() {
                if reader.bytes().is_none() { break }
            }
        }
    }
}
