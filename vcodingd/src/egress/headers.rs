//! Which headers cross: to the provider only those that are known to be harmless, since a gateway before it may take others for
//! an address or for another credential.

use std::collections::BTreeSet;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::policy::Policy;

/// A name or a value is cut here when it is shown.
const SHOWN: usize = 60;

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

/// What carries a token of ours, and what our client says for itself.
const TAKEN: [HeaderName; 8] = [
    HeaderName::from_static("x-api-key"),
    header::AUTHORIZATION,
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::ACCEPT_ENCODING,
    header::EXPECT,
];

/// State of the provider's edge that is not the guest's.
const NOT_FOR_THE_GUEST: [HeaderName; 3] = [header::SET_COOKIE, header::ALT_SVC, header::STRICT_TRANSPORT_SECURITY];

/// The credentials that a request shows, each as the bare token.
pub(super) fn credentials(headers: &HeaderMap) -> Vec<&[u8]> {
    let keys = headers.get_all("x-api-key").iter().map(HeaderValue::as_bytes);
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
#[derive(Debug, Default)]
pub(super) struct Outbound {
    pub headers: HeaderMap,
    /// What stays here, by name, or by name and value where only the value does.
    pub dropped: Vec<String>,
}

/// Only what `policy` names crosses.
pub(super) fn outbound(headers: &HeaderMap, policy: &Policy) -> Outbound {
    let mut out = Outbound::default();
    let crossing = end_to_end(headers);
    for name in crossing.keys() {
        let values = crossing.get_all(name).iter();
        match policy.headers.values.get(name.as_str()) {
            Some(known) => out.insert_known(name, values, known),
            None if policy.headers.pass.contains(name.as_str()) => {
                for value in values {
                    out.headers.append(name, value.clone());
                }
            }
            None if TAKEN.contains(name) => {}
            None => out.dropped.push(shown(name.as_str())),
        }
    }
    // As it was judged.
    out.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Usage is read as the answer passes.
    out.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    out
}

impl Outbound {
    fn insert_known<'v>(
        &mut self,
        name: &HeaderName,
        values: impl Iterator<Item = &'v HeaderValue>,
        known: &BTreeSet<String>,
    ) {
        let mut kept = Vec::new();
        for value in values.flat_map(|value| value.as_bytes().split(|b| *b == b',')) {
            let value = String::from_utf8_lossy(value.trim_ascii());
            if known.contains(&*value) {
                kept.push(value);
            } else if !value.is_empty() {
                self.dropped.push(format!("{name}: {}", shown(&value)));
            }
        }
        if let Ok(value) = HeaderValue::try_from(kept.join(","))
            && !value.is_empty()
        {
            self.headers.insert(name, value);
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
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
            ("anthropic-beta", "effort-2025-11-24"),
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
        let Outbound { headers: out, mut dropped } = outbound(&came, Policy::anthropic());
        dropped.sort_unstable();
        assert_eq!(dropped, ["api-key", "cookie", "proxy-authorization", "x-goog-api-key"]);
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
        let out = outbound(&headers(&[("connection", "x-api-key, accept-encoding")]), Policy::anthropic());
        assert!(out.headers.contains_key("accept-encoding"));
    }

    #[test]
    fn what_a_gateway_may_take_for_an_address_stays_here() {
        let hostile = [
            ("x-portkey-custom-host", "https://a.example"),
            ("helicone-target-url", "https://a.example"),
            ("x-http-method-override", "GET"),
            ("x-original-url", "/v1/files"),
            ("x-rewrite-url", "/v1/files"),
            ("x-forwarded-host", "a.example"),
            ("forwarded", "host=a.example"),
            ("anthropic-workspace-id", "w"),
            ("x-stainless-anything", "x"),
        ];
        let out = outbound(&headers(&hostile), Policy::anthropic());
        assert_eq!(names(&out.headers), ["accept-encoding", "content-type"]);
        assert_eq!(out.dropped.len(), hostile.len(), "{:?}", out.dropped);
    }

    #[test]
    fn a_beta_that_is_not_known_is_left_out_and_the_others_go() {
        let out = |lines: &[(&'static str, &'static str)]| {
            let mut came = HeaderMap::new();
            for &(name, value) in lines {
                came.append(name, value.parse().unwrap());
            }
            let out = outbound(&came, Policy::anthropic());
            let sent = ["anthropic-beta", "anthropic-version"].map(|name| {
                let values: Vec<_> = out.headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect();
                values.join("|")
            });
            (sent.join(" "), out.dropped)
        };
        let (sent, dropped) = out(&[
            ("anthropic-beta", "claude-code-20250219, mcp-client-2025-11-20,,effort-2025-11-24"),
            ("anthropic-beta", "files-api-2025-04-14"),
            ("anthropic-version", "2023-06-01"),
        ]);
        assert_eq!(sent, "claude-code-20250219,effort-2025-11-24 2023-06-01");
        assert_eq!(dropped, ["anthropic-beta: mcp-client-2025-11-20", "anthropic-beta: files-api-2025-04-14"]);
        let (sent, dropped) = out(&[("anthropic-beta", "Claude-Code-20250219"), ("anthropic-version", "2030-01-01")]);
        assert_eq!((sent.trim(), dropped.len()), ("", 2), "{dropped:?}");
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
