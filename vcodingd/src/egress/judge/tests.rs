//! What is judged of a body, by samples.

use super::*;
use serde_json::{Value, json};

fn refusal(body: &[u8]) -> Result<Option<String>, NotARequest> {
    super::refusal(body, Policy::anthropic())
}

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
        "bash_code_execution_20250825",
        "text_editor_code_execution_20250825",
        "memory_2025",
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
    assert!(judge(&json!({"mcp_servers": {"a": 1}})).is_some() && judge(&json!({"mcp_servers": "a"})).is_some());
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
fn keys_in_other_letters_are_refused_wherever_they_stand() {
    let web = json!([{"type": "web_search_20250305"}]);
    for body in [
        json!({"Tools": web}),
        json!({"tool\u{17f}": web}),
        json!({"MCP_servers": [{"type": "url", "url": "https://a.example"}]}),
        json!({"Container": "id"}),
        json!({"tools": [{"Type": "web_search_20250305"}]}),
        json!({"messages": [{"role": "user", "Content": [{"type": "container_upload"}]}]}),
        user(&json!({"type": "image", "Source": {"type": "url"}})),
        user(&json!({"type": "image", "source": {"type": "base64", "TYPE": "url"}})),
    ] {
        let why = judge(&body).unwrap_or_else(|| panic!("{body}"));
        assert!(why.contains("in other letters"), "{why}");
    }
}

#[test]
fn top_level_keys_that_are_not_known_are_refused() {
    for key in ["thread", "fallbacks", "anthropic_beta", "mcpServers", "tools ", "", "speed", "inference_geo"] {
        let why = judge(&json!({"messages": [], key: null})).unwrap_or_else(|| panic!("{key}"));
        assert!(why.contains(&format!("{key:?}")), "{why}");
    }
    let long = judge(&json!({"\u{1b}".repeat(5000): 1})).unwrap();
    assert!(long.len() < 500 && !long.contains(char::is_control), "{long}");
}

#[test]
fn what_names_something_to_fetch_in_a_block_that_is_not_known_is_refused() {
    for block in [
        json!({"type": "tomorrow", "url": "a.example"}),
        json!({"type": "tomorrow", "image_url": {"detail": "low"}}),
        json!({"type": "tomorrow", "at": "https://a.example/?secret"}),
        json!({"type": "tomorrow", "a": [{"b": {"c": " HTTPS://a.example"}}]}),
        json!({"type": "tomorrow", "fileId": "f"}),
        json!({"a": {"url": 1}, "type": "tomorrow"}),
        json!({"url": "https://a.example"}),
        json!({"type": "container_upload", "file_id": "f"}),
        // Known kinds, with what they do not have.
        json!({"type": "text", "text": "t", "file_id": "f"}),
        json!({"type": "image", "url": "https://a.example"}),
        json!({"type": "image", "source": "https://a.example"}),
        json!({"type": "tool_result", "content": [{"type": "web_fetch_result", "url": "https://a.example"}]}),
    ] {
        let why = judge(&user(&block)).unwrap_or_else(|| panic!("{block}"));
        assert!(why.contains("wall"), "{why}");
    }
    let tool = json!({"tools": [{"name": "x", "server_url": "https://a.example"}]});
    assert!(judge(&tool).is_some() && judge(&json!({"tools": [{"type": "custom", "at": "wss://a"}]})).is_some());
    let message = json!({"messages": [{"role": "user", "content": "hi", "attachments": [{"url": "u"}]}]});
    assert!(judge(&message).is_some());
    for block in [
        json!({"type": "tomorrow", "text": "see https://a.example", "n": [1, -1, 0.5, true, null]}),
        json!({"type": "text", "text": "https://a.example", "citations": [{"url": "https://a.example"}]}),
    ] {
        assert_eq!(judge(&user(&block)), None, "{block}");
    }
}

#[test]
fn a_tool_that_is_added_within_the_conversation_is_judged_too() {
    let added = |tool: &Value| {
        let block = json!({"type": "tool_addition", "tool": {"type": "tool_definition", "definition": tool}});
        judge(&json!({"messages": [{"role": "system", "content": [block]}]}))
    };
    assert_eq!(added(&json!({"name": "x", "input_schema": {"url": "https://a.example"}})), None);
    assert!(added(&json!({"type": "web_fetch_20250910", "name": "x"})).is_some());
    assert!(judge(&json!({"messages": [{"role": "system", "tools": [{"type": "mcp_toolset"}]}]})).is_some());
}

#[test]
fn the_requests_of_real_agents_go_out() {
    for body in [include_str!("../testdata/claude-request.json"), include_str!("../testdata/copilot-request.json")] {
        assert_eq!(refusal(body.as_bytes()).unwrap(), None);
    }
}

#[test]
fn what_a_body_has_in_it_is_bounded_and_read_once() {
    let many: serde_json::Map<_, _> = (0..=MOST_KEYS).map(|n| (n.to_string(), Value::Null)).collect();
    assert!(refusal(user(&many.into()).to_string().as_bytes()).is_err());
    assert!(refusal(user(&json!({"k".repeat(LONGEST_KEY + 1): 1})).to_string().as_bytes()).is_err());
    let deep = format!("{{\"messages\":[{{\"x\":{}{}}}]}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(refusal(deep.as_bytes()).is_err());
    let input = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = format!("{{\"messages\":[{{\"content\":[{{\"type\":\"tool_use\",\"input\":{input}}}]}}]}}");
    assert_eq!(refusal(deep.as_bytes()).unwrap(), None, "what is a client's own is not gone into");
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
        &deep,
    ] {
        let error = refusal(body.as_bytes()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
    }
    assert!(refusal(b"{\"metadata\":\"\xff\"}").is_ok(), "what is not looked at need not be UTF-8");
    assert!(refusal(b"\xef\xbb\xbf{}").is_err());
}
