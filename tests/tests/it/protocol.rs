//! The examples of docs/protocol.md, sent as they stand.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use protocol::examples::{self, HASH, PROJECT, RUN};
use serde_json::Value;

use crate::world::World;

/// Sends calls over one connection and returns their results in order.
fn send(socket: &Path, lines: &[String]) -> Vec<Value> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    for line in lines {
        writeln!(stream, "{line}").unwrap();
    }
    let mut results = vec![None; lines.len()];
    let mut reader = BufReader::new(stream);
    while results.iter().any(Option::is_none) {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the connection ended before {lines:?} were answered");
        let message: Value = serde_json::from_str(&line).unwrap();
        let Some(id) = message["id"].as_u64() else { continue };
        assert!(message.get("error").is_none(), "{lines:?}: {line}");
        results[usize::try_from(id).unwrap() - 1] = Some(message["result"].clone());
    }
    results.into_iter().flatten().collect()
}

#[test]
fn every_example_of_the_protocols_page_is_answered() {
    let Some(world) = World::with_engine("the protocol's examples") else { return };
    let project = world.repository("shop", &[("Dockerfile", "FROM debian:bookworm-slim\n"), ("a.txt", "first\n")]);
    world.ok(&project, &["daemon", "start"]);
    let socket = world.state().join("run/vcodingd.sock");
    let (mut run, mut hash) = (String::new(), String::new());
    let mut at = 0;
    while at < examples::ALL.len() {
        let more = examples::ALL[at + 1..].iter().take_while(|(method, _)| method.starts_with('+')).count();
        let group = &examples::ALL[at..=at + more];
        let lines: Vec<String> = (1..)
            .zip(group)
            .map(|(id, (method, params))| {
                let line = examples::line(id, method, params);
                line.replace(PROJECT, &project.to_string_lossy()).replace(RUN, &run).replace(HASH, &hash)
            })
            .collect();
        let results = send(&socket, &lines);
        match group[0].0 {
            "consent.show" => hash = results[0]["hash"].as_str().unwrap().to_owned(),
            "run.start" => run = results[0]["id"].as_str().unwrap().to_owned(),
            "exec.start" if more > 0 => assert_eq!(results[0]["status"], 143, "it died of the signal"),
            "checkpoint.diff" => assert!(results[0]["patch"].as_str().unwrap().contains("+more"), "{}", results[0]),
            "run.cancel" => assert_eq!(results[0]["state"], "cancelled"),
            _ => {}
        }
        at += more + 1;
    }
    let home = crate::world::git(&project, &["show", "from-vcoding:a.txt"]);
    assert_eq!(home, "first\nmore\n");
}
