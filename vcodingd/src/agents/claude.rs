//! Claude Code's `--output-format stream-json`: one JSON object a line.
//!
//! ```text
//! system/init       session, model, version           → Session
//! assistant         text | thinking | tool_use         → Text, Thinking, ToolCall (and Plan)
//! user              tool_result, tool_use_result       → ToolResult, Edit
//! system/api_retry                                     → Retry
//! result            is_error, cost, usage              → Finished
//! ```
//!
//! `subtype` of a result is `success` even when the model endpoint refused; only `is_error` tells. What is
//! JSON of another type is no event (hooks, tasks, partial messages); what is no JSON is output.

use guest::run::Stream;
use protocol::Bytes;
use protocol::event::{EventBody, PlanState, PlanStep};
use serde_json::Value;

use super::parser::{
    MAX_EVENTS, MAX_LINE, MAX_OUTPUT, MAX_STRING, MAX_TEXT, MAX_WORD, Parser, Verdict, cut_strings, head, one_line,
    output, tail,
};

#[derive(Debug, Default)]
pub(super) struct Claude {
    verdict: Verdict,
    /// The newest answer was an error of the endpoint, or one was announced to be tried again.
    endpoint_fails: bool,
}

impl Parser for Claude {
    fn line(&mut self, stream: Stream, line: &[u8]) -> Vec<EventBody> {
        if stream == Stream::Err {
            return vec![output(stream, line)];
        }
        // A picture or a huge file in a tool's result. Parsed, its worst is thirty times as large; shown, a little will do.
        if line.len() > MAX_LINE {
            return vec![output(stream, &line[..MAX_STRING])];
        }
        if line.trim_ascii().is_empty() {
            return Vec::new();
        }
        // The parser's limit of depth makes deep nesting an error here, not a deep recursion.
        let Ok(object @ Value::Object(_)) = serde_json::from_slice::<Value>(line) else {
            return vec![output(stream, line)];
        };
        let mut events = match (word(&object, "type"), word(&object, "subtype")) {
            ("system", "init") => vec![self.session(&object)],
            ("system", "api_retry") => vec![self.retry(&object)],
            ("assistant", _) => self.assistant(object),
            ("user", _) => user(&object),
            ("result", _) => vec![self.result(&object)],
            ("", _) => vec![output(stream, line)],
            _ => Vec::new(),
        };
        events.truncate(MAX_EVENTS);
        events
    }

    fn verdict(&self) -> Verdict {
        Verdict { endpoint_failed: self.endpoint_fails && self.verdict.finished != Some(true), ..self.verdict.clone() }
    }
}

impl Claude {
    fn session(&mut self, init: &Value) -> EventBody {
        let text = |name: &str| init[name].as_str().map(|text| head(text, MAX_WORD));
        let session = text("session_id");
        self.verdict.session = session.clone().or(self.verdict.session.take());
        EventBody::Session { session, model: text("model"), version: text("claude_code_version") }
    }

    fn retry(&mut self, retry: &Value) -> EventBody {
        self.endpoint_fails = true;
        let number = |name: &str| retry[name].as_u64().unwrap_or(0);
        let error = head(word(retry, "error"), MAX_WORD);
        let why = match retry["error_status"].as_u64() {
            Some(status) => format!("the model endpoint answered {status} ({error})"),
            None => "the connection to the model endpoint failed".to_owned(),
        };
        // The delay has a fraction in some versions.
        let wait_ms = retry["retry_delay_ms"].as_f64().unwrap_or(0.0).clamp(0.0, 86_400_000.0) as u64;
        EventBody::Retry { attempt: number("attempt"), of: number("max_retries"), wait_ms, why }
    }

    fn assistant(&mut self, mut event: Value) -> Vec<EventBody> {
        self.endpoint_fails = event["error"].is_string();
        let mut events = Vec::new();
        let Some(Value::Array(blocks)) = event.pointer_mut("/message/content").map(Value::take) else {
            return events;
        };
        for block in blocks {
            let text = |name: &str| head(word(&block, name), MAX_TEXT);
            match word(&block, "type") {
                "text" if !word(&block, "text").is_empty() => events.push(EventBody::Text { text: text("text") }),
                "thinking" if !word(&block, "thinking").is_empty() => {
                    events.push(EventBody::Thinking { text: text("thinking") });
                }
                "tool_use" => {
                    let plan = plan(&block);
                    events.push(tool_call(block));
                    events.extend(plan);
                }
                _ => {}
            }
            if events.len() >= MAX_EVENTS {
                break;
            }
        }
        events
    }

    fn result(&mut self, result: &Value) -> EventBody {
        // Who leaves it out has not said that all is well.
        let ok = result["is_error"] == false && word(result, "subtype") == "success";
        let reason = word(result, "terminal_reason");
        let errors = || {
            let errors = result["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).take(8);
            errors.collect::<Vec<_>>().join("\n")
        };
        let interrupted = !ok && reason.starts_with("aborted");
        let text = match result["result"].as_str() {
            Some(text) => head(text, MAX_TEXT),
            // Its own words for that are a line for its developers.
            None if interrupted => "interrupted".to_owned(),
            None => head(&errors(), MAX_TEXT),
        };
        let cost_usd = result["total_cost_usd"].as_f64().filter(|cost| *cost >= 0.0);
        self.endpoint_fails = !ok && (reason == "api_error" || result["api_error_status"].is_u64());
        self.verdict.finished = Some(ok);
        self.verdict.interrupted = interrupted;
        self.verdict.cost_usd = cost_usd;
        self.verdict.text = Some(text.clone());
        if let Some(session) = result["session_id"].as_str() {
            self.verdict.session = Some(head(session, MAX_WORD));
        }
        let usage = |names: &[&str]| {
            let counts = names.iter().filter_map(|name| result["usage"][*name].as_u64());
            counts.reduce(u64::saturating_add)
        };
        EventBody::Finished {
            ok,
            text,
            cost_usd,
            turns: result["num_turns"].as_u64(),
            input_tokens: usage(&["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"]),
            output_tokens: usage(&["output_tokens"]),
        }
    }
}

/// A field's text; empty where it is none.
fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn tool_call(mut block: Value) -> EventBody {
    let mut input = block["input"].take();
    let name = head(word(&block, "name"), MAX_WORD);
    let summary = summary(&name, &input);
    cut_strings(&mut input);
    EventBody::ToolCall { id: head(word(&block, "id"), MAX_WORD), name, summary, input }
}

/// What a call is about: the one field of its input that people look for.
fn summary(tool: &str, input: &Value) -> String {
    let known: &[&str] = match tool {
        "Bash" => &["command"],
        "Edit" | "MultiEdit" | "Read" | "Write" => &["file_path"],
        "NotebookEdit" => &["notebook_path"],
        "Glob" | "Grep" => &["pattern"],
        "WebFetch" => &["url"],
        "WebSearch" | "ToolSearch" => &["query"],
        "Agent" | "Task" => &["description"],
        "Skill" => &["skill", "command"],
        _ => &[],
    };
    let found = known.iter().find_map(|name| input[*name].as_str());
    let any = || input.as_object().and_then(|fields| fields.values().find_map(Value::as_str));
    one_line(found.or_else(any).unwrap_or_default())
}

fn plan(block: &Value) -> Option<EventBody> {
    if word(block, "name") != "TodoWrite" {
        return None;
    }
    let steps = block["input"]["todos"].as_array()?.iter().take(MAX_EVENTS);
    let steps = steps.map(|todo| PlanStep {
        text: one_line(word(todo, "content")),
        state: match word(todo, "status") {
            "completed" => PlanState::Done,
            "in_progress" => PlanState::InProgress,
            _ => PlanState::Pending,
        },
    });
    Some(EventBody::Plan { steps: steps.collect() })
}

fn user(event: &Value) -> Vec<EventBody> {
    let blocks = event["message"]["content"].as_array().into_iter().flatten();
    let results = blocks.filter(|block| word(block, "type") == "tool_result").take(MAX_EVENTS);
    let mut events: Vec<EventBody> = results
        .map(|block| EventBody::ToolResult {
            id: head(word(block, "tool_use_id"), MAX_WORD),
            ok: block["is_error"] != true,
            output: result_text(&block["content"]),
        })
        .collect();
    events.extend(edit(&event["tool_use_result"]));
    events
}

/// A result's content is a text or a list of blocks.
fn result_text(content: &Value) -> String {
    match content {
        Value::String(text) => tail(text, MAX_OUTPUT),
        Value::Array(blocks) => {
            let text = |block: &Value| match block["text"].as_str() {
                Some(text) => text.to_owned(),
                None => format!("[{}]", one_line(word(block, "type"))),
            };
            let texts: Vec<String> = blocks.iter().take(MAX_EVENTS).map(text).collect();
            tail(&texts.join("\n"), MAX_OUTPUT)
        }
        _ => String::new(),
    }
}

/// Only a change that was made has a patch or a new file's content in it.
fn edit(result: &Value) -> Option<EventBody> {
    let path = result["filePath"].as_str()?;
    let hunks = result["structuredPatch"].as_array()?;
    let lines = || hunks.iter().filter_map(|hunk| hunk["lines"].as_array()).flatten().filter_map(Value::as_str);
    let mut added = lines().filter(|line| line.starts_with('+')).count();
    let deleted = lines().filter(|line| line.starts_with('-')).count();
    if word(result, "type") == "create" {
        added = word(result, "content").lines().count();
    }
    Some(EventBody::Edit { path: Bytes::from(head(path, 4096)), added: added as u64, deleted: deleted as u64 })
}
