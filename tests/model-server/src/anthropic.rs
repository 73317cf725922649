//! The Anthropic Messages protocol, version 2023-06-01: requests read as far as a script needs them, answers whole or as events.

use serde_json::{Value, json};

use crate::script::{Progress, Script, ToolResult};

/// The conversation in a request's `messages`.
pub(crate) fn progress(body: &Value) -> Progress {
    let mut progress = Progress::default();
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    for message in messages.iter().filter(|message| message["role"] == "user") {
        if let Some(text) = message["content"].as_str() {
            progress.words.push_str(text);
            continue;
        }
        for block in message["content"].as_array().into_iter().flatten() {
            match block["type"].as_str() {
                Some("tool_result") => progress.results.push(ToolResult {
                    id: block["tool_use_id"].as_str().unwrap_or_default().to_owned(),
                    text: text(&block["content"]),
                    is_error: block["is_error"].as_bool().unwrap_or(false),
                }),
                Some("text") => {
                    progress.words.push_str(block["text"].as_str().unwrap_or_default());
                    progress.words.push('\n');
                }
                _ => {}
            }
        }
    }
    progress
}

/// A result's content is a text or a list of blocks.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

/// Whether a request belongs to the conversation: agents ask for titles and summaries without tools.
pub(crate) fn is_side(body: &Value) -> bool {
    body["tools"].as_array().is_none_or(Vec::is_empty)
}

/// The whole message of a step.
pub(crate) fn message(script: &Script, index: usize, model: &Value) -> Value {
    let step = &script.steps[index];
    let mut content = Vec::new();
    if !step.say.is_empty() {
        content.push(json!({"type": "text", "text": step.say}));
    }
    if let Some(call) = &step.call {
        content.push(json!({"type": "tool_use", "id": script.call_id(index), "name": call.tool, "input": call.input}));
    }
    let reason = if step.call.is_some() { "tool_use" } else { "end_turn" };
    finished(&format!("msg_{}_{index}", script.name), &content, reason, model)
}

/// The whole message that answers a side request.
pub(crate) fn side(script: &Script, model: &Value) -> Value {
    let content = vec![json!({"type": "text", "text": script.side})];
    finished(&format!("msg_{}_side", script.name), &content, "end_turn", model)
}

fn finished(id: &str, content: &[Value], reason: &str, model: &Value) -> Value {
    json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model.as_str().unwrap_or("scripted"),
        "content": content,
        "stop_reason": reason,
        "stop_sequence": null,
        "usage": usage(20),
    })
}

fn usage(output: u32) -> Value {
    json!({"input_tokens": 100, "output_tokens": output, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0})
}

/// The same message as the events of a stream, in order; texts and inputs in two pieces each, as real ones come in many.
pub(crate) fn events(message: &Value) -> Vec<String> {
    let mut opening = message.clone();
    opening["content"] = json!([]);
    opening["stop_reason"] = Value::Null;
    opening["usage"] = usage(1);
    let mut events =
        vec![event(&json!({"type": "message_start", "message": opening})), event(&json!({"type": "ping"}))];
    for (index, block) in message["content"].as_array().into_iter().flatten().enumerate() {
        let (start, kind, field, whole) = if block["type"] == "text" {
            let text = block["text"].as_str().unwrap_or_default().to_owned();
            (json!({"type": "text", "text": ""}), "text_delta", "text", text)
        } else {
            let mut start = block.clone();
            start["input"] = json!({});
            (start, "input_json_delta", "partial_json", block["input"].to_string())
        };
        events.push(event(&json!({"type": "content_block_start", "index": index, "content_block": start})));
        for piece in halves(&whole) {
            let delta = json!({"type": kind, field: piece});
            events.push(event(&json!({"type": "content_block_delta", "index": index, "delta": delta})));
        }
        events.push(event(&json!({"type": "content_block_stop", "index": index})));
    }
    let delta = json!({"stop_reason": message["stop_reason"], "stop_sequence": null});
    events.push(event(&json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 20}})));
    events.push(event(&json!({"type": "message_stop"})));
    events
}

fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
}

fn halves(text: &str) -> [&str; 2] {
    let mut middle = text.len() / 2;
    while !text.is_char_boundary(middle) {
        middle += 1;
    }
    [&text[..middle], &text[middle..]]
}

/// The body of an error, its type as the provider names it for that status.
pub(crate) fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": message}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_put_together_are_the_message() {
        let script = Script::fix_failing_test("/wörk");
        let message = message(&script, 2, &json!("m"));
        let mut text = String::new();
        let mut input = String::new();
        for event in events(&message) {
            let data = event.lines().nth(1).and_then(|line| line.strip_prefix("data: ")).expect("a data line");
            let data: Value = serde_json::from_str(data).expect("JSON");
            text.push_str(data["delta"]["text"].as_str().unwrap_or_default());
            input.push_str(data["delta"]["partial_json"].as_str().unwrap_or_default());
        }
        assert_eq!(message["content"][0]["text"], text);
        assert_eq!(message["content"][1]["input"], serde_json::from_str::<Value>(&input).expect("JSON"));
    }

    #[test]
    fn results_are_read_as_text_or_as_blocks() {
        let body = json!({"messages": [
            {"role": "user", "content": "please"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a"}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "plain", "is_error": true},
                {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "block"}]},
            ]},
        ]});
        let progress = progress(&body);
        assert_eq!(progress.words, "please");
        let seen: Vec<_> = progress.results.iter().map(|r| (r.id.as_str(), r.text.as_str(), r.is_error)).collect();
        assert_eq!(seen, [("a", "plain", true), ("b", "block", false)]);
    }
}
