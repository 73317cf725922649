//! HTTP/1.1 as far as agents and proxies speak it to a model endpoint: requests with a body, answers in one piece or in chunks.

use std::io::{self, BufRead, Read, Write};

/// Request line and headers together.
const HEAD: usize = 64 << 10;
const HEADERS: usize = 128;
/// A conversation with pictures in it stays far below.
pub const BODY: usize = 32 << 20;

/// One request, its body read to the end.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// In order, names as sent.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the client lets the connection stay.
    pub keep: bool,
}

/// Why no request could be read.
#[derive(Debug)]
pub enum Refused {
    /// The connection ended or failed: nothing to answer.
    Gone,
    /// Answer this status, then close.
    Status(u16, &'static str),
}

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// The value of a header, its name in any case.
pub fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Reads one request; `Ok(None)` is a connection that ended between requests.
pub fn read(stream: &mut impl BufRead, answers: &mut impl Write) -> Result<Option<Request>, Refused> {
    let mut left = HEAD;
    let Some(first) = line(stream, &mut left)? else {
        return Ok(None);
    };
    let mut words = first.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refused::Status(400, "not a request line"));
    };
    let newer = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return Err(Refused::Status(505, "HTTP/1.1 is spoken here")),
    };
    let mut headers = Vec::new();
    loop {
        let text = line(stream, &mut left)?.ok_or(Refused::Gone)?;
        if text.is_empty() {
            break;
        }
        let (name, value) = text.split_once(':').ok_or(Refused::Status(400, "not a header"))?;
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err(Refused::Status(400, "not a header name"));
        }
        if headers.len() == HEADERS {
            return Err(Refused::Status(431, "too many headers"));
        }
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let connection = header(&headers, "connection").unwrap_or_default().to_ascii_lowercase();
    let keep = if newer { !connection.contains("close") } else { connection.contains("keep-alive") };
    let (method, target) = (method.to_owned(), target.to_owned());
    if header(&headers, "expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        answers.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let body = body(stream, &headers)?;
    Ok(Some(Request { method, target, headers, body, keep }))
}

fn body(stream: &mut impl BufRead, headers: &[(String, String)]) -> Result<Vec<u8>, Refused> {
    let lengths: Vec<&str> = headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map(|(_, value)| value.as_str())
        .collect();
    match (header(headers, "transfer-encoding"), lengths.as_slice()) {
        (None, []) => Ok(Vec::new()),
        (None, [length]) => {
            let length: usize = length.parse().map_err(|_| Refused::Status(400, "not a length"))?;
            exactly(stream, length, BODY)
        }
        (Some(coding), []) if coding.eq_ignore_ascii_case("chunked") => chunks(stream),
        // Two ways to find the end of a body are one too many.
        _ => Err(Refused::Status(400, "the length of the body is ambiguous")),
    }
}

fn chunks(stream: &mut impl BufRead) -> Result<Vec<u8>, Refused> {
    let mut body = Vec::new();
    loop {
        let mut left = HEAD;
        let size = line(stream, &mut left)?.ok_or(Refused::Gone)?;
        let digits = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(|_| Refused::Status(400, "not a chunk size"))?;
        if size == 0 {
            while !line(stream, &mut left)?.ok_or(Refused::Gone)?.is_empty() {}
            return Ok(body);
        }
        body.extend(exactly(stream, size, BODY - body.len())?);
        if !line(stream, &mut left)?.ok_or(Refused::Gone)?.is_empty() {
            return Err(Refused::Status(400, "a chunk is longer than it said"));
        }
    }
}

fn exactly(stream: &mut impl BufRead, length: usize, room: usize) -> Result<Vec<u8>, Refused> {
    if length > room {
        return Err(Refused::Status(413, "the body is too large"));
    }
    let mut body = Vec::new();
    stream.by_ref().take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(Refused::Gone);
    }
    Ok(body)
}

/// One line without its end; `None` where the stream ended before it began.
fn line(stream: &mut impl BufRead, left: &mut usize) -> Result<Option<String>, Refused> {
    let mut bytes = Vec::new();
    let read = stream.by_ref().take(*left as u64).read_until(b'\n', &mut bytes)?;
    if read == 0 && *left > 0 {
        return Ok(None);
    }
    *left -= read;
    if bytes.pop() != Some(b'\n') {
        return Err(if *left == 0 { Refused::Status(431, "the head is too long") } else { Refused::Gone });
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map(Some).map_err(|_| Refused::Status(400, "the head is not text"))
}

/// A whole answer with a length; `bare` leaves the body out, as HEAD wants it.
pub fn whole(out: &mut impl Write, status: u16, headers: &[(&str, &str)], body: &[u8], bare: bool) -> io::Result<()> {
    let mut bytes = head(status, headers);
    write!(bytes, "content-length: {}\r\n\r\n", body.len())?;
    if !bare {
        bytes.extend_from_slice(body);
    }
    out.write_all(&bytes)?;
    out.flush()
}

/// The head of an answer whose body follows in chunks.
pub fn begin(out: &mut impl Write, status: u16, headers: &[(&str, &str)]) -> io::Result<()> {
    let mut bytes = head(status, headers);
    bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
    out.write_all(&bytes)?;
    out.flush()
}

/// One chunk; an empty one ends the body.
pub fn chunk(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
    framed.extend_from_slice(bytes);
    framed.extend_from_slice(b"\r\n");
    out.write_all(&framed)?;
    out.flush()
}

fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        505 => "HTTP Version Not Supported",
        529 => "Overloaded",
        _ => "Error",
    };
    let mut text = format!("HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Option<Request>, Refused> {
        read(&mut io::BufReader::new(bytes), &mut io::sink())
    }

    fn status(bytes: &[u8]) -> u16 {
        match parse(bytes) {
            Err(Refused::Status(status, _)) => status,
            other => panic!("expected a refusal: {other:?}"),
        }
    }

    #[test]
    fn bodies_come_by_length_or_in_chunks() {
        let request = parse(b"POST /v1/messages?beta=true HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}rest")
            .expect("valid")
            .expect("there");
        assert_eq!((request.target.as_str(), request.body.as_slice()), ("/v1/messages?beta=true", &b"{}"[..]));
        let request =
            parse(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\na: b\r\n\r\n")
                .expect("valid")
                .expect("there");
        assert_eq!(request.body, b"abcde");
    }

    #[test]
    fn a_body_whose_end_is_ambiguous_is_refused() {
        assert_eq!(status(b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"), 400);
        assert_eq!(status(b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"), 400);
    }

    #[test]
    fn nothing_is_read_without_a_bound() {
        let mut long = b"GET / HTTP/1.1\r\na: ".to_vec();
        long.resize(HEAD + 10, b'x');
        assert_eq!(status(&long), 431);
        let mut many = b"GET / HTTP/1.1\r\n".to_vec();
        for _ in 0..=HEADERS {
            many.extend_from_slice(b"a: b\r\n");
        }
        many.extend_from_slice(b"\r\n");
        assert_eq!(status(&many), 431);
        assert_eq!(status(format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n", BODY + 1).as_bytes()), 413);
        assert_eq!(
            status(format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", BODY + 1).as_bytes()),
            413
        );
    }

    #[test]
    fn a_connection_that_ends_between_requests_is_no_error_and_in_a_request_it_is() {
        assert!(parse(b"").expect("an end").is_none());
        assert!(matches!(parse(b"GET / HT"), Err(Refused::Gone)));
        assert!(matches!(parse(b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nabc"), Err(Refused::Gone)));
    }
}
