//! A unified patch, coloured as git does it.

use std::borrow::Cow;

use super::ink::{Ink, Style};
use super::text::clean;

/// For a terminal: neutralised, with colour. (A pipe gets the bytes as they are.)
pub fn for_terminal(patch: &[u8], ink: Ink) -> String {
    let text = String::from_utf8_lossy(patch);
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    // In a hunk `---` is a deleted line that begins with `--`, elsewhere the old file's name;
    // the hunk's header says how many lines it has.
    let mut left = (0, 0);
    for line in text.lines() {
        let style = style(line, &mut left);
        let line = if style == Some(Style::Bold) { shortened(line) } else { line.into() };
        out.push_str(&match style {
            Some(style) => ink.paint(style, &clean(&line)),
            None => clean(&line).into_owned(),
        });
        out.push('\n');
    }
    out
}

fn style(line: &str, left: &mut (u64, u64)) -> Option<Style> {
    let in_hunk = *left != (0, 0);
    match line.as_bytes().first() {
        Some(b'+') if in_hunk => {
            left.1 = left.1.saturating_sub(1);
            Some(Style::Green)
        }
        Some(b'-') if in_hunk => {
            left.0 = left.0.saturating_sub(1);
            Some(Style::Red)
        }
        Some(b'\\') => None,
        _ if in_hunk => {
            *left = (left.0.saturating_sub(1), left.1.saturating_sub(1));
            None
        }
        _ => {
            if let Some(counts) = hunk(line) {
                *left = counts;
                return Some(Style::Cyan);
            }
            header(line).then_some(Style::Bold)
        }
    }
}

/// What a line is, by a word: `added`, `deleted`, `hunk`, or nothing of these.
pub fn tone(line: &str, left: &mut (u64, u64)) -> &'static str {
    match style(line, left) {
        Some(Style::Green) => "added",
        Some(Style::Red) => "deleted",
        Some(Style::Cyan) => "hunk",
        _ => "",
    }
}

/// An `index` line with ids as long as git shows them; whole ones are for programs.
fn shortened(line: &str) -> Cow<'_, str> {
    const SHOWN: usize = 10;
    let Some((old, rest)) = line.strip_prefix("index ").and_then(|ids| ids.split_once("..")) else {
        return line.into();
    };
    let (new, mode) = rest.split_once(' ').map_or((rest, ""), |(new, mode)| (new, mode));
    match (old.get(..SHOWN), new.get(..SHOWN)) {
        (Some(old), Some(new)) => format!("index {old}..{new} {mode}").trim_end().to_owned().into(),
        _ => line.into(),
    }
}

/// Lines before and after from `@@ -1,2 +3,4 @@`.
fn hunk(line: &str) -> Option<(u64, u64)> {
    let mut words = line.strip_prefix("@@ ")?.split(' ');
    let count = |word: &str, sign: char| {
        let range = word.strip_prefix(sign)?;
        range.split_once(',').map_or(Some(1), |(_, n)| n.parse().ok())
    };
    Some((count(words.next()?, '-')?, count(words.next()?, '+')?))
}

fn header(line: &str) -> bool {
    const HEADERS: [&str; 13] = [
        "diff --git ",
        "index ",
        "--- ",
        "+++ ",
        "new file ",
        "deleted file ",
        "old mode ",
        "new mode ",
        "similarity ",
        "dissimilarity ",
        "rename ",
        "copy ",
        "Binary files ",
    ];
    HEADERS.iter().any(|h| line.starts_with(h))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_line_that_looks_like_a_header_is_red() {
        let patch = b"--- a/x\n+++ b/x\n@@ -1,2 +1 @@ fn\n--- no header\n ok\n\\ No newline at end of file\n";
        let lines = for_terminal(patch, Ink(true));
        let lines: Vec<_> = lines.lines().collect();
        assert_eq!(lines[0], "\x1b[1m--- a/x\x1b[0m");
        assert_eq!(lines[2], "\x1b[36m@@ -1,2 +1 @@ fn\x1b[0m");
        assert_eq!(lines[3], "\x1b[31m--- no header\x1b[0m");
        assert_eq!(lines[4], " ok");
    }

    #[test]
    fn ids_are_as_long_as_git_shows_them() {
        let ids = format!("index {}..{} 100644", "a".repeat(40), "b".repeat(40));
        assert_eq!(shortened(&ids), "index aaaaaaaaaa..bbbbbbbbbb 100644");
        assert_eq!(shortened(&ids[..88]), "index aaaaaaaaaa..bbbbbbbbbb");
        for odd in ["index ", "index a..b", "index \u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}..x", "+++ b/x"] {
            assert_eq!(shortened(odd), odd);
        }
    }

    #[test]
    fn without_colour_it_is_the_patch_and_hostile_lines_are_harmless() {
        let patch = b"@@ -0,0 +1 @@\n+\x1b]0;x\x07\xff\n";
        assert_eq!(for_terminal(patch, Ink(false)), "@@ -0,0 +1 @@\n+\u{fffd}]0;x\u{fffd}\u{fffd}\n");
        for odd in ["@@ -x +y @@", "@@", "@@ -1", "@@ -1,99999999999999999999 +1 @@\n+"] {
            for_terminal(odd.as_bytes(), Ink(true));
        }
    }
}
