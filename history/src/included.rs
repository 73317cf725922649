//! What a project's `.vcodinginclude` would let in although it looks like a secret.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use fs::Root;

use crate::notes::{Class, Named};
use crate::rules::{HEAD, secret};
use crate::walk::{Leaf, Place, Visitor, walk};
use crate::{Result, names, project};

/// The files that [`crate::History::import`] copies only if it is told to, with why each is taken for a secret: at most `most`, and
/// how many there are. A project without a `.vcodinginclude` is not walked.
pub fn included_secrets(project: &Path, most: usize) -> Result<Named> {
    let source = Root::open(project)?;
    if source.stat(Path::new(project::INCLUDE)).is_err() {
        return Ok(Named::default());
    }
    let rules = project::rules(&source, &project::tracked(project)?)?;
    let look = Look { most, found: Mutex::default() };
    walk(&source, &rules, &look, 0, crate::import::MOST)?;
    Ok(look.found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

struct Look {
    most: usize,
    found: Mutex<Named>,
}

impl Visitor for Look {
    type Local = Vec<u8>;

    fn local(&self) -> Vec<u8> {
        Vec::new()
    }

    fn enter(&self, _path: &[u8], _directory: &Root) -> Result<()> {
        Ok(())
    }

    fn file(&self, head: &mut Vec<u8>, place: &Place<'_>, name: &OsString) -> Result<Leaf> {
        let seen = || Ok(Leaf::LeftOut(Class::Secret, String::new()));
        if !place.scope.included(name.as_bytes(), false) {
            return seen();
        }
        head.clear();
        if let Ok(file) = place.directory.open_file(Path::new(name)) {
            // What cannot be read is judged by its name, and copied by nobody.
            let _read = file.take(HEAD as u64).read_to_end(head);
        }
        let path = names::join(place.path, name.as_bytes());
        if let Some(why) = secret(&path, head) {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).add(path, why, self.most);
        }
        seen()
    }

    fn link(&self, _head: &mut Vec<u8>, _place: &Place<'_>, _name: &OsString) -> Result<Leaf> {
        Ok(Leaf::LeftOut(Class::Secret, String::new()))
    }
}
