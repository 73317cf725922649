//! A client that shows what came over the wire, whole or cut.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

#[derive(Debug, Default)]
pub struct Reply {
    /// 0 where the connection ended before any.
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Whether the body came to its end.
    pub complete: bool,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

pub struct Client {
    input: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
        Self { input: BufReader::new(stream) }
    }

    pub fn post(&mut self, target: &str, body: &Value) -> Reply {
        self.send(target, body);
        self.reply(false)
    }

    pub fn send(&mut self, target: &str, body: &Value) {
        let headers = [
            ("x-api-key", "key-of-the-test"),
            ("anthropic-version", "2023-06-01"),
            ("content-type", "application/json"),
        ];
        self.write("POST", target, &headers, body.to_string().as_bytes());
    }

    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.write(method, target, headers, body);
        self.reply(method == "HEAD")
    }

    fn write(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut bytes =
            format!("{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", body.len()).into_bytes();
        for (name, value) in headers {
            write!(bytes, "{name}: {value}\r\n").expect("memory");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        self.input.get_mut().write_all(&bytes).expect("sent");
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.input.read_line(&mut line).expect("read in time");
        line.ends_with('\n').then(|| line.trim_end().to_owned())
    }

    fn reply(&mut self, bare: bool) -> Reply {
        let mut reply = Reply::default();
        let Some(first) = self.line() else {
            return reply;
        };
        reply.status = first.split(' ').nth(1).expect("a status").parse().expect("a number");
        while let Some(line) = self.line().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").expect("a header");
            reply.headers.push((name.to_owned(), value.to_owned()));
        }
        if bare {
            reply.complete = true;
        } else if let Some(length) = reply.header("content-length") {
            let mut body = vec![0; length.parse().expect("a length")];
            self.input.read_exact(&mut body).expect("the body");
            reply.body = String::from_utf8(body).expect("text");
            reply.complete = true;
        } else {
            while let Some(size) = self.line() {
                let size = usize::from_str_radix(&size, 16).expect("a chunk size");
                let mut chunk = vec![0; size + 2];
                self.input.read_exact(&mut chunk).expect("a chunk");
                if size == 0 {
                    reply.complete = true;
                    break;
                }
                reply.body.push_str(std::str::from_utf8(&chunk[..size]).expect("text"));
            }
        }
        reply
    }

    pub fn read_until(&mut self, text: &str) -> bool {
        while let Some(line) = self.line() {
            if line.contains(text) {
                return true;
            }
        }
        false
    }

    /// Reads what still comes; whether the connection ended in that time.
    pub fn ended_within(&mut self, limit: Duration) -> bool {
        self.input.get_ref().set_read_timeout(Some(limit)).expect("a deadline");
        match self.input.read_to_end(&mut Vec::new()) {
            Ok(_) => true,
            Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}
