//! State that survives: sled, one typed table a record type.
//!
//! A record is one version byte and JSON; one of an earlier version is read as the current one
//! ([`Record::upgrade`]) and written as such with its next change. A write is acknowledged after a
//! flush: an unflushed insert is lost by `kill -9`. One daemon owns the directory (its lock is held
//! by `daemon`).
//!
//! What cannot be read is set aside ([`Store::open_or_set_aside`]): everything in it of
//! workspaces that are there lies beside them, too, and comes back from there.

mod writer;

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::error::chain;
use serde::Serialize;
use serde::de::DeserializeOwned;
use writer::Writer;

/// The layout of the whole store; a newer one is refused.
const SCHEMA: u8 = 1;

/// sled's default cache is 1 GiB; our records are a few kilobytes each.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the store at {path} cannot be used")]
    Database { path: PathBuf, source: sled::Error },
    #[error("the store at {path} was written by a newer vcodingd (schema {found}, this one knows {SCHEMA})")]
    NewerSchema { path: PathBuf, found: u8 },
    #[error("record {key} of {table} was written by a newer vcodingd (version {found})")]
    NewerRecord { table: &'static str, key: String, found: u8 },
    #[error("record {key} of {table} cannot be read: {why}")]
    Unreadable { table: &'static str, key: String, why: String },
    #[error("the store at {path} can be neither opened nor set aside")]
    Kept { path: PathBuf, source: std::io::Error },
}

impl Error {
    /// Whether what lies on disk is no store, or no whole one; trying again will not help.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        use std::io::ErrorKind::{InvalidData, InvalidInput, NotADirectory, UnexpectedEof};
        let Self::Database { source, .. } = self else { return false };
        match source {
            sled::Error::Io(error) => {
                matches!(error.kind(), InvalidData | InvalidInput | NotADirectory | UnexpectedEof)
            }
            sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. } => true,
        }
    }
}

/// A store that could not be read, and was put where nobody needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    pub why: String,
    /// Where it lies now.
    pub path: PathBuf,
}

/// A type that is kept in a table of its own.
pub trait Record: Serialize + DeserializeOwned + Send + Sync {
    const TABLE: &'static str;
    /// Written before each record. Raise it with a change that older code would misread.
    const VERSION: u8;
    /// The key, stable over the record's life.
    fn key(&self) -> String;

    /// What a record of an earlier version is in the current one.
    fn upgrade(record: serde_json::Value, from: u8) -> serde_json::Value {
        let _same_form = from;
        record
    }
}

/// A record as JSON of version `from`.
///
/// # Errors
/// What does not fit.
pub fn read_record<R: Record>(json: serde_json::Value, from: u8) -> serde_json::Result<R> {
    serde_json::from_value(if from < R::VERSION { R::upgrade(json, from) } else { json })
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    db: sled::Db,
    writer: Arc<Writer>,
    path: PathBuf,
}

impl Store {
    /// Opens or makes the store in `path`. Blocking.
    ///
    /// # Errors
    /// [`Error::Database`] if sled cannot, [`Error::NewerSchema`] if a newer daemon wrote it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let database = |source| Error::Database { path: path.to_owned(), source };
        let db = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            // Durability is by the flush that each write awaits.
            .flush_every_ms(None)
            .open()
            .map_err(database)?;
        match db.get("schema").map_err(database)?.as_deref() {
            None => {
                db.insert("schema", &[SCHEMA]).map_err(database)?;
                db.flush().map_err(database)?;
            }
            Some([found]) if *found <= SCHEMA => {}
            Some(other) => {
                let found = other.first().copied().unwrap_or(0);
                return Err(Error::NewerSchema { path: path.to_owned(), found });
            }
        }
        let writer = Writer::start(db.clone()).map_err(|e| database(sled::Error::Io(e)))?;
        Ok(Self { db, writer: Arc::new(writer), path: path.to_owned() })
    }

    /// Opens the store in `path`; one that cannot be read is set aside, and an empty one made.
    /// Blocking.
    ///
    /// `trial` opens and reads it in a process of its own: sled may end the process over a damaged
    /// file. It is asked only where an earlier opening did not come to its end.
    ///
    /// # Errors
    /// [`Error::NewerSchema`] and [`Error::Database`]: nothing is wrong with the store itself (another
    /// process has it, the disk is full). [`Error::Kept`].
    pub fn open_or_set_aside(
        path: &Path,
        trial: impl FnOnce(&Path) -> Result<(), String>,
    ) -> Result<(Self, Option<SetAside>), Error> {
        let kept = |source| Error::Kept { path: path.to_owned(), source };
        // There while a daemon opens the store; one that it ended at leaves it behind.
        let marker = path.with_extension("opening");
        let tried = match marker.exists() {
            true => trial(path),
            false => Ok(()),
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(kept)?;
        }
        std::fs::write(&marker, "").map_err(kept)?;
        let opened = match tried {
            Err(why) => Err(why),
            Ok(()) => match Self::open(path).and_then(|store| store.read_whole().map(|()| store)) {
                Ok(store) => Ok((store, None)),
                Err(error) if error.is_damage() => Err(chain(&error)),
                Err(error) => {
                    std::fs::remove_file(&marker).map_err(kept)?;
                    return Err(error);
                }
            },
        };
        let result = match opened {
            Ok(whole) => whole,
            Err(why) => {
                let aside = free_place_beside(path);
                std::fs::rename(path, &aside).map_err(kept)?;
                (Self::open(path)?, Some(SetAside { why, path: aside }))
            }
        };
        std::fs::remove_file(&marker).map_err(kept)?;
        Ok(result)
    }

    /// Whether everything in it can be got at. Blocking.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn read_whole(&self) -> Result<(), Error> {
        for name in self.db.tree_names() {
            let tree = self.db.open_tree(name).map_err(|source| self.database(source))?;
            for entry in &tree {
                entry.map_err(|source| self.database(source))?;
            }
        }
        Ok(())
    }

    /// The table of `R`.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn table<R: Record>(&self) -> Result<Table<R>, Error> {
        let tree = self.db.open_tree(R::TABLE).map_err(|source| self.database(source))?;
        Ok(Table { tree, writer: self.writer.clone(), path: self.path.clone(), record: PhantomData })
    }

    /// Everything on disk; the last act of a daemon.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn flush(&self) -> Result<(), Error> {
        self.writer.flush().await.map_err(|source| self.database(source))
    }

    fn database(&self, source: sled::Error) -> Error {
        Error::Database { path: self.path.clone(), source }
    }
}

/// One type's records.
#[derive(Debug)]
pub struct Table<R> {
    tree: sled::Tree,
    writer: Arc<Writer>,
    path: PathBuf,
    record: PhantomData<fn() -> R>,
}

impl<R> Clone for Table<R> {
    fn clone(&self) -> Self {
        Self { tree: self.tree.clone(), writer: self.writer.clone(), path: self.path.clone(), record: PhantomData }
    }
}

impl<R: Record> Table<R> {
    /// Writes a record; when this returns it is durable.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn put(&self, record: &R) -> Result<(), Error> {
        let mut bytes = vec![R::VERSION];
        serde_json::to_writer(&mut bytes, record).map_err(|e| Error::Unreadable {
            table: R::TABLE,
            key: record.key(),
            why: e.to_string(),
        })?;
        self.writer.put(&self.tree, record.key(), bytes).await.map_err(|e| self.database(e))
    }

    /// Removes a record; when this returns it is gone for good. A missing one is fine.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn remove(&self, key: &str) -> Result<(), Error> {
        self.writer.remove(&self.tree, key).await.map_err(|e| self.database(e))
    }

    /// # Errors
    /// [`Error::Database`], [`Error::NewerRecord`], [`Error::Unreadable`].
    pub fn get(&self, key: &str) -> Result<Option<R>, Error> {
        match self.tree.get(key).map_err(|e| self.database(e))? {
            Some(bytes) => decode(key.as_bytes(), &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// All records in the order of their keys; one that cannot be read is an error entry, so
    /// that the others are still there.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn list(&self) -> Result<Vec<Result<R, Error>>, Error> {
        let mut records = Vec::new();
        for entry in &self.tree {
            let (key, bytes) = entry.map_err(|e| self.database(e))?;
            records.push(decode(&key, &bytes));
        }
        Ok(records)
    }

    /// Whether there is a record of this key.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub fn contains(&self, key: &str) -> Result<bool, Error> {
        self.tree.contains_key(key).map_err(|e| self.database(e))
    }

    fn database(&self, source: sled::Error) -> Error {
        Error::Database { path: self.path.clone(), source }
    }
}

fn decode<R: Record>(key: &[u8], bytes: &[u8]) -> Result<R, Error> {
    let key = || String::from_utf8_lossy(key).into_owned();
    match bytes.split_first() {
        Some((version, _)) if *version > R::VERSION => {
            Err(Error::NewerRecord { table: R::TABLE, key: key(), found: *version })
        }
        Some((version, json)) => {
            let unreadable =
                |e: serde_json::Error| Error::Unreadable { table: R::TABLE, key: key(), why: e.to_string() };
            let json = serde_json::from_slice(json).map_err(unreadable)?;
            read_record(json, *version).map_err(unreadable)
        }
        None => Err(Error::Unreadable { table: R::TABLE, key: key(), why: "it is empty".into() }),
    }
}

/// A name for what is set aside, by the day and the time.
fn free_place_beside(path: &Path) -> PathBuf {
    let now: String = protocol::Timestamp::now().to_string().chars().filter(char::is_ascii_alphanumeric).collect();
    path.with_extension(format!("unreadable-{now}"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Pet {
        name: String,
    }

    impl Record for Pet {
        const TABLE: &'static str = "pets";
        const VERSION: u8 = 2;

        fn key(&self) -> String {
            self.name.clone()
        }
    }

    #[tokio::test]
    async fn what_was_put_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        {
            let store = Store::open(&path).unwrap();
            let pets = store.table::<Pet>().unwrap();
            pets.put(&Pet { name: "cat".into() }).await.unwrap();
            pets.put(&Pet { name: "dog".into() }).await.unwrap();
            pets.remove("cat").await.unwrap();
        }
        let pets = Store::open(&path).unwrap().table::<Pet>().unwrap();
        assert_eq!(pets.get("cat").unwrap(), None);
        assert_eq!(pets.get("dog").unwrap(), Some(Pet { name: "dog".into() }));
        assert_eq!(pets.list().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn many_writers_at_once_all_come_to_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let pets = store.table::<Pet>().unwrap();
        let mut writers = tokio::task::JoinSet::new();
        for number in 0..500 {
            let pets = pets.clone();
            writers.spawn(async move { pets.put(&Pet { name: format!("pet {number}") }).await });
        }
        let all = async {
            while let Some(done) = writers.join_next().await {
                done.unwrap().unwrap();
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("a write never ended");
        assert_eq!(pets.list().unwrap().len(), 500);
    }

    #[tokio::test]
    async fn a_newer_record_is_refused_and_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let pets = store.table::<Pet>().unwrap();
        pets.put(&Pet { name: "dog".into() }).await.unwrap();
        pets.tree.insert("newt", &b"\x03{}"[..]).unwrap();
        pets.tree.insert("odd", &b"\x02{"[..]).unwrap();
        assert!(matches!(pets.get("newt"), Err(Error::NewerRecord { found: 3, .. })));
        assert!(matches!(pets.get("odd"), Err(Error::Unreadable { .. })));
        assert_eq!(pets.list().unwrap().iter().filter(|r| r.is_ok()).count(), 1);
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        {
            let store = Store::open(&path).unwrap();
            store.db.insert("schema", &[SCHEMA + 1]).unwrap();
            store.db.flush().unwrap();
        }
        assert!(matches!(Store::open(&path), Err(Error::NewerSchema { .. })));
    }
}
