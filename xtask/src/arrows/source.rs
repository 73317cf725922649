//! Paths from the crate's root in a piece of Rust: words and punctuation are told from comments, strings and characters; no more
//! of the language is needed to find `crate::room`, `use crate::{room, …}` and `super::…` that climbs to the root.

/// One use of something at the crate's root; `*` is everything.
#[derive(Debug, PartialEq, Eq)]
pub struct Use {
    pub line: usize,
    pub name: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Path,
    Mark(char),
}

/// What `text` uses of the crate's root, its own module lying `depth` modules below it.
pub fn uses(text: &str, depth: usize) -> Vec<Use> {
    let tokens = tokens(text);
    let word = |at: usize| match tokens.get(at) {
        Some((Token::Word(word), _)) => Some(word.as_str()),
        _ => None,
    };
    let is = |at: usize, token: Token| tokens.get(at).is_some_and(|(found, _)| *found == token);
    let mut found = Vec::new();
    // For every open brace: whether it is a module's.
    let mut braces = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at].0 {
            Token::Mark('{') => braces.push(at >= 2 && word(at - 2) == Some("mod")),
            Token::Mark('}') => {
                braces.pop();
            }
            Token::Word(start) if start == "crate" && is(at + 1, Token::Path) => {
                leaves(&tokens, at + 2, &mut found);
            }
            Token::Word(start) if start == "super" && (at == 0 || !is(at - 1, Token::Path)) => {
                let mut ups = 1;
                while is(at + 1, Token::Path) && word(at + 2) == Some("super") {
                    ups += 1;
                    at += 2;
                }
                let here = depth + braces.iter().filter(|module| **module).count();
                if ups == here && is(at + 1, Token::Path) {
                    leaves(&tokens, at + 2, &mut found);
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The first segments of what begins at `at`: a word, `*`, or a group of such.
fn leaves(tokens: &[(Token, usize)], at: usize, found: &mut Vec<Use>) {
    let mut open = 0_u32;
    let mut due = true;
    // Groups inside a path's tail are skipped: only its first segment counts.
    let mut tail = 0_u32;
    for (token, line) in &tokens[at.min(tokens.len())..] {
        match token {
            Token::Mark('{') if due => open += 1,
            Token::Mark('{') if open > 0 => tail += 1,
            Token::Mark('}') if tail > 0 => tail -= 1,
            Token::Mark('}') if open > 0 => {
                open -= 1;
                due = false;
            }
            Token::Mark(',') if open > 0 && tail == 0 => due = true,
            Token::Word(name) if due => {
                if name != "self" {
                    found.push(Use { line: *line, name: name.clone() });
                }
                due = false;
            }
            Token::Mark('*') if due => {
                found.push(Use { line: *line, name: "*".to_owned() });
                due = false;
            }
            _ => {}
        }
        if open == 0 && !due {
            return;
        }
    }
}

fn tokens(text: &str) -> Vec<(Token, usize)> {
    let chars: Vec<char> = text.chars().collect();
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let begin = at;
        if c == '/' && peek(at + 1) == '/' {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if c == '/' && peek(at + 1) == '*' {
            at = comment(&chars, at);
        } else if c == '"' {
            at = string(&chars, at);
        } else if c == '\'' {
            at = character(&chars, at);
        } else if c.is_alphanumeric() || c == '_' {
            while peek(at).is_alphanumeric() || peek(at) == '_' {
                at += 1;
            }
            let word: String = chars[begin..at].iter().collect();
            let raw = matches!(word.as_str(), "r" | "br" | "cr");
            if raw && peek(at) == '#' && (peek(at + 1).is_alphabetic() || peek(at + 1) == '_') {
                // A raw identifier: the name follows as a word of its own.
                at += 1;
            } else if raw && (peek(at) == '#' || peek(at) == '"') {
                at = raw_string(&chars, at);
            } else {
                tokens.push((Token::Word(word), line));
            }
        } else if c == ':' && peek(at + 1) == ':' {
            tokens.push((Token::Path, line));
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push((Token::Mark(c), line));
            }
            at += 1;
        }
        line += chars[begin..at.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn comment(chars: &[char], mut at: usize) -> usize {
    let mut open = 0_u32;
    while at < chars.len() {
        if chars[at..].starts_with(&['/', '*']) {
            open += 1;
            at += 2;
        } else if chars[at..].starts_with(&['*', '/']) {
            open -= 1;
            at += 2;
            if open == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string(chars: &[char], mut at: usize) -> usize {
    at += 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn raw_string(chars: &[char], mut at: usize) -> usize {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    at += hashes;
    if chars.get(at) != Some(&'"') {
        return at;
    }
    at += 1;
    while at < chars.len() {
        let end = chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
        at += 1;
        if end {
            return at + hashes;
        }
    }
    at
}

/// A character, or the mark of a lifetime.
fn character(chars: &[char], at: usize) -> usize {
    if chars.get(at + 1) == Some(&'\\') {
        let rest = chars.get(at + 3..).unwrap_or_default();
        let end = rest.iter().position(|c| *c == '\'').unwrap_or(rest.len());
        return (at + 3 + end + 1).min(chars.len());
    }
    if chars.get(at + 2) == Some(&'\'') { at + 3 } else { at + 1 }
}
