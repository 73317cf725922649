//! The way to the provider.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::Endpoint;
use super::usage::Failure;

const CONNECT: Duration = Duration::from_secs(10);
/// How long a provider may think before its answer begins.
const HEAD: Duration = Duration::from_secs(600);
/// How long a connection without a request is kept: shorter than any provider keeps it.
const IDLE: Duration = Duration::from_secs(30);
const MAX_IDLE: usize = 4;
/// More is not told of an error's causes.
const TOLD: usize = 300;

type Plain = legacy::Client<HttpConnector, Full<Bytes>>;
type Tls = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Connections to providers, shared by all gates. Which certificates are trusted is this
/// machine's word (its store, or SSL_CERT_FILE and SSL_CERT_DIR), so that a company's own
/// authority works.
#[derive(Debug, Clone)]
pub struct Client {
    plain: Plain,
    tls: Result<Tls, String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct NoAnswer {
    pub failure: Failure,
    pub why: String,
}

impl Client {
    /// Reads the machine's certificates: some milliseconds, once per daemon. Without any, only
    /// endpoints on this machine can be asked, and the others say so.
    pub fn new() -> Self {
        let tls = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map(|builder| pool().build(builder.https_only().enable_http1().wrap_connector(connector())))
            .map_err(|error| format!("this machine's certificate authorities cannot be read: {error}"));
        Self { plain: pool().build(connector()), tls }
    }

    /// Sends one request, once: who asked decides whether to ask again. (A pooled connection that
    /// the provider closed before a byte of the request went out is replaced; nothing was asked.)
    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let answer = if endpoint.is_tls() {
            match &self.tls {
                Ok(tls) => tls.request(request),
                Err(why) => return Err(NoAnswer { failure: Failure::Unreachable, why: why.clone() }),
            }
        } else {
            self.plain.request(request)
        };
        match tokio::time::timeout(HEAD, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let failure = if error.is_connect() { Failure::Unreachable } else { Failure::Broken };
                Err(NoAnswer { failure, why: causes(&error) })
            }
            Err(_) => {
                let why = format!("no answer in {} s", HEAD.as_secs());
                Err(NoAnswer { failure: Failure::Silent, why })
            }
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector
}

fn pool() -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(MAX_IDLE);
    builder
}

/// The causes, innermost last: the first is only "client error".
fn causes(error: &legacy::Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    if text.is_empty() {
        text = error.to_string();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TOLD).collect()
}
