//! What a provider may be asked, as data: one file a wire, under `templates/policies`.
//!
//! What is not named in it does not go out: what a provider, or a gateway in front of it, learns to do
//! tomorrow is not open today.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;

/// Behind a dated tool's name: `_20250124`.
const DATE: usize = 8;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    /// The paths by which a model is asked something. All others (files, batches, models,
    /// organisations) are not an agent's business.
    pub paths: Vec<String>,
    /// The queries that those paths may have.
    pub queries: Vec<String>,
    pub headers: Headers,
    pub body: Body,
    pub messages: Keys,
    pub tools: Tools,
    pub sources: Sources,
    /// Kinds of block, each with the keys whose value is the client's own.
    pub blocks: BTreeMap<String, BTreeSet<String>>,
    pub fetched: Fetched,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Headers {
    pub pass: BTreeSet<String>,
    /// Headers of which only these values go out.
    pub values: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    pub keys: BTreeSet<String>,
    /// Keys with nothing in them, and what something in them would do.
    pub empty: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    pub keys: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tools {
    kinds: BTreeSet<String>,
    dated: BTreeSet<String>,
    pub keys: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sources {
    pub kinds: BTreeSet<String>,
    pub keys: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fetched {
    words: BTreeSet<String>,
    /// Blocks whose source is a name to be shown.
    pub named: BTreeSet<String>,
}

impl Policy {
    /// That of the Messages API.
    pub fn anthropic() -> &'static Self {
        static PARSED: LazyLock<Policy> = LazyLock::new(|| shipped("anthropic").expect("the shipped file is tested"));
        &PARSED
    }
}

fn shipped(wire: &str) -> Result<Policy, String> {
    let (_, text) = templates::POLICIES.iter().find(|(name, _)| *name == wire).ok_or("there is no such file")?;
    toml::from_str(text).map_err(|error| error.to_string())
}

impl Tools {
    /// Whether a tool of this kind is run by the client.
    pub fn are_the_clients(&self, kind: &str) -> bool {
        let dated = || {
            let (name, date) = kind.rsplit_once('_')?;
            Some(self.dated.contains(name) && date.len() == DATE && date.bytes().all(|b| b.is_ascii_digit()))
        };
        self.kinds.contains(kind) || dated().unwrap_or(false)
    }
}

impl Fetched {
    /// Whether a key says by one of its words that something elsewhere is meant: `image_url`, `fileId`, `Source`.
    pub fn is_key(&self, key: &str) -> bool {
        let mut word = String::new();
        let mut before_is_lower = false;
        for c in key.chars().chain(Some('_')) {
            if !c.is_alphanumeric() || (c.is_uppercase() && before_is_lower) {
                if self.words.contains(&word) {
                    return true;
                }
                word.clear();
            }
            before_is_lower = c.is_lowercase();
            if c.is_alphanumeric() {
                word.extend(folded(c));
            }
        }
        false
    }

    /// Whether a text begins as an address does: `https://…`.
    pub fn is_address(text: &str) -> bool {
        let scheme = text.trim_start().split_once("://").map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        })
    }
}

/// Whether two keys are the same to a reader that does not mind the case of letters; Go's takes a long s for an s, too.
pub(super) fn same_but_for_case(a: &str, b: &str) -> bool {
    a.chars().flat_map(folded).eq(b.chars().flat_map(folded))
}

fn folded(c: char) -> impl Iterator<Item = char> {
    c.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_file_parses_and_means_what_it_says() {
        for (wire, _) in templates::POLICIES {
            let policy = shipped(wire).unwrap_or_else(|why| panic!("{wire}: {why}"));
            assert!(policy.paths.iter().all(|path| path.starts_with('/')));
            let lower = |name: &String| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            assert!(policy.headers.pass.iter().all(lower), "names are compared in lower case");
            for name in policy.headers.values.keys() {
                assert!(policy.headers.pass.contains(name), "{name} has values and does not pass");
            }
            assert!(policy.body.empty.keys().all(|key| !policy.body.keys.contains(key)));
            for word in &policy.fetched.words {
                assert!(policy.fetched.is_key(word), "{word}");
            }
        }
    }

    #[test]
    fn a_dated_tool_is_its_name_and_a_date_and_nothing_else() {
        let tools = &Policy::anthropic().tools;
        for kind in ["custom", "bash_20250124", "text_editor_20250728", "tool_search_tool_regex_20251119"] {
            assert!(tools.are_the_clients(kind), "{kind}");
        }
        for kind in [
            "bash",
            "bash_",
            "bash_2025012",
            "bash_202501244",
            "bash_2025012x",
            "bash_\u{ff12}0250124",
            "bash_code_execution_20250825",
            "text_editor_code_execution_20250825",
            "Bash_20250124",
            "xbash_20250124",
            "tool_search_tool_web_20251119",
            "custom_20250124",
            "",
            "_20250124",
        ] {
            assert!(!tools.are_the_clients(kind), "{kind}");
        }
    }

    #[test]
    fn a_key_is_judged_by_its_words_and_a_text_by_how_it_begins() {
        let fetched = &Policy::anthropic().fetched;
        for key in [
            "url",
            "image_url",
            "imageUrl",
            "URL",
            "file_id",
            "fileId",
            "Source",
            "mcp-server",
            "\u{17f}ource",
            "a_uri",
        ] {
            assert!(fetched.is_key(key), "{key}");
        }
        for key in ["", "curl", "security", "during", "profile", "outsourced", "text", "sourcery"] {
            assert!(!fetched.is_key(key), "{key}");
        }
        for text in ["https://a.example", " HTTP://a", "s3://b/c", "git+ssh://h/x"] {
            assert!(Fetched::is_address(text), "{text}");
        }
        for text in ["", "://", "see https://a.example", "a b://c", "1://x", "http:/a"] {
            assert!(!Fetched::is_address(text), "{text}");
        }
    }

    #[test]
    fn keys_are_the_same_whatever_the_case_of_their_letters() {
        for (a, b) in
            [("Tools", "tools"), ("MCP_servers", "mcp_servers"), ("tool\u{17f}", "tools"), ("to\u{212a}en", "token")]
        {
            assert!(same_but_for_case(a, b), "{a} {b}");
        }
        assert!(!same_but_for_case("tool", "tools") && !same_but_for_case("tools_", "tools"));
    }
}
