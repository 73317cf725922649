//! One forwarded connection: HTTP/1.1 from the guest, request by request to the provider.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;

use super::client::Client;
use super::gate::{Admission, Gate};
use super::meter::Meter;
use super::usage::Failure;
use super::{headers, judge};

/// A longer request body is refused.
pub(super) const MAX_BODY: usize = 32 << 20;
/// How long a request's body may take: it comes from within this machine.
const BODY: Duration = Duration::from_secs(120);
/// How long a connection may wait for a request's head.
const HEAD: Duration = Duration::from_secs(600);
/// How long a provider may pause within its answer.
const PAUSE: Duration = Duration::from_secs(600);
const MAX_HEADERS: usize = 128;
const BUFFER: usize = 64 << 10;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Serves one connection from the guest until either side ends it. Dropping the future ends the
/// connection and what it has under way.
pub async fn serve<S>(stream: S, gate: Gate, client: Client)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let service = service_fn(|request| {
        let (gate, client) = (&gate, &client);
        async move {
            let answer = relay(request, gate, client).await.unwrap_or_else(Refusal::response);
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(MAX_HEADERS)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        // A guest that hangs up in the middle is no event; what it said is nobody's business.
        tracing::debug!(%error, "a model connection ended early");
    }
}

async fn relay(request: Request<Incoming>, gate: &Gate, client: &Client) -> Result<Response<Body>, Refusal> {
    // Some agents ask whether anyone is there before they have a token.
    if request.method() != Method::POST {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "only requests to a model are answered here".into()));
    }
    let admission = gate.admitted(headers::credentials(request.headers())).ok_or_else(|| {
        Refusal::new(StatusCode::UNAUTHORIZED, "the token is not that of a live run of this workspace".into())
    })?;
    let outcome = tokio::select! {
        outcome = pass(request, gate, client, &admission) => outcome,
        () = admission.over.cancelled() => Err(over()),
    };
    match &outcome {
        Ok(answer) => tracing::debug!(run = %admission.run, status = answer.status().as_u16(), "model answered"),
        Err(refusal) => {
            if !refusal.failed {
                admission.counts.refuse();
            }
            tracing::debug!(run = %admission.run, status = refusal.status.as_u16(), "model request ended here");
        }
    }
    outcome
}

async fn pass(
    request: Request<Incoming>,
    gate: &Gate,
    client: &Client,
    admission: &Arc<Admission>,
) -> Result<Response<Body>, Refusal> {
    let endpoint = &admission.endpoint;
    let (path, query) = (request.uri().path(), request.uri().query());
    // An absolute address would name another host than ours; nothing that is no proxy's client sends one.
    if !endpoint.allows(path) || request.uri().authority().is_some() {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "this path does not ask a model".into()));
    }
    let policy = endpoint.wire().policy();
    if !policy.queries.iter().any(|allowed| allowed == query.unwrap_or_default()) {
        return Err(Refusal::forbidden("this query is not allowed here".into()));
    }
    let target = endpoint.target(path, query).ok_or_else(|| Refusal::forbidden("this path cannot be asked".into()))?;
    if request.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must not be encoded".into()));
    }
    let flight =
        gate.flight().ok_or_else(|| Refusal::busy("too many model requests of this workspace are under way".into()))?;

    let mut out = Request::new(Full::default());
    *out.method_mut() = Method::POST;
    *out.uri_mut() = target;
    let crossing = headers::outbound(request.headers(), policy);
    admission.dropped(crossing.dropped);
    *out.headers_mut() = crossing.headers;
    let (name, key) = endpoint.credential().ok_or_else(|| Refusal::forbidden("the key cannot be sent".into()))?;
    out.headers_mut().insert(name, key);

    let (body, held) = read(request.into_body(), gate).await?;
    match judge::refusal(&body, policy) {
        Ok(None) => {}
        Ok(Some(why)) => return Err(Refusal::forbidden(why)),
        Err(error) => return Err(Refusal::new(StatusCode::BAD_REQUEST, error.to_string())),
    }
    if !admission.spend() {
        let most = admission.max_requests().unwrap_or_default();
        return Err(Refusal::forbidden(format!("the run's budget of {most} model requests is used up")));
    }
    *out.body_mut() = Full::new(body);
    let answer = client.send(endpoint, out).await.map_err(|error| {
        admission.counts.failed(error.failure);
        Refusal::failed(format!("the model endpoint {} {}: {}", endpoint.name(), error.failure, error.why))
    })?;
    drop(held);
    admission.counts.answered(answer.status().as_u16());
    Ok(through(answer, Arc::clone(admission), flight))
}

/// The whole body, within the bounds; the leave to hold it goes with it.
async fn read(mut body: Incoming, gate: &Gate) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
    let too_large = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {MAX_BODY} bytes"));
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    let whole = async {
        let (mut whole, mut held) = (Vec::new(), None::<OwnedSemaphorePermit>);
        while let Some(frame) = body.frame().await {
            let broken = |_| Refusal::new(StatusCode::BAD_REQUEST, "the body broke off".into());
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            if whole.len() + data.len() > MAX_BODY {
                return Err(too_large());
            }
            let more = gate.room(data.len()).ok_or_else(|| Refusal::busy("too much is being sent at once".into()))?;
            match &mut held {
                Some(held) => held.merge(more),
                None => held = Some(more),
            }
            whole.extend_from_slice(&data);
        }
        Ok((Bytes::from(whole), held))
    };
    let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, format!("the body took longer than {} s", BODY.as_secs()));
    tokio::time::timeout(BODY, whole).await.map_err(late)?
}

/// The provider's answer on its way to the guest, frame by frame.
fn through(answer: Response<Incoming>, admission: Arc<Admission>, flight: OwnedSemaphorePermit) -> Response<Body> {
    let (head, body) = answer.into_parts();
    let is_events = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"));
    let meter = Meter::new(Arc::clone(&admission.counts), is_events);
    let passing = Passing { body, meter, admission, _flight: flight };
    let frames =
        stream::try_unfold(
            passing,
            |mut passing| async move { Ok(passing.next().await?.map(|frame| (frame, passing))) },
        );
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    *response.status_mut() = head.status;
    *response.headers_mut() = headers::inbound(&head.headers);
    response
}

struct Passing {
    body: Incoming,
    meter: Meter,
    admission: Arc<Admission>,
    _flight: OwnedSemaphorePermit,
}

impl Passing {
    /// The next frame; an error cuts the guest's connection, so that half an answer is not taken
    /// for a whole one.
    async fn next(&mut self) -> std::io::Result<Option<Frame<Bytes>>> {
        let frame = tokio::select! {
            frame = tokio::time::timeout(PAUSE, self.body.frame()) => frame,
            () = self.admission.over.cancelled() => return Err(std::io::Error::other("the run is over")),
        };
        let failure = match frame {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.meter.feed(data);
                }
                return Ok(Some(frame));
            }
            Ok(Some(Err(_))) => Failure::Broken,
            Err(_) => Failure::Silent,
        };
        self.admission.counts.failed(failure);
        Err(std::io::Error::other("the model endpoint broke off its answer"))
    }
}

fn over() -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "the run is over".into())
}

/// An answer of ours, in the form of the provider's errors.
struct Refusal {
    status: StatusCode,
    message: String,
    /// Whether asking again may help.
    again: bool,
    /// The endpoint failed; nothing was refused.
    failed: bool,
}

impl Refusal {
    fn new(status: StatusCode, message: String) -> Self {
        Self { status, message, again: false, failed: false }
    }

    fn forbidden(message: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    fn busy(message: String) -> Self {
        Self { again: true, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    fn failed(message: String) -> Self {
        Self { again: true, failed: true, ..Self::new(StatusCode::BAD_GATEWAY, message) }
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            400 | 408 | 415 => "invalid_request_error",
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            503 => "overloaded_error",
            _ => "api_error",
        }
    }

    fn response(self) -> Response<Body> {
        let body = serde_json::json!({"type": "error", "error": {"type": self.kind(), "message": self.message}});
        let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if !self.again {
            // The provider's own clients try many statuses again, for minutes; this ends it.
            response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}
