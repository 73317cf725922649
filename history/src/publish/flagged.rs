//! Changed files that programs on the host may run or obey, under every name that the branch has for them.
//!
//! Links are resolved in the published tree: what changed behind a link is looked at by the link's name too, and behind a link that
//! is new everything is.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::home::Home;
use crate::compare::Change;
use crate::import::leads_out;
use crate::notes::Named;
use crate::obeyed::Obeyed;
use crate::store::find;
use crate::tree::Mode;
use crate::{Id, Result, names, rules};

/// Files that are named; all are counted.
const NAMED: usize = 1000;
/// Files that are looked at behind one new link.
const BEHIND: usize = 10_000;
/// Links that one path may go through.
const HOPS: usize = 16;
/// No file that is a key is longer.
const MAX_KEY: usize = 1 << 20;

pub(super) fn flagged(home: &Home<'_>, tree: Id, changes: &[Change], obeyed: &Obeyed) -> Result<Named> {
    let links = home.links();
    // Where each link leads, and by which links something is reached.
    let mut reached: BTreeMap<Vec<u8>, Vec<&[u8]>> = BTreeMap::new();
    for link in links.keys() {
        if let Some(place) = resolve(links, link) {
            reached.entry(place).or_default().push(link);
        }
    }
    let mut flagged = Named::default();
    for change in changes {
        let Some((mode, id)) = change.new.filter(|(mode, _)| !mode.is_directory()) else {
            continue;
        };
        if let Some(why) = of_file(home, change, mode, id, obeyed)? {
            flagged.add(change.path.clone(), why, NAMED);
        }
        for name in other_names(&reached, &change.path) {
            if let Some(why) = obeyed.flag(&name) {
                flagged.add(name, format!("{why}; it is a link's name for {}", names::show(&change.path)), NAMED);
            }
        }
        if mode == Mode::Symlink {
            behind(home, tree, links, &change.path, obeyed, &mut flagged)?;
        }
    }
    flagged.list.sort();
    flagged.list.dedup_by(|next, first| next.0 == first.0);
    Ok(flagged)
}

fn of_file(home: &Home<'_>, change: &Change, mode: Mode, id: Id, obeyed: &Obeyed) -> Result<Option<String>> {
    if let Some(why) = obeyed.flag(&change.path) {
        return Ok(Some(why.to_owned()));
    }
    match mode {
        Mode::Symlink => {
            let Some(target) = home.links().get(&change.path) else { return Ok(None) };
            let out = leads_out(names::split(&change.path).0, OsStr::from_bytes(target));
            Ok(out.then(|| format!("is a link that leads out of the project, to {}", names::show(target))))
        }
        Mode::Commit => Ok(None),
        _ => {
            // What the copy would have kept out, and the guest made itself. What is longer than any key is judged by its name.
            let content = home.content_up_to(id, MAX_KEY)?;
            let head = &content[..content.len().min(rules::HEAD)];
            let why = rules::secret(&change.path, head);
            Ok(why.map(|why| format!("looks like {why}, which does not belong into a repository")))
        }
    }
}

/// The names that links give to a path.
fn other_names(reached: &BTreeMap<Vec<u8>, Vec<&[u8]>>, path: &[u8]) -> Vec<Vec<u8>> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([path.len()]);
    let by = ends.filter_map(|end| Some((reached.get(&path[..end])?, end)));
    by.flat_map(|(links, end)| links.iter().map(move |link| [link, &path[end..]].concat())).take(NAMED).collect()
}

/// What lies behind a link that is new, by the link's name.
fn behind(
    home: &Home<'_>,
    tree: Id,
    links: &BTreeMap<Vec<u8>, Vec<u8>>,
    link: &[u8],
    obeyed: &Obeyed,
    flagged: &mut Named,
) -> Result<()> {
    let Some(place) = resolve(links, link) else { return Ok(()) };
    let entry = find(|id| home.read(id), tree, &place)?;
    if let Some(why) = obeyed.flag(&place) {
        flagged.add(link.to_vec(), format!("is a link to {}, which {why}", names::show(&place)), NAMED);
    }
    let mut stack: Vec<_> =
        entry.filter(|entry| entry.mode.is_directory()).map(|e| (link.to_vec(), e.id)).into_iter().collect();
    let mut looked = 0;
    while let Some((path, id)) = stack.pop() {
        for entry in home.read(id)? {
            looked += 1;
            if looked > BEHIND {
                return Ok(());
            }
            let path = names::join(&path, &entry.name);
            if entry.mode.is_directory() {
                stack.push((path, entry.id));
            } else if let Some(why) = obeyed.flag(&path) {
                flagged.add(path, format!("{why}; it lies behind a link to {}", names::show(&place)), NAMED);
            }
        }
    }
    Ok(())
}

/// The path in the tree to which a link leads in the end; `None` if it leads out of it or in a circle.
fn resolve(links: &BTreeMap<Vec<u8>, Vec<u8>>, link: &[u8]) -> Option<Vec<u8>> {
    let mut path = link.to_vec();
    for _ in 0..HOPS {
        // The first part of the path that is a link is replaced by where it leads.
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([path.len()]);
        let Some((end, target)) = ends.into_iter().find_map(|end| Some((end, links.get(&path[..end])?))) else {
            return Some(path).filter(|path| !path.is_empty());
        };
        if target.starts_with(b"/") {
            return None;
        }
        let above = names::split(&path[..end]).0;
        let mut at: Vec<&[u8]> = above.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).collect();
        for name in target.split(|&byte| byte == b'/').chain(path[end..].split(|&byte| byte == b'/')) {
            match name {
                b"" | b"." => {}
                b".." => drop(at.pop()?),
                name => at.push(name),
            }
        }
        path = at.join(&b'/');
    }
    None
}
