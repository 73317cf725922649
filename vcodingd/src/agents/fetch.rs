//! One tarball from the registry into a file, its hash taken on the way.

use std::fs::File;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, LOCATION, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use protocol::error::chain;
use sha2::{Digest as _, Sha512};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::Error;
use super::manifest::Integrity;

const MAX_BYTES: u64 = 1 << 30;
const MAX_REDIRECTS: usize = 3;
/// Until the registry answers.
const ANSWER: Duration = Duration::from_secs(60);
/// Between two pieces of the body.
const SILENCE: Duration = Duration::from_secs(60);
/// For all of it.
const WHOLE: Duration = Duration::from_secs(60 * 60);
/// Progress is told once per so many bytes.
const STEP: u64 = 1 << 20;

/// Where a registry keeps a version of a package.
pub(super) fn tarball(registry: &str, package: &str, version: &str) -> Result<Uri, Error> {
    let last = package.rsplit('/').next().unwrap_or(package);
    let url = format!("{}/{package}/-/{last}-{version}.tgz", registry.trim_end_matches('/'));
    let wrong = |why: String| Error::Registry { url: url.clone(), why };
    let uri: Uri = url.parse().map_err(|e: http::uri::InvalidUri| wrong(e.to_string()))?;
    match uri.scheme_str() {
        // Without TLS others see what is fetched, but cannot change it: the hash is pinned.
        Some("https" | "http") if uri.host().is_some() => Ok(uri),
        _ => Err(wrong("a registry's address begins with https://".into())),
    }
}

/// Fetches `url` into `file`. An error leaves the file in any state.
pub(super) async fn fetch(
    url: Uri,
    file: File,
    expected: Integrity,
    progress: &mut (impl FnMut(u64, u64) + Send),
) -> Result<(), Error> {
    let shown = url.to_string();
    let wrong = |why: String| Error::Registry { url: shown.clone(), why };
    let found = timeout(WHOLE, async {
        let answer = open(url).await.map_err(&wrong)?;
        save(answer, file, progress).await.map_err(|e| match e {
            Broken::Registry(why) => wrong(why),
            Broken::Disk(e) => Error::Write(e),
        })
    })
    .await
    .map_err(|_| wrong(format!("it was not here after {} minutes", WHOLE.as_secs() / 60)))??;
    if found == expected {
        return Ok(());
    }
    Err(Error::Tampered { url: shown, expected: Box::new(expected), found: Box::new(found) })
}

enum Broken {
    Registry(String),
    Disk(std::io::Error),
}

async fn save(
    mut answer: Response<Incoming>,
    file: File,
    progress: &mut (impl FnMut(u64, u64) + Send),
) -> Result<Integrity, Broken> {
    let length = answer.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let too_large = || Broken::Registry(format!("it is larger than {} MiB", MAX_BYTES >> 20));
    if length.is_some_and(|length| length > MAX_BYTES) {
        return Err(too_large());
    }
    let total = length.unwrap_or(0);
    let mut file = tokio::fs::File::from_std(file);
    let mut hash = Sha512::new();
    let (mut done, mut told) = (0, 0);
    progress(0, total);
    loop {
        let frame = timeout(SILENCE, answer.body_mut().frame())
            .await
            .map_err(|_| Broken::Registry(format!("nothing came for {} seconds", SILENCE.as_secs())))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| Broken::Registry(chain(&e)))?;
        let Ok(data) = frame.into_data() else { continue };
        done += data.len() as u64;
        if done > MAX_BYTES {
            return Err(too_large());
        }
        hash.update(&data);
        file.write_all(&data).await.map_err(Broken::Disk)?;
        if done - told >= STEP {
            told = done;
            progress(done, total);
        }
    }
    file.flush().await.map_err(Broken::Disk)?;
    progress(done, total);
    Ok(Integrity(hash.finalize().into()))
}

/// Asks, and follows a few redirections, none of which may leave TLS.
async fn open(mut url: Uri) -> Result<Response<Incoming>, String> {
    let client = client()?;
    for _ in 0..=MAX_REDIRECTS {
        let request = Request::get(&url)
            .header(USER_AGENT, concat!("vcoding/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/octet-stream, */*;q=0.1")
            .body(Empty::<Bytes>::new())
            .map_err(|e| e.to_string())?;
        let answer = timeout(ANSWER, client.request(request))
            .await
            .map_err(|_| format!("no answer in {} seconds", ANSWER.as_secs()))?
            .map_err(|e| chain(&e))?;
        match answer.status() {
            StatusCode::OK => return Ok(answer),
            status if status.is_redirection() => {
                let to: Uri = answer
                    .headers()
                    .get(LOCATION)
                    .and_then(|to| to.to_str().ok()?.parse().ok())
                    .ok_or_else(|| format!("it answered {status} and not where to go"))?;
                if to.scheme_str() != Some("https") {
                    return Err(format!("it leads to {to}, which is not https"));
                }
                url = to;
            }
            status => return Err(format!("it answered {status}")),
        }
    }
    Err(format!("it leads on and on, more than {MAX_REDIRECTS} times"))
}

/// A client that trusts what this system trusts (its certificate bundle, or the one that `SSL_CERT_FILE` names).
fn client() -> Result<Client<HttpsConnector<HttpConnector>, Empty<Bytes>>, String> {
    let connector = HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(|e| format!("this system's certificates cannot be read: {e}"))?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scoped_package_lies_where_registries_keep_it() {
        let url = tarball("https://r.example/npm/", "@scope/pkg", "1.2.3").unwrap();
        assert_eq!(url, "https://r.example/npm/@scope/pkg/-/pkg-1.2.3.tgz");
        for bad in ["ftp://r.example", "r.example", "", "/x"] {
            assert!(tarball(bad, "pkg", "1").is_err(), "{bad}");
        }
    }
}
