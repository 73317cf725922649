//! `.dockerignore`, as the engine reads it.
//!
//! Patterns are those of the engine's documentation: Go's `filepath.Match` with `**` for any
//! number of directories, a leading `/` means nothing, the last match wins, `!` takes back, and
//! what matches a directory matches all beneath it.

use std::path::Path;

/// More patterns than this are refused by being ignored; the file itself is bounded by its reader.
const MAX_PATTERNS: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    takes_back: bool,
    parts: Vec<String>,
}

impl Ignore {
    pub fn parse(text: &str) -> Self {
        let mut patterns = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (takes_back, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let mut parts: Vec<String> = Vec::new();
            for part in pattern.split('/') {
                match part {
                    "" | "." => {}
                    ".." => {
                        parts.pop();
                    }
                    other => parts.push(other.to_owned()),
                }
            }
            if !parts.is_empty() && patterns.len() < MAX_PATTERNS {
                patterns.push(Pattern { takes_back, parts });
            }
        }
        Self { patterns }
    }

    /// Whether a path relative to the context stays out.
    pub fn excludes(&self, path: &Path) -> bool {
        let names: Vec<_> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        let mut excluded = false;
        for pattern in &self.patterns {
            // A pattern that would change nothing need not be tried.
            if excluded == pattern.takes_back && pattern.matches_it_or_above(&names) {
                excluded = !pattern.takes_back;
            }
        }
        excluded
    }

    /// Whether something beneath an excluded directory may be let in again.
    pub fn takes_back(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.takes_back)
    }
}

impl Pattern {
    /// One row of the usual table per part, so that no pattern takes longer than parts × names.
    fn matches_it_or_above(&self, names: &[String]) -> bool {
        // reach[n]: the parts so far match the first n names.
        let mut reach = vec![false; names.len() + 1];
        reach[0] = true;
        for (i, part) in self.parts.iter().enumerate() {
            let mut next = vec![false; names.len() + 1];
            if part == "**" {
                // At the end it means everything beneath, not the directory itself.
                let least = usize::from(i + 1 == self.parts.len());
                if let Some(first) = reach.iter().position(|&r| r) {
                    next.iter_mut().skip(first + least).for_each(|r| *r = true);
                }
            } else {
                for (n, name) in names.iter().enumerate() {
                    next[n + 1] = reach[n] && matches_name(part, name);
                }
            }
            reach = next;
        }
        // A match of fewer names is one of a directory above.
        reach.iter().skip(1).any(|&r| r)
    }
}

/// Go's `filepath.Match` for one name. The star is retried from its last place only, which is
/// enough and never exponential.
fn matches_name(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            p += 1;
            star = Some((p, n));
            continue;
        }
        if let Some(used) = one(&pattern[p.min(pattern.len())..], name[n]) {
            p += used;
            n += 1;
            continue;
        }
        let Some((after, from)) = star else { return false };
        star = Some((after, from + 1));
        (p, n) = (after, from + 1);
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// How much of the pattern's beginning matches this character: a class, an escape, `?`, itself.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match *pattern.first()? {
        '?' => Some(1),
        '\\' => (pattern.get(1) == Some(&c)).then_some(2),
        '[' => {
            let mut i = 1;
            let negated = pattern.get(i) == Some(&'^');
            i += usize::from(negated);
            let mut hit = false;
            let mut first = true;
            loop {
                let mut low = *pattern.get(i)?;
                if low == ']' && !first {
                    break;
                }
                first = false;
                if low == '\\' {
                    i += 1;
                    low = *pattern.get(i)?;
                }
                i += 1;
                let mut high = low;
                if pattern.get(i) == Some(&'-') && pattern.get(i + 1).is_some_and(|&c| c != ']') {
                    high = pattern[i + 1];
                    i += 2;
                }
                hit |= (low..=high).contains(&c);
            }
            (hit != negated).then_some(i + 1)
        }
        literal => (literal == c).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(rules: &str, path: &str) -> bool {
        Ignore::parse(rules).excludes(Path::new(path))
    }

    /// The examples of the engine's documentation, and its known corners.
    #[test]
    fn patterns_mean_what_the_engine_says() {
        for (rules, path) in [
            ("*/temp*", "somedir/temporary.txt"),
            ("*/temp*", "somedir/temp/x"),
            ("*/*/temp*", "a/b/temporary"),
            ("temp?", "tempa"),
            ("**/*.go", "a.go"),
            ("**/*.go", "a/b/c.go"),
            ("a/**/b", "a/b"),
            ("a/**/b", "a/x/y/b/z"),
            ("node_modules", "node_modules/x/y"),
            ("/foo/", "foo"),
            ("./foo", "foo/bar"),
            ("foo/**", "foo/bar"),
            ("**", "anything/at/all"),
            ("*", "x"),
            ("[a-c]x", "bx"),
            ("[^a-c]x", "dx"),
            ("\\*", "*"),
            ("  spaced  ", "spaced"),
            ("a*b*c", "axxbyyc"),
            ("!a\na", "a"),
            ("# c\nx", "x"),
            ("a/../b", "b"),
        ] {
            assert!(excluded(rules, path), "{rules:?} should exclude {path}");
        }
        for (rules, path) in [
            ("*/temp*", "temp"),
            ("*/temp*", "a/b/temp"),
            ("temp?", "temp"),
            ("foo/**", "foo"),
            ("a/**/b", "x/a/b"),
            ("*.md\n!README.md", "README.md"),
            ("*.md\n!README*.md", "README-x.md"),
            ("foo\n!foo/bar", "foo/bar/baz"),
            ("# x", "# x"),
            ("node_modules", "a/node_modules"),
            ("[a-c]x", "dx"),
            ("[", "["),
            ("!x", "x"),
            ("", "x"),
        ] {
            assert!(!excluded(rules, path), "{rules:?} should not exclude {path}");
        }
        assert!(excluded("*.md\n!README*.md\nREADME-secret.md", "README-secret.md"), "the last match wins");
    }

    #[test]
    fn a_hostile_pattern_ends_soon() {
        let stars = "*a".repeat(200);
        assert!(!excluded(&stars, &"a".repeat(150)));
        let deep = "**/a/".repeat(300) + "b";
        let path = "a/".repeat(1000) + "c";
        assert!(!excluded(&deep, &path));
    }
}
