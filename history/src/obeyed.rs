//! Files that programs on the host run or obey: a list of patterns, given by the caller.

use gix_glob::wildmatch;
use gix_glob::wildmatch::Mode;

/// Patterns, each with a reason. One without a slash is a name, at any depth; one that ends in a slash a directory, at any depth, with
/// all beneath it; any other the end of a path. Case does not count, and the first that matches holds.
#[derive(Clone, Debug, Default)]
pub struct Obeyed {
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    pattern: Vec<u8>,
    /// How many names it has.
    names: usize,
    is_directory: bool,
    /// Most are: they are compared, not matched.
    is_literal: bool,
    why: String,
}

impl Obeyed {
    pub fn new<'a>(rows: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let rows = rows.map(|(pattern, why)| {
            let lower = pattern.to_ascii_lowercase();
            let names = lower.trim_end_matches('/');
            Row {
                names: names.split('/').count(),
                is_directory: lower.ends_with('/'),
                is_literal: !names.contains(['*', '?', '[', '\\']),
                pattern: names.as_bytes().to_vec(),
                why: why.to_owned(),
            }
        });
        Self { rows: rows.collect() }
    }

    /// Why a path deserves a look before it is on the host.
    #[must_use]
    pub fn flag(&self, path: &[u8]) -> Option<&str> {
        let lower = path.to_ascii_lowercase();
        let ends: Vec<usize> = lower.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).collect();
        // Of a path of n names, where the names from..to lie.
        let part = |from: usize, to: usize| {
            let begin = if from == 0 { 0 } else { ends[from - 1] + 1 };
            &lower[begin..ends.get(to - 1).copied().unwrap_or(lower.len())]
        };
        let depth = ends.len() + 1;
        let matches = |row: &Row| {
            let fits = |part: &[u8]| match row.is_literal {
                true => row.pattern == part,
                false => wildmatch(row.pattern.as_slice().into(), part.into(), Mode::NO_MATCH_SLASH_LITERAL),
            };
            match row.is_directory {
                true => (row.names..depth).any(|to| fits(part(to - row.names, to))),
                false => row.names <= depth && fits(part(depth - row.names, depth)),
            }
        };
        self.rows.iter().find(|row| matches(row)).map(|row| row.why.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_directories_and_ends_of_paths_at_any_depth_in_any_case() {
        let rows = [
            ("CLAUDE.md", "name"),
            (".github/workflows/", "directory"),
            (".cargo/config.toml", "end"),
            ("*.mk", "glob"),
        ];
        let obeyed = Obeyed::new(rows.into_iter());
        for (path, why) in [
            ("claude.MD", "name"),
            ("a/b/CLAUDE.md", "name"),
            (".github/workflows/a/b.yml", "directory"),
            ("sub/.GitHub/Workflows/x", "directory"),
            ("sub/.cargo/config.toml", "end"),
            ("x.mk", "glob"),
        ] {
            assert_eq!(obeyed.flag(path.as_bytes()), Some(why), "{path}");
        }
        for path in [
            "CLAUDE.md/x",
            ".github/workflows",
            "github/workflows/x",
            ".cargo/x/config.toml",
            "xCLAUDE.md",
            "a.mkx",
            "",
        ] {
            assert_eq!(obeyed.flag(path.as_bytes()), None, "{path}");
        }
    }
}
