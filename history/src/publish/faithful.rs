//! Whether the branch would hold what git itself would have made of the same files.
//!
//! A published tree has the files as they lie in the work tree, and git does not always store them so: it leaves alone what is
//! outside of a sparse checkout, runs clean filters (Git LFS), turns line ends, `$Id$` and encodings back, and keeps recorded modes
//! where the file system has none. As long as that is not done here, a branch that would differ is refused; one in which nothing of
//! it would change a byte is made. What decides is the user's own: index, configuration, and the attributes as they stand in the
//! project's work tree. Of the guest's files only the content is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use git2::{AttrCheckFlags, AttrValue};

use super::home::Home;
use crate::compare::{Change, compare};
use crate::tree::Mode;
use crate::{Error, Id, Result, names, project};

/// Paths that are named for a reason; all are counted.
const NAMED: usize = 3;
/// How a file of Git LFS begins in the repository, and how long it is at most.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
const MAX_POINTER: usize = 1024;

/// Why a file would be another one, had git stored it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    Sparse,
    Filter(String),
    LineEnds,
    Ident,
    Encoding(String),
    Mode,
}

impl Why {
    fn describe(&self, count: usize) -> String {
        let verb = |one: &'static str, more: &'static str| if count == 1 { one } else { more };
        match self {
            Self::Sparse => format!(
                "{} outside of the sparse checkout, or marked so that git does not look at {}",
                verb("is", "are"),
                verb("it", "them")
            ),
            Self::Filter(name) => format!("{} through the filter {name}", verb("goes", "go")),
            Self::LineEnds => format!("{} line ends that git converts", verb("has", "have")),
            Self::Ident => format!("{} an $Id$ that git converts", verb("has", "have")),
            Self::Encoding(name) => format!("{} kept as UTF-8, and {name} in the work tree", verb("is", "are")),
            Self::Mode => format!(
                "{} a type or mode that git would not take over, since core.fileMode or core.symlinks is false",
                verb("has", "have")
            ),
        }
    }
}

/// Refuses a branch whose trees `to` differ from `from`, where it grows, in a file that git would have stored otherwise. `sparse`
/// says that the work tree was copied from a sparse checkout.
pub(super) fn check(repository: &git2::Repository, home: &Home<'_>, from: Id, to: &[Id], sparse: bool) -> Result<()> {
    let git = Git::look(repository, sparse)?;
    // The same path may differ in both trees.
    let mut found: BTreeMap<Why, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for tree in to {
        for change in compare(|id| home.read(id), Some(from), Some(*tree))? {
            if let Some(why) = git.differs(&change, home)? {
                found.entry(why).or_default().insert(change.path);
            }
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let reasons = found.into_iter().map(|(why, paths)| {
        let named: Vec<String> = paths.iter().take(NAMED).map(|path| names::show(path)).collect();
        let more = match paths.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{}{more} {}", named.join(", "), why.describe(paths.len()))
    });
    Err(Error::Unfaithful { reasons: reasons.collect() })
}

/// What of the user's repository decides how git stores a file.
struct Git<'a> {
    repository: &'a git2::Repository,
    config: git2::Config,
    hidden: project::Hidden,
    /// Nobody can say which files are outside of the checkout: each that is missing may be.
    sparse: bool,
    modes: bool,
    links: bool,
    /// What `core.autocrlf` says of files without attributes.
    default: LineEnds,
    /// The configuration is not its owner's.
    stranger: bool,
}

/// How git treats the line ends of a file that it stores.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineEnds {
    Kept,
    /// Converted, but in a file that is binary or was stored with them.
    Guessed,
    Converted,
}

impl<'a> Git<'a> {
    fn look(repository: &'a git2::Repository, sparse: bool) -> Result<Self> {
        let config = repository.config().and_then(|mut config| config.snapshot());
        let config = config.map_err(Error::git("read the project's configuration"))?;
        let is = |key: &str, otherwise: bool| config.get_bool(key).unwrap_or(otherwise);
        // A checkout that is sparse by directories may have an index that only git reads.
        let hidden = project::hidden(repository);
        let unknown = hidden.is_none() && is("core.sparseCheckout", false);
        // `input` is no boolean, and converts what is stored as `true` does.
        let input = config.get_string("core.autocrlf").is_ok_and(|text| text.eq_ignore_ascii_case("input"));
        let default = if input || is("core.autocrlf", false) { LineEnds::Guessed } else { LineEnds::Kept };
        let owner = std::fs::metadata(repository.path()).map_err(Error::io("look at", repository.path()))?.uid();
        Ok(Self {
            repository,
            hidden: hidden.unwrap_or_default(),
            sparse: sparse || unknown,
            modes: is("core.fileMode", true),
            links: is("core.symlinks", true),
            default,
            stranger: owner != rustix::process::geteuid().as_raw(),
            config,
        })
    }

    fn differs(&self, change: &Change, home: &Home<'_>) -> Result<Option<Why>> {
        let stands = |side: Option<(Mode, Id)>| side.is_some_and(|(mode, _)| !mode.is_directory());
        // Of a directory that comes or goes, its files are told one by one.
        if !stands(change.old) && !stands(change.new) {
            return Ok(None);
        }
        if self.hidden.contains(&change.path) || self.sparse && !stands(change.new) {
            return Ok(Some(Why::Sparse));
        }
        let Some((mode, id)) = change.new.filter(|(mode, _)| matches!(mode, Mode::File | Mode::Executable)) else {
            return Ok(None);
        };
        if self.mode_differs(change.old.map(|(mode, _)| mode), mode) {
            return Ok(Some(Why::Mode));
        }
        let old = change.old.filter(|(mode, _)| matches!(mode, Mode::File | Mode::Executable));
        if old.is_some_and(|(_, old)| old == id) {
            return Ok(None);
        }
        self.content_differs(&change.path, home, old.map(|(_, id)| id), id)
    }

    fn mode_differs(&self, old: Option<Mode>, new: Mode) -> bool {
        match old {
            Some(Mode::Symlink) => !self.links,
            Some(Mode::File | Mode::Executable) => !self.modes && old != Some(new),
            _ => !self.modes && new == Mode::Executable,
        }
    }

    fn content_differs(&self, path: &[u8], home: &Home<'_>, old: Option<Id>, new: Id) -> Result<Option<Why>> {
        let (filter, encoding) = (self.filter(path), self.encoding(path));
        let ident = matches!(self.attribute(path, "ident"), AttrValue::True);
        let ends = self.line_ends(path);
        if filter.is_none() && encoding.is_none() && !ident && ends == LineEnds::Kept {
            return Ok(None);
        }
        let content = home.content(new)?;
        if content.is_empty() {
            return Ok(None);
        }
        if let Some(name) = filter.filter(|name| !(name == "lfs" && is_pointer(&content))) {
            return Ok(Some(Why::Filter(name)));
        }
        if encoding.is_some() {
            return Ok(encoding.map(Why::Encoding));
        }
        if ident && holds_expanded_ident(&content) {
            return Ok(Some(Why::Ident));
        }
        let converts = match ends {
            LineEnds::Kept => false,
            LineEnds::Converted => holds_crlf(&content),
            LineEnds::Guessed if is_binary(&content) || !holds_crlf(&content) => false,
            LineEnds::Guessed => match old {
                Some(old) => {
                    let old = home.content(old)?;
                    is_binary(&old) || !holds_crlf(&old)
                }
                None => true,
            },
        };
        Ok(converts.then_some(Why::LineEnds))
    }

    /// The filter that git would run. One that is not configured changes nothing, if the configuration is the user's.
    fn filter(&self, path: &[u8]) -> Option<String> {
        let name = text(&self.attribute(path, "filter"))?;
        let configured = |what: &str| self.config.get_entry(&format!("filter.{name}.{what}")).is_ok();
        let runs = name == "lfs" || self.stranger || ["clean", "process", "required"].into_iter().any(configured);
        runs.then(|| names::show(name.as_bytes()))
    }

    fn encoding(&self, path: &[u8]) -> Option<String> {
        let name = text(&self.attribute(path, "working-tree-encoding"))?;
        let same = name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("utf8");
        (!same).then(|| names::show(name.as_bytes()))
    }

    /// As git decides it: `text`, its older name `crlf`, then `eol`, then the configuration.
    fn line_ends(&self, path: &[u8]) -> LineEnds {
        let by = |value: AttrValue<'_>| match &value {
            AttrValue::True => Some(LineEnds::Converted),
            AttrValue::False => Some(LineEnds::Kept),
            _ => match text(&value).as_deref() {
                Some("auto") => Some(LineEnds::Guessed),
                Some("input") => Some(LineEnds::Converted),
                _ => None,
            },
        };
        let said = by(self.attribute(path, "text")).or_else(|| by(self.attribute(path, "crlf")));
        said.unwrap_or_else(|| match text(&self.attribute(path, "eol")).as_deref() {
            Some("lf" | "crlf") => LineEnds::Converted,
            _ => self.default,
        })
    }

    fn attribute(&self, path: &[u8], name: &str) -> AttrValue<'_> {
        let path = Path::new(OsStr::from_bytes(path));
        // What has no readable attributes has none.
        let value = self.repository.get_attr_bytes(path, name, AttrCheckFlags::FILE_THEN_INDEX).ok().flatten();
        AttrValue::from_bytes(value)
    }
}

fn text(value: &AttrValue<'_>) -> Option<String> {
    match value {
        AttrValue::String(text) => Some((*text).to_owned()),
        AttrValue::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        AttrValue::True | AttrValue::False | AttrValue::Unspecified => None,
    }
}

fn is_pointer(content: &[u8]) -> bool {
    content.len() < MAX_POINTER && content.starts_with(POINTER)
}

fn holds_crlf(content: &[u8]) -> bool {
    content.windows(2).any(|pair| pair == b"\r\n")
}

/// Whether git leaves a content's line ends alone, where it guesses: a NUL, a lone CR, or more than one byte in 128 that no text has.
fn is_binary(content: &[u8]) -> bool {
    let (mut printable, mut odd) = (0_usize, 0_usize);
    for (at, &byte) in content.iter().enumerate() {
        match byte {
            0 => return true,
            b'\r' if content.get(at + 1) != Some(&b'\n') => return true,
            b'\r' | b'\n' => {}
            // Backspace, tab, form feed and escape are in texts; DOS ends one with 0x1a.
            0x08 | b'\t' | 0x0c | 0x1b => printable += 1,
            0x1a if at + 1 == content.len() => {}
            ..0x20 | 0x7f => odd += 1,
            _ => printable += 1,
        }
    }
    (printable >> 7) < odd
}

/// Whether there is a `$Id: … $` on one line.
fn holds_expanded_ident(content: &[u8]) -> bool {
    content.split(|&byte| byte == b'\n').any(|line| {
        let start = line.windows(4).position(|part| part == b"$Id:");
        start.is_some_and(|start| line[start + 4..].contains(&b'$'))
    })
}
