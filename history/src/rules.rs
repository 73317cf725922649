//! What a history holds and what it leaves out.
//!
//! The rules are git's ignore files, read once from the project when it is copied in and kept on the host: a template for everybody,
//! then the user's and the project's excludes, the `.gitignore` of each directory, and `.vcodingignore` above them. What the guest
//! writes into its own ignore files changes nothing of what a rollback protects.
//!
//! The template names caches alone, and means nothing where the project tracks files. A file that the project's git tracks stays in
//! although a rule matches it, and `.vcodinginclude` lets in what it names. A submodule's directory stays out.

mod marker;
mod secret;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use gix_ignore::Search;
use gix_ignore::glob::pattern::Case;
use gix_ignore::search::Ignore;

use crate::record::{self, Durability, Fields};
use crate::{Error, Result, names};

pub(crate) use marker::settle;
pub use secret::{HEAD, secret};

pub(crate) const TEMPLATE: &[u8] = include_bytes!("rules/template.ignore");
const MAGIC: &[u8; 8] = b"VCRULE01";

/// Bounds on what a project may make us match against every path.
const MAX_TEXT: usize = 256 << 10;
const MAX_LINE: usize = 1024;

/// Where a list of patterns comes from, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The user's and the repository's excludes (`core.excludesFile`, `info/exclude`).
    Excludes,
    /// The `.gitignore` of one directory.
    Directory,
    /// `.vcodingignore` at the top.
    Ours,
    /// `.vcodinginclude` at the top.
    Include,
}

/// What becomes of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    In,
    /// By the template alone: [`settle`] says whether it is one.
    Cache,
    /// By the project's rules; the template may name it as well.
    Ignored {
        cache: bool,
    },
    /// An ignored directory that holds files which stay in all the same; nothing else in it does.
    OnlyKept,
}

#[derive(Default)]
pub(crate) struct Rules {
    texts: Vec<(Source, Vec<u8>, Vec<u8>)>,
    template: Search,
    excludes: Search,
    directories: HashMap<Vec<u8>, Search>,
    ours: Search,
    include: Search,
    /// Tracked files that a rule matches.
    kept: HashSet<Vec<u8>>,
    /// The directories above them.
    kept_directories: HashSet<Vec<u8>>,
    /// Directories that are other repositories' (submodules): left out whole.
    outside: HashSet<Vec<u8>>,
}

impl Rules {
    /// The template alone.
    pub(crate) fn new() -> Self {
        let mut rules = Self::default();
        add(&mut rules.template, TEMPLATE);
        rules
    }

    /// Adds the text of an ignore file that lies in `directory` (empty: the top). Within a source the later is the stronger.
    pub(crate) fn add(&mut self, source: Source, directory: &[u8], text: &[u8]) {
        let text = bounded(text);
        let search = match source {
            Source::Excludes => &mut self.excludes,
            Source::Directory => self.directories.entry(directory.to_vec()).or_default(),
            Source::Ours => &mut self.ours,
            Source::Include => &mut self.include,
        };
        add(search, &text);
        self.texts.push((source, directory.to_vec(), text));
    }

    /// Says which directories are other repositories' and which files are tracked; call it after all texts were added.
    pub(crate) fn set_tracked<'a>(&mut self, tracked: impl Iterator<Item = &'a [u8]>, outside: HashSet<Vec<u8>>) {
        self.outside = outside;
        let mut ignored_directories = HashMap::new();
        let kept: Vec<&[u8]> = tracked
            .filter(|path| {
                let (directory, name) = names::split(path);
                self.directory_ignored(directory, &mut ignored_directories)
                    || self.scope(directory).matches(name, false)
            })
            .collect();
        for path in kept {
            self.keep(path);
        }
    }

    fn keep(&mut self, path: &[u8]) {
        self.kept.insert(path.to_vec());
        let mut directory = names::split(path).0;
        while !directory.is_empty() && self.kept_directories.insert(directory.to_vec()) {
            directory = names::split(directory).0;
        }
    }

    /// Whether a directory or one above it is ignored.
    fn directory_ignored(&self, directory: &[u8], seen: &mut HashMap<Vec<u8>, bool>) -> bool {
        if directory.is_empty() {
            return false;
        }
        if let Some(&ignored) = seen.get(directory) {
            return ignored;
        }
        let (above, name) = names::split(directory);
        let ignored = self.directory_ignored(above, seen) || self.scope(above).matches(name, true);
        seen.insert(directory.to_vec(), ignored);
        ignored
    }

    /// The rules as they hold for the names in one directory.
    pub(crate) fn scope(&self, directory: &[u8]) -> Scope<'_> {
        let mut lists = vec![(&self.ours, 0)];
        let mut at = directory;
        loop {
            if let Some(search) = self.directories.get(at) {
                lists.push((search, if at.is_empty() { 0 } else { at.len() + 1 }));
            }
            if at.is_empty() {
                break;
            }
            at = names::split(at).0;
        }
        lists.push((&self.excludes, 0));
        Scope { rules: self, directory: directory.to_vec(), lists }
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut fields = Fields::default();
        fields.number(self.texts.len() as u64);
        for (source, directory, text) in &self.texts {
            fields.number(*source as u64);
            fields.bytes(directory);
            fields.bytes(text);
        }
        // Sorted, so that the same rules make the same file.
        for set in [&self.kept, &self.outside] {
            let sorted: BTreeMap<&[u8], ()> = set.iter().map(|path| (path.as_slice(), ())).collect();
            fields.number(sorted.len() as u64);
            sorted.keys().for_each(|path| fields.bytes(path));
        }
        record::save(path, MAGIC, &fields, Durability::Synced)
    }

    /// Without a file there was no import yet and the template alone holds; a file that cannot be read is an error, since scanning
    /// by other rules would make files appear as deleted.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        match record::load(path, MAGIC)? {
            None => Ok(Self::new()),
            Some(content) => {
                Self::parse(&content).ok_or_else(|| Error::damaged(format!("{} holds no rules", path.display())))
            }
        }
    }

    fn parse(content: &[u8]) -> Option<Self> {
        let mut reader = record::read(content);
        let mut rules = Self::new();
        for _ in 0..reader.number()? {
            let source = match reader.number()? {
                0 => Source::Excludes,
                1 => Source::Directory,
                2 => Source::Ours,
                3 => Source::Include,
                _ => return None,
            };
            let directory = reader.bytes()?.to_vec();
            rules.add(source, &directory, reader.bytes()?);
        }
        for _ in 0..reader.number()? {
            rules.keep(reader.bytes()?);
        }
        for _ in 0..reader.number()? {
            rules.outside.insert(reader.bytes()?.to_vec());
        }
        reader.is_at_end().then_some(rules)
    }
}

/// The rules for the names in one directory.
pub(crate) struct Scope<'rules> {
    rules: &'rules Rules,
    directory: Vec<u8>,
    /// The project's, strongest first, with how much of a path each list does not see, since it lies in a directory further down.
    lists: Vec<(&'rules Search, usize)>,
}

impl Scope<'_> {
    /// What becomes of `name`; `only_kept` says that the directory itself is ignored.
    pub(crate) fn verdict(&self, name: &[u8], is_directory: bool, only_kept: bool) -> Verdict {
        let path = names::join(&self.directory, name);
        let word = if only_kept { Some(true) } else { self.project_says(&path, is_directory) };
        let cache = word != Some(false) && matching(&self.rules.template, &path, is_directory) == Some(true);
        if !cache && word != Some(true) || self.included_path(&path, is_directory) {
            return Verdict::In;
        }
        let keeps = is_directory && self.rules.kept_directories.contains(&path);
        match word {
            Some(true) if keeps => Verdict::OnlyKept,
            Some(true) if !is_directory && self.rules.kept.contains(&path) => Verdict::In,
            Some(true) => Verdict::Ignored { cache },
            // What the project has files in is more than a cache to it.
            _ if keeps => Verdict::In,
            _ => Verdict::Cache,
        }
    }

    /// Whether `.vcodinginclude` names it.
    pub(crate) fn included(&self, name: &[u8], is_directory: bool) -> bool {
        self.included_path(&names::join(&self.directory, name), is_directory)
    }

    pub(crate) fn is_outside(&self, name: &[u8]) -> bool {
        !self.rules.outside.is_empty() && self.rules.outside.contains(&names::join(&self.directory, name))
    }

    fn included_path(&self, path: &[u8], is_directory: bool) -> bool {
        matching(&self.rules.include, path, is_directory) == Some(true)
    }

    /// Whether any rule leaves it out, were it not tracked.
    fn matches(&self, name: &[u8], is_directory: bool) -> bool {
        let path = names::join(&self.directory, name);
        self.project_says(&path, is_directory)
            .or_else(|| matching(&self.rules.template, &path, is_directory))
            .unwrap_or_default()
    }

    fn project_says(&self, path: &[u8], is_directory: bool) -> Option<bool> {
        self.lists.iter().find_map(|(search, skip)| matching(search, &path[*skip..], is_directory))
    }
}

/// Whether the last pattern that matches ignores (`true`) or takes back in (`false`).
fn matching(search: &Search, path: &[u8], is_directory: bool) -> Option<bool> {
    let found = search.pattern_matching_relative_path(path.into(), Some(is_directory), Case::Sensitive)?;
    Some(!found.pattern.is_negative())
}

fn add(search: &mut Search, text: &[u8]) {
    // The patterns of a list are relative to where it lies, and so are the paths that it is asked about: no base is needed.
    let list = gix_ignore::glob::search::pattern::List::from_bytes(
        text,
        "rules".into(),
        None,
        Ignore { support_precious: false },
    );
    search.patterns.push(list.expect("only a base that is no path can fail, and there is none"));
}

/// The text without what is too long to be matched against every path.
fn bounded(text: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len().min(MAX_TEXT));
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        if kept.len() + line.len() > MAX_TEXT {
            break;
        }
        if line.len() <= MAX_LINE {
            kept.extend_from_slice(line);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(rules: &Rules, path: &str, is_directory: bool) -> Verdict {
        let (directory, name) = names::split(path.as_bytes());
        rules.scope(directory).verdict(name, is_directory, false)
    }

    const IGNORED: Verdict = Verdict::Ignored { cache: false };

    #[test]
    fn the_template_leaves_out_caches_and_nothing_else() {
        let rules = Rules::new();
        for path in ["node_modules", "sub/target", "a/__pycache__", ".venv", "x/.mypy_cache"] {
            assert_eq!(verdict(&rules, path, true), Verdict::Cache, "{path}");
            assert_eq!(verdict(&rules, path, false), Verdict::In, "{path} as a file");
        }
        for path in ["dist", "build", "out", "coverage", "bin", "vendor", ".next", "_build"] {
            assert_eq!(verdict(&rules, path, true), Verdict::In, "{path}");
        }
        for path in ["a/b.pyc", "x.tmp", "y.log", "data.zip", "m.onnx", "lib.so", "core.1", "a~", "dist/a.js", ".env"] {
            assert_eq!(verdict(&rules, path, false), Verdict::In, "{path}");
        }
    }

    #[test]
    fn no_name_comes_to_the_template() {
        // As the first history had it, and only what this one has of it. What comes would vanish from checkpoints that have it.
        let first = "node_modules/ .pnpm-store/ .venv/ __pycache__/ .pytest_cache/ .mypy_cache/ .ruff_cache/ .tox/ .nox/ .cache/ \
            .parcel-cache/ .turbo/ .gradle/ .zig-cache/ target/ venv/";
        let first: HashSet<&str> = first.split_whitespace().collect();
        let text = std::str::from_utf8(TEMPLATE).unwrap();
        for name in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            assert!(first.contains(name), "{name}");
            assert!(name.ends_with('/') && !name.contains(['*', '?', '[']), "{name}: a directory, by its whole name");
        }
    }

    #[test]
    fn a_cache_that_the_project_ignores_as_well_is_a_cache() {
        let mut rules = Rules::new();
        rules.add(Source::Directory, b"", b"node_modules/\n*.log\n/dist/\n!keep/node_modules/\n");
        assert_eq!(verdict(&rules, "node_modules", true), Verdict::Ignored { cache: true });
        assert_eq!(verdict(&rules, "dist", true), IGNORED);
        assert_eq!(verdict(&rules, "a.log", false), IGNORED);
        assert_eq!(verdict(&rules, "keep/node_modules", true), Verdict::In);
    }

    #[test]
    fn where_the_project_tracks_files_the_template_says_nothing() {
        let mut rules = Rules::new();
        rules.set_tracked([b"node_modules/ours/index.js".as_slice()].into_iter(), HashSet::new());
        assert_eq!(verdict(&rules, "node_modules", true), Verdict::In);
        assert_eq!(verdict(&rules, "node_modules/ours/new.js", false), Verdict::In);
        assert_eq!(verdict(&rules, "node_modules/ours/node_modules", true), Verdict::Cache);
        assert_eq!(verdict(&rules, "other/node_modules", true), Verdict::Cache);
    }

    #[test]
    fn the_stronger_list_wins() {
        let mut rules = Rules::new();
        rules.add(Source::Excludes, b"", b"*.mine\n");
        rules.add(Source::Directory, b"", b"!.cache/\n/only-top\n*.gen\n");
        rules.add(Source::Directory, b"sub", b"!keep.gen\n/here\n");
        rules.add(Source::Ours, b"", b"big/\n!sub/yes.mine\n");
        assert_eq!(verdict(&rules, ".cache", true), Verdict::In);
        assert_eq!(verdict(&rules, "x.mine", false), IGNORED);
        assert_eq!(verdict(&rules, "sub/yes.mine", false), Verdict::In);
        assert_eq!(verdict(&rules, "sub/keep.gen", false), Verdict::In);
        assert_eq!(verdict(&rules, "other/keep.gen", false), IGNORED);
        assert_eq!(verdict(&rules, "sub/here", false), IGNORED);
        assert_eq!(verdict(&rules, "sub/deep/here", false), Verdict::In);
        assert_eq!(verdict(&rules, "sub/only-top", false), Verdict::In);
        assert_eq!(verdict(&rules, "a/big", true), IGNORED);
    }

    #[test]
    fn what_is_tracked_stays_in_and_nothing_beside_it() {
        let mut rules = Rules::new();
        rules.add(Source::Directory, b"", b"build/\n*.log\n");
        rules.set_tracked([b"build/sub/tool.sh".as_slice(), b"a.log", b"src/x"].into_iter(), HashSet::new());
        assert_eq!(verdict(&rules, "build", true), Verdict::OnlyKept);
        assert_eq!(rules.scope(b"build").verdict(b"sub", true, true), Verdict::OnlyKept);
        assert_eq!(rules.scope(b"build/sub").verdict(b"tool.sh", false, true), Verdict::In);
        assert_eq!(rules.scope(b"build/sub").verdict(b"other", false, true), IGNORED);
        assert_eq!(rules.scope(b"build").verdict(b"other", true, true), IGNORED);
        assert_eq!(verdict(&rules, "a.log", false), Verdict::In);
        assert_eq!(verdict(&rules, "b.log", false), IGNORED);
    }

    #[test]
    fn the_include_file_lets_in_what_it_names() {
        let mut rules = Rules::new();
        rules.add(Source::Directory, b"", b"dist/\n*.onnx\n");
        rules.add(Source::Include, b"", b"/dist/\n/data/model.onnx\n");
        assert_eq!(verdict(&rules, "dist", true), Verdict::In);
        assert_eq!(verdict(&rules, "sub/dist", true), IGNORED);
        assert_eq!(verdict(&rules, "data/model.onnx", false), Verdict::In);
        assert!(rules.scope(b"data").included(b"model.onnx", false));
        assert!(!rules.scope(b"data").included(b"other", false));
    }

    #[test]
    fn rules_are_saved_and_damaged_ones_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy");
        let mut rules = Rules::new();
        rules.add(Source::Directory, b"s\xffb", b"*.x\n");
        rules.set_tracked([b"s\xffb/a.x".as_slice()].into_iter(), HashSet::from([b"module".to_vec()]));
        rules.save(&path).unwrap();
        let back = Rules::load(&path).unwrap();
        assert_eq!(back.scope(b"s\xffb").verdict(b"a.x", false, false), Verdict::In);
        assert_eq!(back.scope(b"s\xffb").verdict(b"b.x", false, false), IGNORED);
        assert!(back.scope(b"").is_outside(b"module"));
        std::fs::write(&path, b"junk").unwrap();
        assert!(matches!(Rules::load(&path), Err(Error::Damaged { .. })));
    }

    #[test]
    fn texts_are_bounded_by_whole_lines() {
        let long = [b"x".repeat(2000), b"\nshort\n".to_vec()].concat();
        assert_eq!(bounded(&long), b"short\n");
        assert!(bounded(&b"abc\n".repeat(1 << 20)).len() <= MAX_TEXT);
    }
}
