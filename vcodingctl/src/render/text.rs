//! Text: made harmless, measured, cut, wrapped; times and amounts as people say them.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::Chars;

use protocol::Timestamp;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Text from a stranger, made harmless for a terminal: colour sequences vanish, and what drives a
/// terminal or is not seen becomes U+FFFD: every other control character (C0 but newline and tab,
/// DEL, C1), bidirectional control, other ends of lines, characters without width. A joiner within a
/// word or an emoji stays.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut before = None;
    while let Some(c) = chars.next() {
        if c == '\x1b' && skip_colour(&mut chars) {
            continue;
        }
        let joins = matches!(c, '\u{200c}' | '\u{200d}') && joined(before) && joined(chars.peek().copied());
        out.push(if harmful(c) && !joins { '\u{fffd}' } else { c });
        before = Some(c);
    }
    Cow::Owned(out)
}

pub fn harmful(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c,
            // Soft hyphen, Arabic letter mark, Mongolian vowel separator, Hangul fillers.
            '\u{ad}' | '\u{061c}' | '\u{180e}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'
            // Zero-width characters and marks of direction; ends of line and paragraph, embeddings, overrides.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            // Invisible operators, isolates, byte order mark, annotations, tags.
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// What a joiner may stand beside: letters that are not ASCII, and emoji.
fn joined(c: Option<char>) -> bool {
    c.is_some_and(|c| !c.is_ascii() && !harmful(c) && !c.is_whitespace())
}

/// Past `[`, digits, `;`, `:`, `m`, if that is what follows an escape character.
fn skip_colour(chars: &mut Peekable<Chars<'_>>) -> bool {
    let mut ahead = chars.clone();
    if ahead.next() != Some('[') {
        return false;
    }
    loop {
        match ahead.next() {
            Some('0'..='9' | ';' | ':') => {}
            Some('m') => {
                *chars = ahead;
                return true;
            }
            _ => return false,
        }
    }
}

/// The same on one line: newlines and tabs become blanks.
pub fn one_line(text: &str) -> String {
    clean(text.trim_end_matches(['\r', '\n'])).replace(['\n', '\t'], " ")
}

/// A line of a program's output, on one line: what a carriage return overwrote is not shown, as
/// on a terminal. (Not for a command or a path, of which nothing may hide.)
pub fn output_line(text: &str) -> String {
    let text = text.trim_end_matches(['\r', '\n']);
    one_line(text.rsplit_once('\r').map_or(text, |(_, last)| last))
}

pub fn width(text: &str) -> usize {
    text.width()
}

/// At most `columns` wide, the rest as `…`.
pub fn shortened(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > columns {
            break;
        }
        out.push(c);
    }
    out.truncate(out.trim_end().len());
    if columns > 0 {
        out.push('…');
    }
    out
}

/// A line in pieces of at most `columns` (one character at least), broken anywhere.
pub fn broken(line: &str, columns: usize) -> Vec<String> {
    let (mut pieces, mut piece, mut used) = (Vec::new(), String::new(), 0);
    for c in line.chars() {
        // A tab is as wide as it can be.
        let wide = if c == '\t' { 8 } else { c.width().unwrap_or(0) };
        if used > 0 && used + wide > columns {
            pieces.push(std::mem::take(&mut piece));
            used = 0;
        }
        piece.push(c);
        used += wide;
    }
    pieces.push(piece);
    pieces
}

/// Words of one line in lines of at most `columns`, the following ones indented like the
/// first, past a list's mark. A word that is too long stands alone.
pub fn wrapped(line: &str, columns: usize) -> Vec<String> {
    let body = line.trim_start_matches([' ', '-', '*', '•']);
    let indent = (line.len() - body.len()).min(columns / 2);
    let (start, body) = line.split_at_checked(indent).unwrap_or(("", line));
    if line.width() <= columns {
        return vec![line.to_owned()];
    }
    let mut lines = Vec::new();
    let mut current = start.to_owned();
    let mut empty = true;
    for word in body.split(' ') {
        if !empty && current.width() + 1 + word.width() > columns {
            lines.push(std::mem::replace(&mut current, " ".repeat(start.width())));
            empty = true;
        }
        if !empty {
            current.push(' ');
        }
        current.push_str(word);
        empty = false;
    }
    lines.push(current);
    lines
}

/// A duration as people say it.
pub fn brief(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// A size as people say it.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = None;
    let mut whole = size;
    let mut tenth = 0;
    for name in UNITS {
        if whole < 1024 {
            break;
        }
        tenth = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit = Some(name);
    }
    match unit {
        None => format!("{size} B"),
        Some(unit) => format!("{whole}.{tenth} {unit}"),
    }
}

/// How long ago, as people say it; after a month, the day.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.unix_ms().saturating_sub(then.unix_ms()) / 1000;
    match seconds {
        i64::MIN..5 => "just now".into(),
        5..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        86_400..2_592_000 => format!("{} ago", counted(seconds / 86_400, "day")),
        _ => then.to_string().chars().take(10).collect(),
    }
}

/// Milliseconds from one moment to another.
pub fn between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.unix_ms().saturating_sub(from.unix_ms())).unwrap_or(0)
}

/// `1 file`, `2 files`.
pub fn counted(n: impl Into<i128>, what: &str) -> String {
    let n = n.into();
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `2 files added, 1 deleted`: what there is none of is not named.
pub fn changes(added: u64, changed: u64, deleted: u64) -> String {
    let mut said = Vec::new();
    for (n, what) in [(added, "added"), (changed, "changed"), (deleted, "deleted")] {
        match (n, said.is_empty()) {
            (0, _) => {}
            (n, true) => said.push(format!("{} {what}", counted(n, "file"))),
            (n, false) => said.push(format!("{n} {what}")),
        }
    }
    if said.is_empty() { "no file changed".into() } else { said.join(", ") }
}

/// `+3 −1`.
pub fn delta(added: u64, deleted: u64) -> String {
    format!("+{added} −{deleted}")
}

/// A checkpoint's id as listings show it, and as every command takes it back.
pub fn short_checkpoint(id: &str) -> String {
    one_line(id).chars().take(10).collect()
}

/// A run's id as listings show it: its last digits, since the first are the time and alike.
pub fn short_run(id: &protocol::RunId) -> &str {
    &id.as_str()[id.as_str().len() - 8..]
}

/// An enum's name on the wire, which is its name for people too.
pub fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word.replace('-', " "),
        _ => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_name_what_there_is() {
        assert_eq!(changes(0, 0, 0), "no file changed");
        assert_eq!(changes(0, 1, 0), "1 file changed");
        assert_eq!(changes(2, 1, 3), "2 files added, 1 changed, 3 deleted");
        assert_eq!(changes(0, 0, 1), "1 file deleted");
    }

    #[test]
    fn a_strangers_text_cannot_drive_the_terminal() {
        assert_eq!(clean("a\x1b]52;c;x\x07b\u{9b}2J\u{202e}c\td"), "a\u{fffd}]52;c;x\u{fffd}b\u{fffd}2J\u{fffd}c\td");
        assert!(matches!(clean("plain – text"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_not_seen_or_ends_a_line_elsewhere_is_shown() {
        assert_eq!(clean("a\u{2028}b\u{2029}c\u{85}d"), "a\u{fffd}b\u{fffd}c\u{fffd}d");
        assert_eq!(clean("x\u{200b}\u{2060}\u{feff}\u{ad}\u{e0041}y"), "x\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}y");
        assert_eq!(clean("rm x\u{200d}y"), "rm x\u{fffd}y");
        assert_eq!(clean("👩\u{200d}🔬 می\u{200c}خواهم"), "👩\u{200d}🔬 می\u{200c}خواهم");
        assert_eq!(clean("👩\u{200d}\u{200d}🔬"), "👩\u{fffd}\u{fffd}🔬");
    }

    #[test]
    fn colours_vanish_and_broken_sequences_do_not() {
        assert_eq!(clean("\x1b[31mred\x1b[0m \x1b[1;38:5:9mx\x1b[m"), "red x");
        assert_eq!(clean("\x1b[31"), "\u{fffd}[31");
        assert_eq!(clean("\x1b[2Jm"), "\u{fffd}[2Jm");
    }

    #[test]
    fn a_progress_bars_line_is_its_last_state() {
        assert_eq!(output_line("10 %\r50 %\r100 %\r\n"), "100 %");
        assert_eq!(one_line("rm -rf x\recho harmless"), "rm -rf x\u{fffd}echo harmless");
        assert_eq!(one_line("a\tb\nc"), "a b c");
    }

    #[test]
    fn cutting_counts_columns_not_characters() {
        assert_eq!(shortened("日本語", 6), "日本語");
        assert_eq!(shortened("日本語", 5), "日本…");
        assert_eq!(shortened("abc", 2), "a…");
        assert_eq!(shortened("abc", 0), "");
    }

    #[test]
    fn what_cannot_be_wrapped_is_broken() {
        assert_eq!(broken("abcdef", 4), ["abcd", "ef"]);
        assert_eq!(broken("日本語", 5), ["日本", "語"]);
        assert_eq!(broken("a\tb", 8), ["a", "\t", "b"]);
        assert_eq!(broken("", 4), [""]);
        assert_eq!(broken("ab", 0), ["a", "b"]);
    }

    #[test]
    fn words_wrap_under_their_list_mark() {
        assert_eq!(wrapped("- one two three", 9), ["- one two", "  three"]);
        assert_eq!(wrapped("averylongwordindeed x", 5), ["averylongwordindeed", "x"]);
        assert_eq!(wrapped("short", 5), ["short"]);
        for text in ["ééééé éééé", "                    x y", "-----------------------"] {
            wrapped(text, 4);
        }
    }

    #[test]
    fn times_read_like_speech() {
        assert_eq!(
            [brief(7), brief(1234), brief(61_000), brief(3_700_000)],
            ["7 ms", "1.2 s", "1 min 1 s", "1 h 1 min"]
        );
        let now = Timestamp::from_unix_ms(1_764_000_000_000);
        let at = |seconds: i64| ago(Timestamp::from_unix_ms(now.unix_ms() - seconds * 1000), now);
        assert_eq!([at(-9), at(9), at(185), at(7300)], ["just now", "9 s ago", "3 min ago", "2 h ago"]);
        assert_eq!([at(86_400), at(200_000), at(4_000_000)], ["1 day ago", "2 days ago", "2025-10-09"]);
    }
}
