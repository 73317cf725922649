//! The server over real sockets, with a client as small as can be.

mod client;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use client::{Client, Reply};
use model_server::{ModelServer, Script, Verdict};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);

fn script(faults: &Value) -> Script {
    let text = json!({
        "name": "t",
        "prompt": "please",
        "steps": [
            {"say": "I will look.", "call": {"tool": "Bash", "input": {"command": "ls"}}, "expect": {"contains": ["file.txt"], "is_error": false},
             "faults": faults},
            {"say": "Done."},
        ],
    });
    Script::parse(&text.to_string(), "/work").expect("a valid script")
}

fn ask(stream: bool, results: &[(&str, &str)]) -> Value {
    let mut messages = vec![json!({"role": "user", "content": [{"type": "text", "text": "please look"}]})];
    for (id, text) in results {
        messages.push(
            json!({"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "Bash", "input": {}}]}),
        );
        messages.push(json!({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": id, "content": [{"type": "text", "text": text}]},
            {"type": "text", "text": "<system-reminder>x</system-reminder>"},
        ]}));
    }
    json!({"model": "m", "max_tokens": 10, "stream": stream, "tools": [{"name": "Bash"}], "messages": messages})
}

fn events(reply: &Reply) -> Vec<Value> {
    reply
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).expect("every data line is JSON"))
        .collect()
}

/// The text of a streamed answer.
fn said(reply: &Reply) -> String {
    events(reply).iter().filter_map(|event| event["delta"]["text"].as_str()).collect()
}

#[test]
fn a_turn_goes_step_by_step_over_one_connection() {
    let server = ModelServer::start(script(&json!([]))).expect("starts");
    let mut client = Client::connect(server.addr());
    let first = client.post("/v1/messages?beta=true", &ask(true, &[]));
    assert_eq!((first.status, first.complete), (200, true));
    let events = events(&first);
    assert_eq!(events[0]["type"], "message_start");
    assert_eq!(events.last().expect("events")["type"], "message_stop");
    let call = events.iter().find(|e| e["content_block"]["type"] == "tool_use").expect("a call");
    assert_eq!(call["content_block"]["name"], "Bash");
    let id = call["content_block"]["id"].as_str().expect("an id");
    let input: String = events.iter().filter_map(|e| e["delta"]["partial_json"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&input).expect("JSON"), json!({"command": "ls"}));
    let last = client.post("/v1/messages", &ask(false, &[(id, "file.txt")]));
    let message: Value = serde_json::from_str(&last.body).expect("JSON");
    assert_eq!(message["stop_reason"], "end_turn");
    assert_eq!(message["content"][0]["text"], "Done.");
    assert!(server.finished());
    assert!(server.refusals().is_empty());
}

#[test]
fn an_answer_is_not_given_for_a_result_that_is_not_real() {
    let server = ModelServer::start(script(&json!([]))).expect("starts");
    let mut client = Client::connect(server.addr());
    let reply = client.post("/v1/messages", &ask(true, &[("toolu_t_0", "nothing here")]));
    assert_eq!(reply.status, 400);
    let error: Value = serde_json::from_str(&reply.body).expect("JSON");
    assert_eq!(error["error"]["type"], "invalid_request_error");
    assert!(error["error"]["message"].as_str().expect("text").contains("file.txt"), "{error}");
    let other = client.post("/v1/messages", &ask(true, &[("toolu_forged", "file.txt")]));
    assert_eq!(other.status, 400);
    assert_eq!(server.refusals().len(), 2);
    assert!(!server.finished());
}

#[test]
fn a_repeated_request_gets_the_same_answer_from_a_second_server_too() {
    let first = ModelServer::start(script(&json!([]))).expect("starts");
    let second = ModelServer::start(script(&json!([]))).expect("starts");
    let request = ask(true, &[("toolu_t_0", "file.txt")]);
    let replies = [&first, &first, &second].map(|server| Client::connect(server.addr()).post("/v1/messages", &request));
    assert_eq!(said(&replies[0]), "Done.");
    assert_eq!(replies[0].body, replies[1].body);
    assert_eq!(replies[0].body, replies[2].body);
}

#[test]
fn the_log_holds_what_a_proxy_put_into_the_headers() {
    let server = ModelServer::start(script(&json!([]))).expect("starts");
    Client::connect(server.addr()).post("/v1/messages", &ask(true, &[]));
    let seen = server.exchanges();
    assert_eq!(seen[0].header("X-API-Key"), Some("key-of-the-test"));
    assert_eq!(seen[0].header("authorization"), None);
    assert_eq!(seen[0].verdict, Verdict::Step(0));
    assert_eq!(seen[0].body["model"], "m");
}

#[test]
fn faults_come_on_cue_and_then_the_answer() {
    let faults = json!([
        {"kind": "status", "status": 401, "times": 1},
        {"kind": "status", "status": 429, "retry_after": 7, "times": 1},
        {"kind": "status", "status": 500, "times": 1},
        {"kind": "cut", "times": 2},
    ]);
    let server = ModelServer::start(script(&faults)).expect("starts");
    let kinds = [(401, "authentication_error"), (429, "rate_limit_error"), (500, "api_error")].map(|(status, kind)| {
        let reply = Client::connect(server.addr()).post("/v1/messages", &ask(true, &[]));
        assert_eq!(reply.status, status);
        assert!(reply.body.contains(kind), "{}", reply.body);
        reply.header("retry-after").map(str::to_owned)
    });
    assert_eq!(kinds, [None, Some("7".to_owned()), None]);
    let cut = Client::connect(server.addr()).post("/v1/messages", &ask(true, &[]));
    assert!(!cut.complete && cut.body.contains("message_start") && !cut.body.contains("message_stop"));
    let cut = Client::connect(server.addr()).post("/v1/messages", &ask(false, &[]));
    assert_eq!((cut.complete, cut.status), (false, 0));
    let whole = Client::connect(server.addr()).post("/v1/messages", &ask(true, &[]));
    assert!(whole.complete && whole.body.contains("message_stop"));
    let verdicts: Vec<Verdict> = server.exchanges().into_iter().map(|exchange| exchange.verdict).collect();
    assert_eq!(verdicts[..5], vec![Verdict::Fault(0); 5]);
    assert_eq!(verdicts[5], Verdict::Step(0));
}

#[test]
fn a_silent_stream_begins_and_stays_open_until_the_client_goes_or_the_server_stops() {
    let server = ModelServer::start(script(&json!([{"kind": "silent"}]))).expect("starts");
    let mut client = Client::connect(server.addr());
    client.send("/v1/messages", &ask(true, &[]));
    assert!(client.read_until("content_block_delta"), "the stream begins");
    assert!(!client.ended_within(Duration::from_millis(300)), "and then says nothing, but stays");
    // Stopping must not wait for the idle limit.
    let before = std::time::Instant::now();
    drop(server);
    assert!(client.ended_within(LIMIT));
    assert!(before.elapsed() < LIMIT);
}

#[test]
fn a_slow_stream_comes_whole_with_its_pauses_and_does_not_hold_up_the_end() {
    let server = ModelServer::start(script(&json!([{"kind": "slow", "pause_ms": 20, "times": 1}]))).expect("starts");
    let before = std::time::Instant::now();
    let reply = Client::connect(server.addr()).post("/v1/messages", &ask(true, &[]));
    assert!(reply.complete && said(&reply) == "I will look.");
    assert!(before.elapsed() >= Duration::from_millis(20 * events(&reply).len() as u64), "{:?}", before.elapsed());
    assert_eq!(server.exchanges()[0].verdict, Verdict::Step(0));

    let endless = ModelServer::start(script(&json!([{"kind": "slow", "pause_ms": 600_000}]))).expect("starts");
    let mut client = Client::connect(endless.addr());
    client.send("/v1/messages", &ask(true, &[]));
    assert!(client.read_until("transfer-encoding"), "the stream begins");
    assert!(!client.ended_within(Duration::from_millis(300)), "and waits");
    let before = std::time::Instant::now();
    drop(endless);
    assert!(client.ended_within(LIMIT));
    assert!(before.elapsed() < Duration::from_secs(4), "{:?}", before.elapsed());
}

#[test]
fn only_the_key_of_the_script_is_taken_where_it_names_one() {
    let with_key = |key: &str| Script { key: Some(key.into()), ..script(&json!([])) };
    let server = ModelServer::start(with_key("another")).expect("starts");
    let reply = Client::connect(server.addr()).post("/v1/messages", &ask(true, &[]));
    assert!(reply.status == 401 && reply.body.contains("authentication_error"), "{}", reply.body);
    assert_eq!(server.refusals().len(), 1);
    let server = ModelServer::start(with_key("key-of-the-test")).expect("starts");
    assert_eq!(Client::connect(server.addr()).post("/v1/messages", &ask(true, &[])).status, 200);
}

#[test]
fn requests_beside_the_conversation_do_not_move_it() {
    let server = ModelServer::start(script(&json!([]))).expect("starts");
    let mut client = Client::connect(server.addr());
    assert_eq!(client.request("HEAD", "/", &[], b"").status, 200);
    assert!(client.request("GET", "/v1/models", &[], b"").body.contains("scripted"));
    assert_eq!(client.request("GET", "/elsewhere", &[], b"").status, 404);
    let mut title = ask(false, &[]);
    title["tools"] = json!([]);
    assert!(client.post("/v1/messages", &title).body.contains("\"ok\""));
    let step = client.post("/v1/messages", &ask(true, &[]));
    assert_eq!(said(&step), "I will look.");
    let verdicts: Vec<Verdict> = server.exchanges().into_iter().map(|exchange| exchange.verdict).collect();
    assert_eq!(verdicts[3..], [Verdict::Side, Verdict::Step(0)]);
}

#[test]
fn a_request_without_the_protocols_version_or_without_json_is_refused() {
    let server = ModelServer::start(script(&json!([]))).expect("starts");
    let mut client = Client::connect(server.addr());
    let body = ask(true, &[]).to_string();
    assert_eq!(client.request("POST", "/v1/messages", &[], body.as_bytes()).status, 400);
    let version = [("anthropic-version", "2023-06-01")];
    assert_eq!(client.request("POST", "/v1/messages", &version, b"{").status, 400);
    assert_eq!(server.refusals().len(), 2);
}

#[test]
fn the_program_prints_its_address_and_writes_its_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log.jsonl");
    let mut child = Command::new(env!("CARGO_BIN_EXE_model-server"))
        .args(["--script", "fix-failing-test", "--work", "/there", "--key", "key-of-the-test", "--log"])
        .arg(&log)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut url = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    out.read_line(&mut url).expect("one line");
    let addr = url.trim().strip_prefix("http://").expect("a URL").parse().expect("an address");
    let mut request = ask(true, &[]);
    request["messages"][0]["content"] = json!("make the failing test pass");
    let reply = Client::connect(addr).post("/v1/messages", &request);
    assert!(events(&reply).iter().any(|e| e["content_block"]["name"] == "Bash"), "{}", reply.body);
    let written = std::fs::read_to_string(&log).expect("the log is there before the answer is");
    let line: Value = serde_json::from_str(written.lines().next().expect("a line")).expect("JSON");
    assert_eq!(line["verdict"], json!({"step": 0}));
    child.kill().expect("ends");
    child.wait().expect("ended");
}
