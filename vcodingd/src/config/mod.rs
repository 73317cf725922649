//! What may be configured: the repository's vcoding.toml and the user's config.toml, parsed
//! once into types that cannot be wrong.
//!
//! vcoding.toml is the repository's word: what it may decide alone is taken; what goes beyond
//! the defaults is a wish, and nothing comes of it before the user has agreed (the workspace's
//! room asks). What this version cannot do is refused by name, not ignored.

mod project;
mod user;

pub use project::{Limits, Project, Run};
pub use user::User;

use std::path::PathBuf;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path} cannot be read: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// The parser's message names the line.
    #[error("{path}: {why}")]
    Mistake { path: PathBuf, why: String },
    #[error("{path} asks for what this version cannot do: {}", .what.join("; "))]
    Unsupported { path: PathBuf, what: Vec<String> },
}

/// A value of more lines than this is not passed over.
const MOST_LINES: usize = 200;
/// More mistakes than this are not looked for.
const MOST_MISTAKES: usize = 20;

/// All that the parser says, on one line, each with its line of the file.
fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut rest = text.to_owned();
    let mut mistakes = Vec::new();
    loop {
        let error = match toml::from_str::<T>(&rest) {
            Ok(parsed) if mistakes.is_empty() => return Ok(parsed),
            Ok(_) => break,
            Err(error) => error,
        };
        // What is no TOML has one mistake that is known, and none beyond it.
        let is_toml = rest.parse::<toml::Table>().is_ok();
        if !is_toml && !mistakes.is_empty() {
            break;
        }
        let what = said(error.message());
        let Some(line) =
            error.span().and_then(|span| rest.get(..span.start)).map(|before| before.matches('\n').count())
        else {
            mistakes.push((0, what));
            break;
        };
        mistakes.push((line + 1, format!("line {}: {what}", line + 1)));
        if !is_toml || mistakes.len() >= MOST_MISTAKES {
            break;
        }
        rest = without(&rest, line);
    }
    mistakes.sort();
    Err(mistakes.into_iter().map(|(_, what)| what).collect::<Vec<_>>().join("; "))
}

/// The text with one line emptied, and with it the keys of a table whose heading that is: lines keep their numbers.
fn without(text: &str, line: usize) -> String {
    let heading = |text: &str| text.trim_start().starts_with('[');
    let table = text.lines().nth(line).is_some_and(heading);
    let mut end = line + 1 + text.lines().skip(line + 1).take_while(|text| table && !heading(text)).count();
    let lines = text.lines().count();
    loop {
        let kept = text.lines().enumerate().map(|(n, text)| if (line..end).contains(&n) { "" } else { text });
        let kept = kept.collect::<Vec<_>>().join("\n");
        // A value may go on over several lines.
        if end >= lines || end > line + MOST_LINES || kept.parse::<toml::Table>().is_ok() {
            return kept;
        }
        end += 1;
    }
}

/// In words that are not the parser's own types.
fn said(message: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((name, known)) =
        message.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, expected "))
    {
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        return match nearest(name, &known) {
            Some(near) => format!("unknown key {name}; did you mean {near}?"),
            None => format!("unknown key {name}; there are {}", known.join(", ")),
        };
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    {
        let expected = match expected {
            "f64" => "a number",
            "u8" | "u16" | "u32" | "u64" | "i64" | "usize" => "a whole number",
            "a sequence" => "an array",
            table if table == "a map" || table.starts_with("struct ") => "a table",
            other => other,
        };
        return format!("{expected} is wanted, not {found}");
    }
    message
}

/// The one among `known` that was probably meant.
pub fn nearest<'a>(text: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known.iter().map(|name| (strsim::levenshtein(text, name), *name)).min()?;
    (near.0 <= 2.max(text.chars().count() / 3)).then_some(near.1)
}

/// A size as people write it: `4g`, `512m`, `65536`; in bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        "t" | "tb" => 1 << 40,
        _ => return Err(format!("{text:?} is not a size; write it like \"512m\" or \"4g\"")),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale))
        .ok_or_else(|| format!("{text:?} is not a size; write it like \"512m\" or \"4g\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_told_at_once_each_with_its_line_and_what_was_meant() {
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct File {
            limits: Limits,
            names: Vec<String>,
        }
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Limits {
            cpus: f64,
            pids: u32,
        }
        let all = |text: &str| parsed::<File>(text).unwrap_err();
        assert_eq!(
            all("names = 1\n[limit]\ncpus = 1.0\nwhat = 2\n\n[limits]\ncpuz = 1\npids = \"two\"\nzebra = 0\n"),
            "line 1: an array is wanted, not integer `1`; line 2: unknown key limit; did you mean limits?; \
             line 7: unknown key cpuz; did you mean cpus?; line 8: a whole number is wanted, not string \"two\"; \
             line 9: unknown key zebra; there are cpus, pids"
        );
        assert_eq!(
            all("nam = [\n  \"a\",\n]\n[limits]\ncpuz = 1\n"),
            "line 1: unknown key nam; did you mean names?; line 5: unknown key cpuz; did you mean cpus?"
        );
        assert!(all("[limits\ncpuz = 1\n").starts_with("line 1: "), "{}", all("[limits\ncpuz = 1\n"));
        assert!(parsed::<File>("[limits]\ncpus = 2.0\n").is_ok());
        // However many there are.
        let many = "[limits]\n".to_owned() + &(0..100).map(|n| format!("k{n} = 1\n")).collect::<String>();
        assert_eq!(all(&many).matches("unknown key").count(), MOST_MISTAKES);
    }

    #[test]
    fn a_mistyped_name_is_answered_with_the_nearest() {
        assert_eq!(nearest("shpo", &["shop", "blog"]), Some("shop"));
        assert_eq!(nearest("zebra", &["shop", "blog"]), None);
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("4g"), Ok(4 << 30));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("65536"), Ok(65536));
        for bad in ["", "g", "4x", "-1", "99999999999999t"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
