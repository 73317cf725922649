//! Where the model is, and the key for it.

use std::net::IpAddr;
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Uri};

use super::policy::Policy;
use crate::secrets::Secret;

/// A connection takes no longer.
const REACH: Duration = Duration::from_secs(10);

/// What a provider speaks: how it is asked, and how it says that something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// The Messages API, version 2023-06-01.
    Anthropic,
}

impl Wire {
    /// The header that carries the key, and the key as its value.
    fn credential(self, key: &Secret) -> Option<(HeaderName, HeaderValue)> {
        let Self::Anthropic = self;
        let mut value = HeaderValue::from_bytes(key.expose()).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_static("x-api-key"), value))
    }

    /// What it may be asked.
    pub(super) fn policy(self) -> &'static Policy {
        match self {
            Self::Anthropic => Policy::anthropic(),
        }
    }
}

/// A model endpoint with the user's key for it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    base: Uri,
    key: Secret,
    wire: Wire,
    paths: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    #[error("{base:?} is not an endpoint's address: {why}")]
    Address { base: String, why: &'static str },
    /// Such a key cannot be sent; most often it was pasted with something else.
    #[error("the key has characters that no key has")]
    Key,
}

impl Endpoint {
    /// `base` is what an agent calls its base URL; a path in it is put before the wire's paths.
    /// `http` is for servers on this machine alone: a key does not cross a network in the clear.
    /// `paths` are the manifest's inference paths; none means the wire's own.
    ///
    /// # Errors
    /// [`InvalidEndpoint`].
    pub fn new(base: &str, key: Secret, wire: Wire, paths: &[String]) -> Result<Self, InvalidEndpoint> {
        let wrong = |why| InvalidEndpoint::Address { base: without_userinfo(base), why };
        let uri: Uri = base.trim_end_matches('/').parse().map_err(|_| wrong("it is not a URL"))?;
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it has a user name in it; the key comes from the secrets"));
        }
        if uri.query().is_some() || base.contains('#') {
            return Err(wrong("it has a query"));
        }
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => {}
            Some(scheme) if *scheme == Scheme::HTTP && is_this_machine(authority.host()) => {}
            Some(scheme) if *scheme == Scheme::HTTP => {
                return Err(wrong("http is for this machine alone (127.0.0.1); use https"));
            }
            _ => return Err(wrong("it begins neither with https:// nor with http://")),
        }
        wire.credential(&key).filter(|(_, value)| !value.is_empty()).ok_or(InvalidEndpoint::Key)?;
        let paths = match paths {
            [] => wire.policy().paths.clone(),
            given => given.to_vec(),
        };
        Ok(Self { base: uri, key, wire, paths })
    }

    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// Its address for people: without path.
    pub fn name(&self) -> String {
        let scheme = self.base.scheme_str().unwrap_or("https");
        format!("{scheme}://{}", self.base.authority().map_or("", |authority| authority.as_str()))
    }

    /// Whether somebody listens there. An agent would ask for minutes before it says that nobody does.
    ///
    /// # Errors
    /// What the connection met.
    pub async fn reach(&self) -> std::io::Result<()> {
        let host = self.base.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let default = if self.base.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
        let connecting = tokio::net::TcpStream::connect((host, self.base.port_u16().unwrap_or(default)));
        let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        tokio::time::timeout(REACH, connecting).await.map_err(late)?.map(drop)
    }

    /// Whether `path` is one that asks a model.
    pub(super) fn allows(&self, path: &str) -> bool {
        self.paths.iter().any(|allowed| allowed == path)
    }

    /// Where a request for an allowed path goes.
    pub(super) fn target(&self, path: &str, query: Option<&str>) -> Option<Uri> {
        let query = query.filter(|query| !query.is_empty()).map(|query| format!("?{query}")).unwrap_or_default();
        let before = self.base.path().trim_end_matches('/');
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(format!("{before}{path}{query}")).ok()?);
        Uri::from_parts(parts).ok()
    }

    pub(super) fn is_tls(&self) -> bool {
        self.base.scheme() == Some(&Scheme::HTTPS)
    }

    pub(super) fn credential(&self) -> Option<(HeaderName, HeaderValue)> {
        self.wire.credential(&self.key)
    }
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An address that is refused for the password in it is not shown with it.
fn without_userinfo(base: &str) -> String {
    let shown: String = base.chars().take(200).collect();
    match shown.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(base: &str) -> Result<Endpoint, InvalidEndpoint> {
        Endpoint::new(base, Secret::new("key"), Wire::Anthropic, &[])
    }

    #[test]
    fn a_base_url_takes_the_wires_paths_behind_its_own() {
        let target =
            |base: &str| endpoint(base).unwrap().target("/v1/messages", Some("beta=true")).unwrap().to_string();
        assert_eq!(target("https://api.example.com"), "https://api.example.com/v1/messages?beta=true");
        assert_eq!(
            target("https://gate.example.com:8443/anthropic/"),
            "https://gate.example.com:8443/anthropic/v1/messages?beta=true"
        );
        assert_eq!(endpoint("https://a.example/x").unwrap().name(), "https://a.example");
    }

    #[test]
    fn a_key_goes_in_the_clear_to_this_machine_alone() {
        for base in ["http://127.0.0.1:1", "http://127.9.9.9:1", "http://[::1]:1", "http://localhost:1/x"] {
            assert!(endpoint(base).is_ok(), "{base}");
        }
        for base in [
            "http://example.com",
            "http://10.0.0.1",
            "http://127.0.0.1.example.com",
            "http://[::2]",
            "http://0x7f000001",
        ] {
            assert!(matches!(endpoint(base), Err(InvalidEndpoint::Address { .. })), "{base}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_passwords_are_not_repeated() {
        for base in [
            "",
            "api.example.com",
            "/v1",
            "ftp://a.example",
            "https://a.example?x=1",
            "https://a.example#x",
            "https://",
        ] {
            assert!(matches!(endpoint(base), Err(InvalidEndpoint::Address { .. })), "{base}");
        }
        let error = endpoint("https://me:hush@a.example").unwrap_err().to_string();
        assert!(error.contains("a.example") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_seen_at_once_and_none_is_shown() {
        for key in ["", "a\nb", "a\0"] {
            let refused = Endpoint::new("https://a.example", Secret::new(key), Wire::Anthropic, &[]).unwrap_err();
            assert_eq!(refused, InvalidEndpoint::Key, "{key:?}");
        }
        let endpoint = Endpoint::new("https://a.example", Secret::new("hush"), Wire::Anthropic, &[]).unwrap();
        assert!(!format!("{endpoint:?} {:?}", endpoint.credential()).contains("hush"));
    }

    #[test]
    fn only_the_exact_paths_are_allowed() {
        let endpoint = endpoint("https://a.example").unwrap();
        assert!(endpoint.allows("/v1/messages") && endpoint.allows("/v1/messages/count_tokens"));
        for path in [
            "/",
            "/v1/messages/",
            "/v1//messages",
            "/v1/Messages",
            "/v1/messages/batches",
            "/v1/files",
            "/v1/x/../messages",
            "/v1/%6dessages",
        ] {
            assert!(!endpoint.allows(path), "{path}");
        }
    }
}
