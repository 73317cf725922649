//! How much a directory takes, in bytes on the disk and in names.

use std::path::{Path, PathBuf};

use crate::stat::Kind;
use crate::{Result, Root};

/// Directories that wait to be looked into; what lies in those beyond is not counted.
const WAITING: usize = 100_000;

/// What lies below a directory. A file with several names counts with each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// As the file system has given them out, not as files say of their length.
    pub bytes: u64,
    /// Files, links and directories.
    pub names: u64,
    /// There is more, that was not counted: it lies too deep, could not be read, or is beyond `most`.
    pub incomplete: bool,
}

impl Root {
    /// Counts what lies below, up to `most` names, while `goes_on` says so. Links are not followed, and what comes or goes meanwhile
    /// may or may not be counted. Blocking.
    ///
    /// # Errors
    /// If the directory itself cannot be listed.
    pub fn usage(&self, most: u64, goes_on: &dyn Fn() -> bool) -> Result<Usage> {
        let mut usage = Usage::default();
        let mut waiting = vec![PathBuf::new()];
        while let Some(path) = waiting.pop() {
            let here = match self.dir(&path) {
                Ok(here) => here,
                Err(error) if path.as_os_str().is_empty() => return Err(error),
                Err(_) => {
                    usage.incomplete = true;
                    continue;
                }
            };
            let Ok(entries) = here.entries() else {
                usage.incomplete = true;
                continue;
            };
            for entry in entries {
                if usage.names >= most || !goes_on() {
                    usage.incomplete = true;
                    return Ok(usage);
                }
                let Ok(entry) = entry else {
                    usage.incomplete = true;
                    break;
                };
                usage.names += 1;
                match here.stat(Path::new(&entry.name)) {
                    Ok(stat) => usage.bytes = usage.bytes.saturating_add(stat.allocated),
                    Err(_) => continue,
                }
                if entry.kind == Kind::Directory {
                    if waiting.len() < WAITING {
                        waiting.push(path.join(&entry.name));
                    } else {
                        usage.incomplete = true;
                    }
                }
            }
        }
        Ok(usage)
    }
}
