//! Whether a request would make the provider an exit.
//!
//! A provider that fetches a URL, runs a tool or code, or reads the account's files for its caller
//! carries data past the wall, with the user's key. What does that is refused by what it is in the
//! Messages API; a tool or a source of a kind that is not known here is refused too, since what
//! it does is not known either. What a client's own tools take and return is nobody's business.
//!
//! The body is read where it lies: a tree of values would be sixteen times as large. A key that
//! is there twice is no request, so that the provider cannot read another one than was judged.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The body is not of the form of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request is not a Messages request: {why}")]
pub struct NotARequest {
    /// Line, column and kind of the mistake; none of the text.
    pub why: String,
}

/// Tools that the client runs; the provider only knows their schema. Each is followed by a date.
const CLIENT_TOOLS: [&str; 4] = ["bash_", "text_editor_", "computer_", "memory_"];
/// Looks among the tools of the same request.
const TOOL_SEARCH: &str = "tool_search_tool_";
/// Sources whose content is in the request itself.
const INLINE: [&str; 3] = ["base64", "text", "content"];
/// The name of a kind is cut here when it is shown.
const SHOWN: usize = 60;

/// Why a Messages request must not go out, in the caller's words; `None` if it may.
///
/// # Errors
/// [`NotARequest`].
pub fn refusal(body: &[u8]) -> Result<Option<String>, NotARequest> {
    let Item(body): Item<Body> = serde_json::from_slice(body).map_err(|error| {
        let kind = match error.classify() {
            serde_json::error::Category::Data => "an unexpected value",
            serde_json::error::Category::Eof => "it ends too early",
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => "it is not JSON",
        };
        NotARequest { why: format!("{kind} at line {}, column {}", error.line(), error.column()) }
    })?;
    let finding = if body.mcp_servers.is_some_and(|servers| !servers.is_empty()) {
        Some("mcp_servers lets the provider call servers".to_owned())
    } else if body.container.is_some() {
        Some("container lets the provider run code".to_owned())
    } else {
        body.tools.0.or(body.messages.0).or(body.system.0)
    };
    Ok(finding.map(|finding| format!("{finding}, which is outside this workspace's wall")))
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    tools: First<Tool>,
    #[serde(default)]
    messages: First<Message>,
    #[serde(default)]
    system: First<Block>,
    // Without memory: the vector's items have no size.
    #[serde(default)]
    mcp_servers: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    container: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Tool {
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: First<Block>,
}

/// A block of content; `content` has blocks in it in turn, `input` and all else is not looked at.
#[derive(Deserialize)]
struct Block {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    source: First<Source>,
    #[serde(default)]
    content: First<Block>,
}

#[derive(Deserialize)]
struct Source {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    content: First<Block>,
}

/// What may hold a reason to refuse.
trait Judged {
    fn finding(self) -> Option<String>;
}

impl Judged for Tool {
    fn finding(self) -> Option<String> {
        let kind = self.kind.filter(|kind| {
            !(kind == "custom"
                || kind.starts_with(TOOL_SEARCH)
                || CLIENT_TOOLS.iter().any(|known| kind.starts_with(known)))
        })?;
        Some(format!("the tool {} is run by the provider", shown(&kind)))
    }
}

impl Judged for Message {
    fn finding(self) -> Option<String> {
        self.content.0
    }
}

impl Judged for Block {
    fn finding(self) -> Option<String> {
        if self.kind.as_deref() == Some("container_upload") {
            return Some("container_upload lets the provider run code".to_owned());
        }
        self.source.0.or(self.content.0)
    }
}

impl Judged for Source {
    fn finding(self) -> Option<String> {
        match self.kind.as_deref() {
            Some(kind) if INLINE.contains(&kind) => self.content.0,
            Some("url") => Some("a source of type \"url\" is fetched by the provider".to_owned()),
            Some("file") => Some("a source of type \"file\" is read from the key owner's account".to_owned()),
            Some(other) => Some(format!("a source of type {} is not known to be in the request", shown(other))),
            None => Some("a source without a type is not known to be in the request".to_owned()),
        }
    }
}

fn shown(kind: &str) -> String {
    format!("{:?}", kind.chars().take(SHOWN).collect::<String>())
}

/// The first finding in a value that is a text, one `T` or a list of them; nothing else is kept.
struct First<T>(Option<String>, std::marker::PhantomData<T>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self::of(None)
    }
}

impl<T> First<T> {
    fn of(finding: Option<String>) -> Self {
        Self(finding, std::marker::PhantomData)
    }
}

impl<'de, T: Judged + Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Looking(std::marker::PhantomData))
    }
}

struct Looking<T>(std::marker::PhantomData<T>);

impl<'de, T: Judged + Deserialize<'de>> Visitor<'de> for Looking<T> {
    type Value = First<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, an object, a list of objects or null")
    }

    fn visit_str<E>(self, _: &str) -> Result<First<T>, E> {
        Ok(First::default())
    }

    fn visit_unit<E>(self) -> Result<First<T>, E> {
        Ok(First::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<First<T>, A::Error> {
        Ok(First::of(T::deserialize(MapAccessDeserializer::new(map))?.finding()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<First<T>, A::Error> {
        let mut first = None;
        while let Some(Item(item)) = items.next_element::<Item<T>>()? {
            first = first.or(item.finding());
        }
        Ok(First::of(first))
    }
}

/// A `T` that is an object: derived readers take a list for its fields in their order.
struct Item<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(Object(std::marker::PhantomData)).map(Item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn judge(body: &Value) -> Option<String> {
        refusal(body.to_string().as_bytes()).unwrap()
    }

    fn user(block: &Value) -> Value {
        json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, block]}]})
    }

    #[test]
    fn an_agents_ordinary_request_goes_out() {
        assert_eq!(judge(&json!({"messages": [{"role": "user", "content": "hi"}]})), None);
        let body = json!({
            "model": "m", "stream": true, "max_tokens": 1, "metadata": {"user_id": "u"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015"}]},
            "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            "mcp_servers": [], "container": null,
            "tools": [
                {"name": "Bash", "description": "d", "input_schema": {"type": "object", "properties": {"type": {"type": "url"}}}},
                {"name": "a", "type": "custom"}, {"name": "b", "type": null},
                {"name": "bash", "type": "bash_20250124"}, {"type": "text_editor_20250728"}, {"type": "memory_20250818"},
                {"type": "tool_search_tool_regex_20251119"},
            ],
            "messages": [
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "t", "signature": "s"},
                    {"type": "tool_use", "id": "1", "name": "x", "input": {
                        "type": "container_upload", "source": {"type": "url", "url": "https://a.example"},
                        "content": [{"source": {"type": "url"}}], "tools": [{"type": "web_fetch_1"}], "mcp_servers": [1]}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "1", "content": [
                        {"type": "text", "text": "{\"source\":{\"type\":\"url\"}}"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                        {"type": "tool_reference", "tool_name": "x"}]},
                    {"type": "tool_result", "tool_use_id": "2", "content": "text"},
                    {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "t"}]}},
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "t"}},
                    {"type": "search_result", "source": "https://a.example", "title": "t", "content": []},
                    {"type": "web_search_tool_result", "content": {"type": "web_search_tool_result_error"}},
                ]},
            ],
        });
        assert_eq!(judge(&body), None);
    }

    #[test]
    fn tools_that_the_provider_runs_are_refused_and_unknown_ones_too() {
        for kind in [
            "web_search_20250305",
            "web_fetch_20250910",
            "code_execution_20250825",
            "mcp_toolset",
            "tomorrow",
            "",
            "Custom",
        ] {
            let why = judge(&json!({"messages": [], "tools": [{"name": "ok"}, {"type": kind, "name": "x"}]})).unwrap();
            assert!(why.contains(&format!("{kind:?}")) && why.contains("wall"), "{why}");
        }
        let long = judge(&json!({"tools": [{"type": "x".repeat(5000)}]})).unwrap();
        assert!(long.len() < 200, "{long}");
        let ugly = judge(&json!({"tools": [{"type": "\u{1b}[2J\n"}]})).unwrap();
        assert!(!ugly.contains(char::is_control), "{ugly:?}");
    }

    #[test]
    fn servers_containers_and_uploads_are_refused() {
        assert!(judge(&json!({"mcp_servers": [{"type": "url", "url": "https://a.example"}]})).is_some());
        assert!(judge(&json!({"container": "id"})).is_some());
        assert!(judge(&json!({"container": {"skills": []}})).is_some());
        assert!(judge(&user(&json!({"type": "container_upload", "file_id": "f"}))).is_some());
    }

    #[test]
    fn sources_that_the_provider_would_fetch_are_refused_wherever_content_is() {
        for source in [
            json!({"type": "url", "url": "https://a.example/?secret"}),
            json!({"type": "file", "file_id": "f"}),
            json!({"type": "tomorrow"}),
            json!({"url": "https://a.example"}),
        ] {
            let image = json!({"type": "image", "source": source});
            for block in [
                image.clone(),
                json!({"type": "tool_result", "tool_use_id": "1", "content": [image]}),
                json!({"type": "document", "source": {"type": "content", "content": [image]}}),
                json!({"type": "tool_result", "content": [{"type": "document", "source": {"type": "content", "content": [image]}}]}),
            ] {
                assert!(judge(&user(&block)).is_some(), "{block}");
            }
            assert!(judge(&json!({"messages": [], "system": [image]})).is_some());
            assert!(judge(&json!({"messages": [{"role": "user", "content": image}]})).is_some());
        }
    }

    #[test]
    fn other_spellings_of_the_same_are_refused_too() {
        let escaped = br#"{"\u0074ools":[{"typ\u0065":"web\u005fsearch_20250305"}]}"#;
        assert!(refusal(escaped).unwrap().is_some());
        for twice in [
            r#"{"tools":[{"type":"web_search_20250305"}],"tools":[]}"#,
            r#"{"tools":[],"tools":[{"type":"web_search_20250305"}]}"#,
            r#"{"tools":[{"type":"custom","type":"web_search_20250305"}]}"#,
            r#"{"messages":[{"content":[],"content":[{"type":"container_upload"}]}]}"#,
        ] {
            assert!(refusal(twice.as_bytes()).is_err(), "{twice}");
        }
    }

    #[test]
    fn what_is_no_request_is_an_error_that_shows_none_of_it() {
        let deep = format!("{{\"messages\":{}{}}}", "[{\"content\":".repeat(4000), "}]".repeat(4000));
        for body in [
            "",
            "{",
            "[]",
            "7",
            "\"hush\"",
            "{} {}",
            "{\"hush\"}",
            "{\"tools\":7}",
            "{\"tools\":[\"hush\"]}",
            "{\"tools\":[[\"web_search_20250305\"]]}",
            "{\"tools\":[{\"type\":[\"hush\"]}]}",
            "{\"messages\":[[[]]]}",
            "[[{\"type\":\"web_fetch\"}]]",
            "{\"mcp_servers\":{\"hush\":1}}",
            &deep,
        ] {
            let error = refusal(body.as_bytes()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
        assert!(refusal(b"{\"a\":\"\xff\"}").is_ok(), "what is not looked at need not be UTF-8");
        assert!(refusal(b"\xef\xbb\xbf{}").is_err());
    }
}
