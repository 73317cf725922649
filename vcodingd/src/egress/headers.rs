//! Which headers cross.

use http::header::{self, HeaderMap, HeaderName};

/// Concern one connection only (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whatever a provider may take for a credential: ours is the only one that goes out.
const CREDENTIALS: [&str; 8] = [
    "x-api-key",
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-goog-api-key",
    "api-key",
    "x-auth-token",
    "x-amz-security-token",
];

/// What our client says for itself, and what would change how body or answer are written.
const OURS: [HeaderName; 6] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::CONTENT_ENCODING,
    header::ACCEPT_ENCODING,
    header::FORWARDED,
];

/// State of the provider's edge that is not the guest's.
const NOT_FOR_THE_GUEST: [HeaderName; 3] = [header::SET_COOKIE, header::ALT_SVC, header::STRICT_TRANSPORT_SECURITY];

/// The credentials that a request shows, each as the bare token.
pub(super) fn credentials(headers: &HeaderMap) -> Vec<&[u8]> {
    let keys = headers.get_all("x-api-key").iter().map(http::HeaderValue::as_bytes);
    let bearers = headers.get_all(header::AUTHORIZATION).iter().map(|value| {
        let value = value.as_bytes();
        match value.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii(),
            _ => value,
        }
    });
    keys.chain(bearers).collect()
}

/// The guest's headers as they go on to the provider, without the key.
pub(super) fn outbound(headers: &HeaderMap) -> HeaderMap {
    let mut out = end_to_end(headers);
    for name in CREDENTIALS {
        out.remove(name);
    }
    for name in OURS {
        out.remove(name);
    }
    // Usage is read as the answer passes.
    out.insert(header::ACCEPT_ENCODING, http::HeaderValue::from_static("identity"));
    out
}

/// The provider's headers as they go on to the guest.
pub(super) fn inbound(headers: &HeaderMap) -> HeaderMap {
    let mut out = end_to_end(headers);
    for name in NOT_FOR_THE_GUEST {
        out.remove(name);
    }
    out
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut out = headers.clone();
    for named in headers.get_all(header::CONNECTION) {
        for name in named.to_str().unwrap_or_default().split(',') {
            out.remove(name.trim());
        }
    }
    for name in HOP_BY_HOP {
        out.remove(name);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|&(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_an_agent_says_of_itself_crosses_and_no_credential_does() {
        let came = headers(&[
            ("host", "127.0.0.1:8080"),
            ("x-api-key", "t"),
            ("authorization", "Bearer t"),
            ("proxy-authorization", "Basic x"),
            ("cookie", "a=b"),
            ("x-goog-api-key", "k"),
            ("api-key", "k"),
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", "a,b"),
            ("x-stainless-lang", "js"),
            ("user-agent", "claude"),
            ("content-type", "application/json"),
            ("content-length", "7"),
            ("accept-encoding", "gzip"),
            ("connection", "keep-alive, X-Secret-Hop"),
            ("x-secret-hop", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "trailers"),
        ]);
        let out = outbound(&came);
        let expected = [
            "accept-encoding",
            "anthropic-beta",
            "anthropic-version",
            "content-type",
            "user-agent",
            "x-stainless-lang",
        ];
        assert_eq!(names(&out), expected);
        assert_eq!(out[header::ACCEPT_ENCODING], "identity");
    }

    #[test]
    fn a_connection_header_cannot_take_away_what_we_put_in() {
        // Ours is put in after this, so that naming it here takes nothing away.
        assert!(outbound(&headers(&[("connection", "x-api-key, accept-encoding")])).contains_key("accept-encoding"));
    }

    #[test]
    fn the_providers_cookies_stay_here() {
        let came = headers(&[
            ("set-cookie", "a=b"),
            ("alt-svc", "h3"),
            ("connection", "close"),
            ("content-type", "text/event-stream"),
            ("retry-after", "3"),
            ("request-id", "r"),
        ]);
        assert_eq!(names(&inbound(&came)), ["content-type", "request-id", "retry-after"]);
    }

    #[test]
    fn credentials_are_read_from_both_headers() {
        let shown = |lines: &[(&'static str, &'static str)]| {
            credentials(&headers(lines)).into_iter().map(|c| String::from_utf8(c.to_vec()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(shown(&[("x-api-key", "a"), ("authorization", "bEARER  b")]), ["a", "b"]);
        assert_eq!(shown(&[("authorization", "Basic b")]), ["Basic b"]);
        assert_eq!(shown(&[("authorization", "b")]), ["b"]);
        assert!(shown(&[]).is_empty());
    }
}
