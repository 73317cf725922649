//! The store against a registry on loopback that answers as it is told.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest as _, Sha512};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;
use crate::agents::{Arch, Integrity, Libc};

const PLATFORM: Platform = Platform { arch: Arch::X64, libc: Libc::Gnu };
const PROGRAM: &str = "claude/2.1.329-linux-x64-gnu/claude";

struct Registry {
    url: String,
    asked: Arc<AtomicUsize>,
    /// Lets an answer that waits go on.
    go: Arc<Notify>,
    _tasks: JoinSet<()>,
}

/// How each request is answered; `wait` holds the second half of the body back.
async fn registry(head: String, body: Vec<u8>, wait: bool) -> Registry {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut tasks = JoinSet::new();
    let (count, held) = (Arc::clone(&asked), Arc::clone(&go));
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            let expected = "GET /@anthropic-ai/claude-code-linux-x64/-/claude-code-linux-x64-2.1.329.tgz HTTP/1.1\r\n";
            assert!(request.starts_with(expected), "{request}");
            count.fetch_add(1, Ordering::SeqCst);
            let half = body.len() / 2;
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body[..half]).await;
            if wait {
                held.notified().await;
            }
            let _ = stream.write_all(&body[half..]).await;
        }
    });
    Registry { url, asked, go, _tasks: tasks }
}

fn tarball() -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (path, content) in [("package/claude", &b"#!/bin/false\n"[..]), ("package/lib/x.js", &[7; 100_000])] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, path, content).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

fn manifest(tarball: &[u8]) -> Manifest {
    let mut manifest = crate::agents::find(None, "claude").unwrap();
    manifest.packages.get_mut(&PLATFORM).unwrap().integrity = Integrity(Sha512::digest(tarball).into());
    manifest
}

fn ok(body: &[u8]) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_program_is_fetched_once_and_then_needs_no_network() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("agents")).unwrap();
    let body = tarball();
    let registry = registry(ok(&body), body.clone(), false).await;
    let mut told = Vec::new();
    let installed =
        store.ensure(&registry.url, &manifest(&body), PLATFORM, |done, total| told.push((done, total))).await.unwrap();
    assert_eq!(installed.program, format!("/opt/vcoding/agents/{PROGRAM}"));
    assert_eq!(installed.host, dir.path().join("agents").join(PROGRAM));
    assert!(installed.fetched);
    assert_eq!(told.last(), Some(&(body.len() as u64, body.len() as u64)));
    for (path, mode) in [("", 0o755), ("claude", 0o755), (PROGRAM, 0o555), ("claude/2.1.329-linux-x64-gnu", 0o755)] {
        let found = std::fs::metadata(dir.path().join("agents").join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{path}");
    }
    assert_eq!(names(&dir.path().join("agents")), ["claude"], "nothing is left aside");
    let again = Store::open(&dir.path().join("agents")).unwrap();
    let found = again.ensure("http://127.0.0.1:1", &manifest(&body), PLATFORM, |_, _| {}).await.unwrap();
    assert_eq!(found, Installed { fetched: false, ..installed });
    assert_eq!(registry.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn two_at_once_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let body = tarball();
    let registry = registry(ok(&body), body.clone(), true).await;
    let manifest = manifest(&body);
    let first = store.ensure(&registry.url, &manifest, PLATFORM, |done, _| {
        // Half of it is here, so the second caller below has had its chance to ask too.
        if done == 0 {
            registry.go.notify_one();
        }
    });
    let second = store.ensure(&registry.url, &manifest, PLATFORM, |_, _| {});
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.unwrap().fetched, second.unwrap().fetched), (true, false));
    assert_eq!(registry.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_is_not_what_was_pinned_is_not_installed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let body = tarball();
    let mut other = body.clone();
    *other.last_mut().unwrap() ^= 1;
    let registry = registry(ok(&other), other.clone(), false).await;
    let error = store.ensure(&registry.url, &manifest(&body), PLATFORM, |_, _| {}).await.unwrap_err();
    let Error::Tampered { expected, found, .. } = error else { panic!("{error}") };
    assert_eq!(
        (*expected, *found),
        (manifest(&body).packages[&PLATFORM].integrity, Integrity(Sha512::digest(&other).into()))
    );
    assert!(!dir.path().join("claude").exists());
}

#[tokio::test]
async fn a_registry_that_fails_is_an_error_that_says_how() {
    let body = tarball();
    let short = ok(&[0; 999_999]);
    for (head, says) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "404"),
        ("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/x\r\ncontent-length: 0\r\n\r\n", "not https"),
        ("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", "not where to go"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "larger than"),
        (short.as_str(), "end of file before message length"),
        ("no http\r\n\r\n", "invalid HTTP"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let registry = registry(head.into(), body.clone(), false).await;
        let error = store.ensure(&registry.url, &manifest(&body), PLATFORM, |_, _| {}).await.unwrap_err();
        assert!(matches!(error, Error::Registry { .. }) && error.to_string().contains(says), "{head}: {error}");
    }
}

#[tokio::test]
async fn what_a_caller_that_gave_up_or_a_killed_daemon_left_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let body = tarball();
    let slow = registry(ok(&body), body.clone(), true).await;
    let (half, mut began) = tokio::sync::mpsc::channel(1);
    let manifest = manifest(&body);
    let given_up = store.ensure(&slow.url, &manifest, PLATFORM, |_, _| {
        let _ = half.try_send(());
    });
    tokio::select! {
        _ = given_up => panic!("the second half never came"),
        _ = began.recv() => {}
    }
    assert_eq!(names(dir.path()), [".new"]);
    let fast = registry(ok(&body), body.clone(), false).await;
    store.ensure(&fast.url, &manifest, PLATFORM, |_, _| {}).await.unwrap();

    std::fs::create_dir_all(dir.path().join(".new/tree/deep")).unwrap();
    std::fs::File::create(dir.path().join(".new/package.tgz")).unwrap().write_all(b"half").unwrap();
    Store::open(dir.path()).unwrap();
    assert_eq!(names(dir.path()), ["claude"]);
}

#[tokio::test]
async fn a_platform_without_a_package_is_refused_without_asking() {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = manifest(b"");
    manifest.packages.clear();
    let store = Store::open(dir.path()).unwrap();
    let error = store.ensure("http://127.0.0.1:1", &manifest, PLATFORM, |_, _| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no Claude Code 2.1.329 on linux-x64-gnu");
}
