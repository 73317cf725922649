//! The proxy as a whole, between an agent of ours and a provider of ours.

use std::sync::Arc;
use std::time::Duration;

use protocol::RunId;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Client, Endpoint, Failure, Gate, Token, Usage, Wire, serve};
use crate::secrets::Secret;
use crate::seldom::heard::Heard;

const KEY: &str = "sk-the-users-own";
const PROMPT: &str = "rewrite the parser of lisp machines";
const RUN: &str = "01jd0000000000000000000000";
const LONG: Duration = Duration::from_secs(20);

/// Answers connection after connection with `answer`, and tells what it was asked.
struct Provider {
    url: String,
    asked: mpsc::UnboundedReceiver<String>,
    task: JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    /// `answer` gets the connection once a request was read.
    async fn start<F, A>(answer: A) -> Self
    where
        A: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, asked) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_message(&mut stream).await;
                let _nobody_listens = tell.send(request);
                answer(stream).await;
            }
        });
        Self { url, asked, task }
    }

    async fn says(answer: &str) -> Self {
        let answer = answer.to_owned();
        Self::start(move |mut stream| {
            let answer = answer.clone();
            async move { stream.write_all(answer.as_bytes()).await.unwrap() }
        })
        .await
    }

    async fn asked(&mut self) -> String {
        within(self.asked.recv()).await.unwrap()
    }

    fn was_not_asked(&mut self) -> bool {
        self.asked.try_recv().is_err()
    }
}

/// A head and as much body as its content-length says, in lower case where it is the head.
async fn read_message(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut message = Vec::new();
    while !message.ends_with(b"\r\n\r\n") {
        message.push(within(stream.read_u8()).await.unwrap());
    }
    let mut text = String::from_utf8(message).unwrap().to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    within(stream.read_exact(&mut body)).await.unwrap();
    text.push_str(&String::from_utf8(body).unwrap());
    text
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it happens in time")
}

struct World {
    gate: Gate,
    run: RunId,
    token: Token,
    client: Client,
}

impl World {
    fn new(url: &str, max_requests: Option<u64>) -> Self {
        let gate = Gate::new();
        let run: RunId = RUN.parse().unwrap();
        let endpoint = Endpoint::new(url, Secret::new(KEY), Wire::Anthropic, &[]).unwrap();
        let token = gate.admit(&run, endpoint, max_requests).unwrap();
        Self { gate, run, token, client: Client::new() }
    }

    fn connect(&self) -> DuplexStream {
        let (agent, daemon) = tokio::io::duplex(16 << 10);
        tokio::spawn(serve(daemon, self.gate.clone(), self.client.clone()));
        agent
    }

    /// One request on a connection of its own, and the whole answer.
    async fn ask(&self, request: &str) -> String {
        let mut agent = self.connect();
        within(agent.write_all(request.as_bytes())).await.unwrap();
        let mut answer = String::new();
        within(agent.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    fn usage(&self) -> Usage {
        self.gate.usage(&self.run).unwrap()
    }

    fn post(&self, body: &str) -> String {
        post("/v1/messages?beta=true", self.token.expose(), body)
    }
}

fn post(path: &str, token: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: close\r\nx-api-key: {token}\r\n\
         Cookie: a=b\r\nanthropic-version: 2023-06-01\r\nAnthropic-Beta: tomorrow-2030-01-01,effort-2025-11-24\r\nX-Portkey-Custom-Host: https://a.example\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn hello() -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{PROMPT}"}}]}}"#)
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nSet-Cookie: x=y\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Status and message of an error in the provider's form.
fn error(answer: &str) -> (u16, String, String) {
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["type"], "error");
    let text = |field: &str| body["error"][field].as_str().unwrap().to_owned();
    (status, text("type"), text("message"))
}

#[tokio::test]
async fn the_key_goes_in_and_the_token_stays() {
    let mut provider = Provider::says(&ok(r#"{"usage":{"input_tokens":3,"output_tokens":4}}"#)).await;
    let world = World::new(&format!("{}/gateway/", provider.url), None);
    let answer = world.ask(&world.post(&hello())).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\"output_tokens\":4}}"), "{answer}");
    assert!(!answer.to_lowercase().contains("set-cookie"));
    let asked = provider.asked().await;
    assert!(asked.starts_with("post /gateway/v1/messages?beta=true http/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("\r\nx-api-key: {KEY}\r\n")), "{asked}");
    assert!(asked.contains(&format!("\r\nhost: {}\r\n", provider.url.strip_prefix("http://").unwrap())), "{asked}");
    assert!(
        asked.contains("\r\nanthropic-version: 2023-06-01\r\n")
            && asked.contains("\r\nanthropic-beta: effort-2025-11-24\r\n")
    );
    assert!(!asked.contains("portkey") && !asked.contains("tomorrow"), "{asked}");
    assert!(!asked.contains(world.token.expose()) && !asked.contains("cookie") && !asked.contains("8080"), "{asked}");
    assert!(asked.ends_with(&hello()));
    let expected = Usage { requests: 1, input_tokens: 3, output_tokens: 4, last_status: Some(200), ..Usage::default() };
    assert_eq!(world.usage(), expected);
}

#[tokio::test]
async fn a_bearer_token_is_as_good_and_two_requests_share_a_connection() {
    let mut provider = Provider::says(&ok("{}")).await;
    let world = World::new(&provider.url, None);
    let mut agent = world.connect();
    for _ in 0..2 {
        let request = post("/v1/messages", "", &hello())
            .replace("x-api-key: ", &format!("Authorization: Bearer {}", world.token.expose()))
            .replace("Connection: close\r\n", "");
        within(agent.write_all(request.as_bytes())).await.unwrap();
        assert!(read_message(&mut agent).await.starts_with("http/1.1 200"));
        let asked = provider.asked().await;
        assert!(asked.contains(KEY) && !asked.contains("authorization"), "{asked}");
    }
    assert_eq!(world.usage().requests, 2);
}

#[tokio::test]
async fn a_stream_flows_piece_by_piece() {
    let (go, gone) = mpsc::channel::<()>(1);
    let gone = Arc::new(tokio::sync::Mutex::new(gone));
    let provider = Provider::start(move |mut stream| {
        let gone = Arc::clone(&gone);
        async move {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            let first = "data: {\"message\":{\"usage\":{\"input_tokens\":9}}}\n\n";
            let first = format!("{head}{:x}\r\n{first}\r\n", first.len());
            stream.write_all(first.as_bytes()).await.unwrap();
            gone.lock().await.recv().await.unwrap();
            let second = "data: {\"usage\":{\"output_tokens\":2}}\n\n";
            let second = format!("{:x}\r\n{second}\r\n0\r\n\r\n", second.len());
            stream.write_all(second.as_bytes()).await.unwrap();
        }
    })
    .await;
    let world = World::new(&provider.url, None);
    let mut agent = world.connect();
    within(agent.write_all(world.post(&hello()).as_bytes())).await.unwrap();
    let mut answer = String::new();
    while !answer.contains("\"input_tokens\":9") {
        answer.push(within(agent.read_u8()).await.unwrap() as char);
    }
    assert_eq!(world.usage().input_tokens, 9, "counted while it flows");
    go.send(()).await.unwrap();
    within(agent.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains("\"output_tokens\":2") && answer.ends_with("0\r\n\r\n"), "{answer}");
    assert_eq!(world.usage().output_tokens, 2);
}

#[tokio::test]
async fn without_a_live_runs_token_nobody_is_asked() {
    let mut provider = Provider::says(&ok("{}")).await;
    let world = World::new(&provider.url, None);
    let other = World::new(&provider.url, None);
    let foreign = world.post(&hello()).replace("Cookie:", "Authorization: Bearer sk-mine\r\nCookie:");
    let none = post("/v1/messages", "", &hello()).replace("x-api-key: \r\n", "");
    for request in [post("/v1/messages", "sk-mine", &hello()), other.post(&hello()), foreign, none] {
        let (status, kind, _) = error(&world.ask(&request).await);
        assert_eq!((status, kind.as_str()), (401, "authentication_error"), "{request}");
    }
    let request = world.post(&hello());
    world.gate.revoke(&world.run);
    assert_eq!(error(&world.ask(&request).await).0, 401);
    assert!(provider.was_not_asked());
}

#[tokio::test]
async fn only_what_asks_a_model_passes() {
    let mut provider = Provider::says(&ok("{}")).await;
    let world = World::new(&provider.url, None);
    let authority = provider.url.replace("127.0.0.1", "127.0.0.2");
    for (path, expected) in [
        ("/", 404),
        ("/v1/files", 404),
        ("/v1/messages/batches", 404),
        ("/v1/messages/../files", 404),
        ("//v1/messages", 404),
        (&format!("{authority}/v1/messages"), 404),
        ("/v1/messages?beta=true&x=1", 403),
        ("/v1/messages?x", 403),
    ] {
        let answer = world.ask(&post(path, world.token.expose(), &hello())).await;
        assert_eq!(error(&answer).0, expected, "{path}");
        assert!(answer.contains("x-should-retry: false"), "{answer}");
    }
    for method in ["GET", "PUT", "DELETE", "CONNECT"] {
        let request = world.post(&hello()).replacen("POST", method, 1);
        let status: u16 = world.ask(&request).await.split(' ').nth(1).unwrap().parse().unwrap();
        assert!((400..500).contains(&status), "{method} {status}");
    }
    assert!(world.ask("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.starts_with("HTTP/1.1 404"));
    assert!(provider.was_not_asked());
    assert_eq!(world.usage().requests, 0);
}

#[tokio::test]
async fn a_request_that_makes_the_provider_an_exit_is_refused_and_says_why() {
    let mut provider = Provider::says(&ok("{}")).await;
    let world = World::new(&provider.url, None);
    let body = r#"{"messages":[],"tools":[{"type":"web_fetch_20250910","name":"web_fetch"}]}"#;
    let (status, kind, message) = error(&world.ask(&world.post(body)).await);
    assert_eq!((status, kind.as_str()), (403, "permission_error"));
    assert!(message.contains("web_fetch_20250910") && message.contains("wall"), "{message}");
    let (status, _, message) = error(&world.ask(&world.post(&hello()[1..])).await);
    assert!(status == 400 && !message.contains(PROMPT), "{message}");
    let encoded = world.post(&hello()).replace("Cookie: a=b", "Content-Encoding: gzip");
    assert_eq!(error(&world.ask(&encoded).await).0, 415);
    assert!(provider.was_not_asked());
    assert_eq!(world.usage(), Usage { refused: 3, ..Usage::default() });
}

#[tokio::test]
async fn a_used_up_budget_ends_the_asking_at_once() {
    let mut provider = Provider::says(&ok("{}")).await;
    let world = World::new(&provider.url, Some(1));
    assert!(world.ask(&world.post(&hello())).await.starts_with("HTTP/1.1 200"));
    assert!(!world.usage().budget_exceeded);
    let answer = world.ask(&world.post(&hello())).await;
    let (status, _, message) = error(&answer);
    assert!(status == 403 && message.contains("budget of 1"), "{message}");
    assert!(answer.contains("x-should-retry: false"), "{answer}");
    provider.asked().await;
    assert!(provider.was_not_asked());
    assert!(world.usage().budget_exceeded);
    assert_eq!(world.usage().requests, 1);
}

#[tokio::test]
async fn a_body_has_a_bound() {
    let mut provider = Provider::says(&ok("{}")).await;
    let world = World::new(&provider.url, None);
    let length = super::proxy::MAX_BODY + 1;
    let announced = world.post("").replace("Content-Length: 0", &format!("Content-Length: {length}"));
    assert_eq!(error(&world.ask(&announced).await).0, 413);
    let mut agent = world.connect();
    let chunked = world.post("").replace("Content-Length: 0", "Transfer-Encoding: chunked");
    within(agent.write_all(chunked.as_bytes())).await.unwrap();
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    // It may stop reading before all is written.
    let _stopped = within(async {
        for _ in 0..33 {
            agent.write_all(chunk.as_bytes()).await?;
        }
        std::io::Result::Ok(())
    })
    .await;
    let mut answer = vec![0; 12];
    within(agent.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    assert!(provider.was_not_asked());
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_named_without_the_key() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let world = World::new(&format!("http://{free}"), None);
    let answer = world.ask(&world.post(&hello())).await;
    let (status, kind, message) = error(&answer);
    assert_eq!((status, kind.as_str()), (502, "api_error"));
    assert!(message.contains(&free.to_string()) && message.contains("refused") && !message.contains(KEY), "{message}");
    assert!(!answer.contains("x-should-retry"), "{answer}");
    assert_eq!(world.usage(), Usage { requests: 1, failure: Some(Failure::Unreachable), ..Usage::default() });
}

#[tokio::test]
async fn the_providers_refusal_passes_and_is_remembered_and_nothing_is_asked_twice() {
    for status in [401, 429, 529] {
        let body = r#"{"type":"error","error":{"type":"x","message":"no"}}"#;
        let answer = ok(body).replace("200 OK", &format!("{status} No\r\nretry-after: 7"));
        let mut provider = Provider::says(&answer).await;
        let world = World::new(&provider.url, None);
        let answer = world.ask(&world.post(&hello())).await;
        assert_eq!(error(&answer), (status, "x".into(), "no".into()));
        assert!(answer.contains("retry-after: 7"), "{answer}");
        provider.asked().await;
        assert!(provider.was_not_asked());
        let failure = Some(Failure::Status(status));
        assert_eq!(world.usage(), Usage { requests: 1, last_status: Some(status), failure, ..Usage::default() });
    }
}

#[tokio::test]
async fn a_provider_that_hangs_up_is_asked_once() {
    let mut provider = Provider::start(|stream| async move { drop(stream) }).await;
    let world = World::new(&provider.url, None);
    assert_eq!(error(&world.ask(&world.post(&hello())).await).0, 502);
    provider.asked().await;
    assert!(provider.was_not_asked());
    assert_eq!(world.usage().failure, Some(Failure::Broken));
}

const HALF: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf\n\r\n";

#[tokio::test]
async fn half_an_answer_is_not_taken_for_a_whole_one() {
    let provider = Provider::says(HALF).await;
    let world = World::new(&provider.url, None);
    let answer = world.ask(&world.post(&hello())).await;
    assert!(answer.contains("half") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    assert_eq!(world.usage().failure, Some(Failure::Broken));
}

/// A provider that sends half an answer and tells when its connection ends.
async fn half(ended: mpsc::UnboundedSender<()>) -> Provider {
    Provider::start(move |mut stream| {
        let ended = ended.clone();
        async move {
            stream.write_all(HALF.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            let _reset_or_end = stream.read_to_end(&mut rest).await;
            ended.send(()).unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn the_end_of_a_run_ends_what_it_has_under_way() {
    let (ended, mut end) = mpsc::unbounded_channel();
    let provider = half(ended).await;
    let world = World::new(&provider.url, None);
    let mut agent = world.connect();
    within(agent.write_all(world.post(&hello()).as_bytes())).await.unwrap();
    let mut answer = String::new();
    while !answer.contains("half") {
        answer.push(within(agent.read_u8()).await.unwrap() as char);
    }
    assert_eq!(world.gate.revoke(&world.run).unwrap().requests, 1);
    within(agent.read_to_string(&mut answer)).await.unwrap();
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    within(end.recv()).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_goes_takes_its_request_with_it() {
    for waits_for_the_head in [true, false] {
        let (ended, mut end) = mpsc::unbounded_channel();
        let mut provider = if waits_for_the_head {
            Provider::start(move |mut stream| {
                let ended = ended.clone();
                async move {
                    let _end = stream.read_u8().await;
                    ended.send(()).unwrap();
                }
            })
            .await
        } else {
            half(ended).await
        };
        let world = World::new(&provider.url, None);
        let mut agent = world.connect();
        within(agent.write_all(world.post(&hello()).as_bytes())).await.unwrap();
        provider.asked().await;
        drop(agent);
        within(end.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn no_log_of_any_level_has_key_token_or_prompt() {
    // The test's runtime has one thread, so this holds for all that it starts.
    let heard = Heard::on_this_thread();
    let provider = Provider::says(&ok(r#"{"content":"an answer of note"}"#)).await;
    // Once, so that all of the events were met.
    World::new(&provider.url, None).ask(&post("/v1/messages", "sk-foreign", &hello())).await;
    World::new(&provider.url, None).ask("nonsense\r\n\r\n").await;
    let first = World::new(&provider.url, None);
    first.ask(&first.post(&hello())).await;
    heard.take_anew();
    let world = World::new(&provider.url, Some(1));
    assert!(world.ask(&world.post(&hello())).await.contains("of note"));
    world.ask(&world.post(&hello())).await;
    world.ask("nonsense with a secret\r\n\r\n").await;
    let refused = post("/v1/messages", "sk-foreign", &hello());
    world.ask(&refused).await;
    let log = heard.take_anew();
    assert!(log.contains("model answered") && log.contains(RUN), "{log}");
    let said =
        log.lines().filter(|line| line.contains("x-portkey-custom-host") && line.contains("tomorrow-2030-01-01"));
    assert_eq!(said.count(), 1, "once in a run, whatever the number of its requests: {log}");
    for secret in [KEY, world.token.expose(), PROMPT, "sk-foreign", "of note", "with a secret"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}
