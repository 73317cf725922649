//! What only the user may grant, and whether that was done.
//!
//! - What an agent changed of the files that decide how a guest is made: they come home by an apply,
//!   a diff or a collect, and their build runs with a network. Before they can, their paths are
//!   *watched*, and so is what a `.gitattributes` could turn into another content at a checkout. What
//!   stood at such a path then is the user's own; whatever stands there later asks, until it was
//!   agreed to (`agreed`). Besides, each content that was taken home lies by its hash in
//!   `<state>/proposed` until somebody agrees to it: it is met again in a project that was moved or
//!   cloned, too.
//! - What a project's vcoding.toml asks for beyond the defaults. Once agreed to, project and wishes
//!   lie by their hash in `<state>/consented`: another project or another wish is asked anew.
//! - What its `.vcodinginclude` takes back from the gate for secrets: by name, whoever wrote the file.

mod agreed;
mod deciding;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use history::{History, Id, Standing};
use protocol::consent::{Consent, Included, Wish};
use protocol::{Bytes, Error, Kind};
use sha2::{Digest, Sha256};

use self::agreed::Agreed;
pub(super) use self::deciding::Recipe;
use self::deciding::{Stands, hash_of, hash_of_none, may_turn};
use super::failure;
use crate::config;

/// A longer file that comes home is not read: whatever it holds, nobody has agreed to it.
const MOST_PROPOSED: u64 = 1 << 20;
/// Files that `.vcodinginclude` may take back from the gate; nobody reads a longer list.
const MOST_SECRETS: usize = 1000;

/// A file of a project is read, changed and written by one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// What may come home: by path the content's hash, or none where that cannot be told.
#[derive(Debug, Default)]
pub(super) struct Proposed(BTreeMap<String, Option<String>>);

impl Proposed {
    /// What differs in the checkpoint `to`. Blocking.
    ///
    /// # Errors
    /// What the history says.
    pub fn between(history: &History, from: Id, to: Id, recipe: &Recipe) -> history::Result<Self> {
        let mut proposed = Self::default();
        let wanted =
            |path: &[u8]| is_attributes(path) || std::str::from_utf8(path).is_ok_and(|path| recipe.decides(path));
        history.each_changed(from, to, MOST_PROPOSED, &wanted, &mut |path, standing| {
            // What is no text cannot be named in vcoding.toml.
            let text = String::from_utf8_lossy(path);
            if is_attributes(path) {
                proposed.add_attributes(&text, &standing, recipe);
                return;
            }
            let hash = match standing {
                Standing::Gone => Some(hash_of_none(&text)),
                Standing::File(content) => Some(hash_of(&content)),
                Standing::TooLarge | Standing::Other => None,
            };
            proposed.0.insert(text.into_owned(), hash);
        })?;
        Ok(proposed)
    }

    /// Files that are about to be written into the project. What they hold may change until then.
    pub fn files(paths: impl Iterator<Item = PathBuf>, recipe: &Recipe) -> Self {
        let mut proposed = Self::default();
        for path in paths {
            let text = path.to_string_lossy();
            if is_attributes(path.as_os_str().as_bytes()) {
                proposed.add_attributes(&text, &Standing::TooLarge, recipe);
            } else if recipe.decides(&text) {
                proposed.0.insert(text.into_owned(), None);
            }
        }
        proposed
    }

    fn add_attributes(&mut self, path: &str, standing: &Standing, recipe: &Recipe) {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        for file in recipe.obeyed() {
            let turns = match standing {
                Standing::File(content) => may_turn(directory, content, &file),
                // Without it git takes a content as it is stored.
                Standing::Gone => false,
                Standing::TooLarge | Standing::Other => true,
            };
            if turns {
                self.0.entry(file).or_insert(None);
            }
        }
    }
}

fn is_attributes(path: &[u8]) -> bool {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    name.eq_ignore_ascii_case(b".gitattributes")
}

/// Watches what may come home from now on; durable when it returns. Blocking.
///
/// # Errors
/// A state directory that cannot be read or written: then nothing must come home.
pub(super) fn propose(state_dir: &Path, project: &Path, recipe: &Recipe, proposed: &Proposed) -> io::Result<()> {
    if proposed.0.is_empty() {
        return Ok(());
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = Agreed::load(state_dir, project)?;
    let mut agreed = before.clone();
    let obeyed = recipe.obeyed();
    // What stands there before anything came is the user's own.
    for path in obeyed.iter().chain(proposed.0.keys()).filter(|path| !before.is_watched(path)) {
        if let Some(hash) = Stands::at(project, path).hash(path)
            && !before.knows(&hash)
            && !marker(state_dir, &hash).exists()
        {
            agreed.agree(&hash);
        }
    }
    for (path, hash) in &proposed.0 {
        match hash {
            Some(hash) if agreed.knows(hash) => {}
            Some(hash) => {
                agreed.watch(path, Some(hash));
                mark(&marker(state_dir, hash))?;
            }
            None => agreed.watch(path, None),
        }
    }
    if agreed == before { Ok(()) } else { agreed.save(state_dir) }
}

/// The marker of a content that came home.
fn marker(state_dir: &Path, hash: &str) -> PathBuf {
    state_dir.join("proposed").join(hash)
}

fn mark(marker: &Path) -> io::Result<()> {
    let dir = marker.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(dir)?;
    File::create(marker)?.sync_all()?;
    File::open(dir)?.sync_all()
}

fn unmark(marker: &Path) -> io::Result<()> {
    match std::fs::remove_file(marker) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A project's settings, if nothing in them or beside them waits for the user. Blocking.
///
/// # Errors
/// [`Kind::ConsentNeeded`]; what is wrong with vcoding.toml.
pub(super) fn settings(state_dir: &Path, project: &Path) -> Result<config::Project, Error> {
    let looked = look(state_dir, project)?;
    let asked = &looked.asked;
    if asked.agreed {
        return Ok(looked.settings);
    }
    let mut what = Vec::new();
    if !asked.files.is_empty() {
        what.push(format!(
            "nobody has agreed to {} as it is now, since an agent's work came home",
            asked.files.join(" and ")
        ));
    }
    if !granted(state_dir, project, &asked.wishes) {
        let wishes: Vec<String> = asked.wishes.iter().map(|wish| format!("{} = {}", wish.key, wish.value)).collect();
        what.push(format!("vcoding.toml asks for more than a repository may decide: {}", wishes.join(", ")));
    }
    if !looked.let_in {
        let named: Vec<_> = asked.secrets.iter().take(3).map(|secret| secret.path.to_text().into_owned()).collect();
        let more = if asked.secrets.len() > 3 { ", …" } else { "" };
        what.push(format!(".vcodinginclude lets in what looks like a secret: {}{more}", named.join(", ")));
    }
    Err(Error::new(Kind::ConsentNeeded, what.join("; ")).hint("vcodingctl consent   (shows it, and asks you)"))
}

/// What a project asks for, and whether that is granted. Blocking.
///
/// # Errors
/// What is wrong with vcoding.toml.
pub(super) fn show(state_dir: &Path, project: &Path) -> Result<Consent, Error> {
    look(state_dir, project).map(|looked| looked.asked)
}

/// The files that may be copied in although they look like secrets. Blocking.
///
/// # Errors
/// A state directory that cannot be read.
pub(super) fn let_in(state_dir: &Path, project: &Path) -> Result<impl Fn(&[u8]) -> bool + Send + Sync + use<>, Error> {
    let agreed = Agreed::load(state_dir, project).map_err(|e| failure::of_file(state_dir, &e))?;
    Ok(move |path: &[u8]| agreed.lets_in(&Bytes(path.to_vec())))
}

/// Grants what has this hash, or takes the consent to its wishes and included files back. Blocking.
///
/// # Errors
/// [`Kind::ConsentNeeded`] if something else is asked for now; [`Kind::Internal`].
pub(super) fn set(state_dir: &Path, project: &Path, hash: &str, agree: bool) -> Result<Consent, Error> {
    let Looked { asked, waiting, .. } = look(state_dir, project)?;
    if asked.hash != hash {
        return Err(Error::new(Kind::ConsentNeeded, "what is asked for has changed since it was shown")
            .hint("vcodingctl consent"));
    }
    if agree && waiting.iter().any(|(_, content)| content.is_none()) {
        let what = asked.files.join(" or ");
        return Err(Error::new(Kind::ConsentNeeded, format!("{what} is too large to be agreed to"))
            .hint("make it smaller than 4 MiB, or: git checkout HEAD~1 -- FILE"));
    }
    let secrets = asked.secrets.iter().map(|secret| secret.path.clone());
    let wishes = marker_of_wishes(state_dir, project, &asked.wishes);
    let done = (|| {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let before = Agreed::load(state_dir, project)?;
        let mut agreed = before.clone();
        agreed.let_in(secrets.filter(|_| agree));
        if !agree {
            agreed.save(state_dir)?;
            return unmark(&wishes);
        }
        // What was shown, and not what lies there by now.
        for (path, content) in waiting.iter().filter_map(|(path, content)| Some((path, content.as_ref()?))) {
            agreed.agree(content);
            agreed.settle(path, content);
        }
        if agreed != before {
            agreed.save(state_dir)?;
        }
        waiting.iter().filter_map(|(_, content)| content.as_ref()).try_for_each(|c| unmark(&marker(state_dir, c)))?;
        if asked.wishes.is_empty() { Ok(()) } else { mark(&wishes) }
    })();
    done.map_err(|e| failure::of_file(state_dir, &e))?;
    show(state_dir, project)
}

/// What was found at a look.
struct Looked {
    settings: config::Project,
    asked: Consent,
    /// The files among what is asked for, with their contents' hashes; none where nobody can agree.
    waiting: Vec<(String, Option<String>)>,
    let_in: bool,
}

fn look(state_dir: &Path, project: &Path) -> Result<Looked, Error> {
    let settings = config::Project::load(project).map_err(|e| failure::of_config(&e))?;
    let agreed = Agreed::load(state_dir, project).map_err(|e| failure::of_file(state_dir, &e))?;
    let waiting = waiting(state_dir, project, &Recipe::from(&settings), &agreed);
    let secrets = secrets(project)?;
    let let_in = secrets.iter().all(|secret| agreed.lets_in(&secret.path));
    let wishes = settings.wishes.clone();

    let mut hash = Sha256::new();
    for (path, content) in &waiting {
        field(&mut hash, path.as_bytes());
        field(&mut hash, content.as_deref().unwrap_or_default().as_bytes());
    }
    for secret in &secrets {
        field(&mut hash, &secret.path.0);
    }
    hash.update(name_of_wishes(project, &wishes));
    let granted = waiting.is_empty() && let_in && granted(state_dir, project, &wishes);
    let files = waiting.iter().map(|(path, _)| path.clone()).collect();
    let asked = Consent { hash: format!("{:x}", hash.finalize()), files, wishes, secrets, agreed: granted };
    Ok(Looked { settings, asked, waiting, let_in })
}

/// The files that are obeyed now and hold what nobody has agreed to.
fn waiting(state_dir: &Path, project: &Path, recipe: &Recipe, agreed: &Agreed) -> Vec<(String, Option<String>)> {
    let mut waiting = Vec::new();
    for path in recipe.obeyed() {
        let stands = Stands::at(project, &path);
        let waits = match (&stands, stands.hash(&path)) {
            (Stands::Unreadable, _) => false,
            (_, Some(hash)) if agreed.knows(&hash) => false,
            (_, Some(hash)) => agreed.is_watched(&path) || marker(state_dir, &hash).exists(),
            (_, None) => agreed.is_watched(&path),
        };
        if waits {
            let hash = stands.hash(&path);
            waiting.push((path, hash));
        }
    }
    waiting
}

/// What `.vcodinginclude` would let in although it looks like a secret.
fn secrets(project: &Path) -> Result<Vec<Included>, Error> {
    let found = history::included_secrets(project, MOST_SECRETS);
    let found = found.map_err(|e| failure::of_timeline(&crate::timeline::Error::History(e)))?;
    if found.total > found.list.len() as u64 {
        let message = format!(".vcodinginclude lets in {} files that look like secrets", found.total);
        return Err(Error::new(Kind::InvalidConfiguration, message).hint("name in .vcodinginclude what is needed"));
    }
    let mut secrets: Vec<Included> =
        found.list.into_iter().map(|(path, why)| Included { path: path.into(), why }).collect();
    secrets.sort_by(|a, b| a.path.0.cmp(&b.path.0));
    Ok(secrets)
}

fn granted(state_dir: &Path, project: &Path, wishes: &[Wish]) -> bool {
    wishes.is_empty() || marker_of_wishes(state_dir, project, wishes).exists()
}

fn marker_of_wishes(state_dir: &Path, project: &Path, wishes: &[Wish]) -> PathBuf {
    state_dir.join("consented").join(name_of_wishes(project, wishes))
}

fn name_of_wishes(project: &Path, wishes: &[Wish]) -> String {
    let mut hash = Sha256::new();
    field(&mut hash, project.as_os_str().as_bytes());
    for wish in wishes {
        field(&mut hash, wish.key.as_bytes());
        field(&mut hash, wish.value.as_bytes());
    }
    format!("{:x}", hash.finalize())
}

fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests;
