//! As much of a Dockerfile as is needed to say why a COPY will not find its file.

use std::path::{Component, Path, PathBuf};

/// The files that COPY and ADD name one by one, with their line, relative to the context.
pub(super) fn copied(text: &str) -> Vec<(usize, PathBuf)> {
    let mut all = Vec::new();
    for (line, instruction) in instructions(text) {
        let Some((verb, rest)) = instruction.split_once(char::is_whitespace) else { continue };
        if !(verb.eq_ignore_ascii_case("COPY") || verb.eq_ignore_ascii_case("ADD")) {
            continue;
        }
        let mut words = words(rest);
        if words.iter().any(|word| word.starts_with("--from=")) {
            continue;
        }
        words.retain(|word| !word.starts_with("--"));
        // The last one is where to.
        words.pop();
        for word in words {
            if word.contains(['*', '?', '[', '$']) || word.starts_with("<<") || word.contains("://") {
                continue;
            }
            let plain = Path::new(&word).components().filter(|c| matches!(c, Component::Normal(_)));
            all.push((line, plain.collect()));
        }
    }
    all
}

/// Logical lines: continued ones joined, comments gone, with the number of the first.
fn instructions(text: &str) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (part, continues) = match line.strip_suffix(['\\', '`']) {
            Some(part) => (part, true),
            None => (line, false),
        };
        match all.last_mut() {
            Some((_, last)) if open => {
                last.push(' ');
                last.push_str(part);
            }
            _ => all.push((i + 1, part.to_owned())),
        }
        open = continues;
    }
    all
}

/// The JSON form, or words with quotes.
fn words(text: &str) -> Vec<String> {
    let flags = text.split_whitespace().take_while(|word| word.starts_with("--")).map(str::to_owned);
    let mut all: Vec<String> = flags.collect();
    let rest =
        all.iter().fold(text.trim_start(), |rest, flag| rest.strip_prefix(flag.as_str()).unwrap_or(rest).trim_start());
    if let Ok(list) = serde_json::from_str::<Vec<String>>(rest) {
        all.extend(list);
        return all;
    }
    let mut word = String::new();
    let mut quote = None;
    for c in rest.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
            }
            (_, c) => word.push(c),
        }
    }
    if !word.is_empty() {
        all.push(word);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_sources_are_found_and_others_left_alone() {
        let text = "# COPY no.txt /\nFROM x\ncopy --chown=1:1 .env  ./conf/key.pem \\\n  # between\n  /app/\nADD [\"a b\", \"/c/\", \"/x\"]\n\
                    COPY --from=builder secret /x\nCOPY *.pem /x\nCOPY $FILE /x\nRUN cp .env /y\nADD https://h/f /x\nCOPY \"q r\" /z";
        let found = copied(text);
        let expected =
            [(3, ".env"), (3, "conf/key.pem"), (6, "a b"), (6, "c"), (12, "q r")].map(|(n, p)| (n, PathBuf::from(p)));
        assert_eq!(found, expected);
    }

    #[test]
    fn no_text_is_too_odd() {
        for text in ["", "\\", "COPY", "COPY ", "COPY \"", "ADD [", "COPY --x", "\u{0}\u{ffff} COPY \\\n\\\n\\"] {
            let _any = copied(text);
        }
    }
}
