//! docs/protocol.md is what `rpc.discover` says, for people: `DOCS=write cargo test -p protocol` writes it anew.

use std::fmt::Write;

use protocol::{examples, methods};
use serde_json::{Map, Value};

const HEAD: &str = "\
# The socket

`vcodingd` listens on a Unix socket; `vcodingctl daemon status` says where, and so does `daemon.json` in the state directory. Only
its own user may speak to it, and whoever can drives every guest.

It speaks JSON-RPC 2.0, one message a line, UTF-8, at most 4 MiB a line. Batches and notifications are as in the specification;
answers may come in any order; a connection whose sending half was closed still gets its answers. Parameters are one object, by
name: an unknown one is an error that names it. Fields of results that you do not know are to be ignored: there may be more
tomorrow. Errors are `{code, message, data: {kind, hint, details}}`; [errors.md](errors.md) lists the kinds.

One process may hold 128 connections, and all together 512; one more is answered with an error that has no id (`daemon-busy`) and
closed, unless one that never sent a line can give way. The first line of a connection has two minutes; after it a connection may
be silent for as long as it likes.

A call with `\"progress\": true` is told what happens meanwhile: notifications `{\"method\": \"progress\", \"params\": {\"id\": …,
\"progress\":` [`Progress`](#progress)`}}` with the call's id, before its answer. `run.subscribe` answers with a number, and then sends
notifications `{\"method\": \"run.event\", \"params\": {\"subscription\": …, \"result\":` [`RunItem`](#runitem)`}}`; `run.unsubscribe` with that number
ends them.

`exec.start` takes the command's standard input, output and errors as descriptors (SCM_RIGHTS, in this order) with the first byte of
its line; one that is missing is /dev/null. Its answer is the command's end, and closing the connection ends the command.

[`socat`](scripting.md) is a client, and so are a few lines of any language. Each example here is sent to a daemon by a test as it
stands, but for the project's path, a run's id and the consent's hash, which are yours.

This page is made from the source, which `rpc.discover` answers as an OpenRPC document: `DOCS=write cargo test -p protocol`.
";

fn page() -> String {
    let (entries, definitions) = methods::catalogue();
    let definitions = definitions.as_object().unwrap().clone();
    let mut page = HEAD.to_owned();
    let mut group = "";
    for entry in &entries {
        let of = entry.name.split('.').next().unwrap();
        if of != group {
            write!(page, "\n## {of}\n").unwrap();
            group = of;
        }
        write!(page, "\n### {}\n\n{}\n\n", entry.name, entry.about).unwrap();
        let params = resolved(&entry.params, &definitions);
        let table = fields(params);
        if table.is_empty() {
            page.push_str("It takes nothing.\n");
        } else {
            write!(page, "| parameter | type | |\n|---|---|---|\n{table}").unwrap();
        }
        let answer = match &entry.output {
            // A subscription's number, and the document itself.
            Value::Bool(_) => {
                if entry.name == "rpc.discover" { "an OpenRPC document" } else { "the subscription's number" }
                    .to_owned()
            }
            output => kind(output),
        };
        write!(page, "\nIt answers {answer}.\n\n```\n").unwrap();
        let example = examples::ALL.iter().find(|(method, _)| method.trim_start_matches('+') == entry.name);
        let (method, params) = example.unwrap_or_else(|| panic!("{} has no example", entry.name));
        write!(page, "{}\n```\n", examples::line(1, method, params)).unwrap();
    }
    page.push_str("\n## Types\n");
    for (name, schema) in &definitions {
        // Parameters stand at their methods.
        if name.ends_with("Params") {
            continue;
        }
        write!(page, "\n### {name}\n\n").unwrap();
        if let Some(about) = about(schema) {
            write!(page, "{about}\n\n").unwrap();
        }
        let table = fields(schema);
        if table.is_empty() {
            writeln!(page, "{}", alternatives(schema)).unwrap();
        } else {
            write!(page, "| field | type | |\n|---|---|---|\n{table}").unwrap();
        }
    }
    page
}

fn resolved<'a>(schema: &'a Value, definitions: &'a Map<String, Value>) -> &'a Value {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next());
    target.map_or(schema, |name| &definitions[name])
}

fn about(schema: &Value) -> Option<String> {
    let text = schema.get("description")?.as_str()?;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    // Links of rustdoc lead nowhere here.
    Some(text.replace("[`", "`").replace("`]", "`"))
}

fn fields(schema: &Value) -> String {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return String::new() };
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut table = String::new();
    for (name, field) in properties {
        let optional = if required.contains(&name.as_str()) { "" } else { ", optional" };
        writeln!(table, "| `{name}` | {}{optional} | {} |", kind(field), about(field).unwrap_or_default()).unwrap();
    }
    table
}

/// A type in a few words.
fn kind(schema: &Value) -> String {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let name = target.rsplit('/').next().unwrap();
        return format!("[`{name}`](#{})", name.to_lowercase());
    }
    if let Some(choices) = schema.get("anyOf").or(schema.get("oneOf")).and_then(Value::as_array) {
        let kinds: Vec<String> = choices.iter().filter(|c| c.get("type") != Some(&"null".into())).map(kind).collect();
        return kinds.join(" or ");
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(value) = schema.get("const") {
        return format!("`{value}`");
    }
    let types = match schema.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect(),
        _ => vec!["anything"],
    };
    let named = |one: &str| match one {
        "array" if schema.get("prefixItems").is_some() => "a pair of numbers".to_owned(),
        "array" => schema.get("items").map_or("list".to_owned(), |items| format!("list of {}", kind(items))),
        "object" => match (schema.get("properties").and_then(Value::as_object), schema.get("additionalProperties")) {
            (Some(fields), _) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, field)| format!("`{name}`: {}", kind(field))).collect();
                format!("{{{}}}", fields.join(", "))
            }
            (None, Some(values)) if values.is_object() => format!("object with {} by name", kind(values)),
            _ => "object".to_owned(),
        },
        other => other.to_owned(),
    };
    types.into_iter().map(named).collect::<Vec<_>>().join(" or ")
}

/// One line for each choice of a type that is no record.
fn alternatives(schema: &Value) -> String {
    let Some(choices) = schema.get("oneOf").or(schema.get("anyOf")).and_then(Value::as_array) else {
        return kind(schema);
    };
    let line = |choice: &Value| match about(choice) {
        Some(about) => format!("- {}: {about}", kind(choice)),
        None => format!("- {}", kind(choice)),
    };
    choices.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_page_describes_every_method_as_the_source_has_it() {
    crate::compare("protocol.md", &page());
}

#[test]
fn every_example_is_of_a_method_and_its_parameters_are_known() {
    let (entries, definitions) = methods::catalogue();
    for (method, params) in examples::ALL {
        let name = method.trim_start_matches('+');
        let entry = entries.iter().find(|entry| entry.name == name).unwrap_or_else(|| panic!("there is no {name}"));
        let schema = resolved(&entry.params, definitions.as_object().unwrap());
        let known = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        let params: Map<String, Value> = serde_json::from_str(params).unwrap();
        assert!(params.keys().all(|key| known.contains_key(key)), "{name}: {params:?}");
    }
}
