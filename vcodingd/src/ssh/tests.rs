//! Connections and their pool against an SSH server in this process.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use guest::{Frame, places};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::testing::{Engineless, TestGuest};
use super::*;
use crate::seldom::heard::Heard;

async fn status(session: &mut Session, frame: &Frame) -> Option<u8> {
    let (reader, writer) = session.halves();
    writer.send(frame.encode().unwrap()).await.unwrap();
    loop {
        if let Message::Status(status) = reader.next().await? {
            return Some(status);
        }
    }
}

#[tokio::test]
async fn a_guest_is_reached_by_its_socket_and_kept_warm() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    assert_eq!(pool.carrier(), "socket");
    guest.seen.until(|seen| seen.connections.load(Ordering::SeqCst) == 3).await;
    let mut session = pool.session(None).await.unwrap();
    assert_eq!(status(&mut session, &Frame::exec(["exit", "7"])).await, Some(7));
    session.finish().await;
    pool.close().await;
    guest.seen.until(|seen| seen.connections.load(Ordering::SeqCst) == 0).await;
    assert!(matches!(pool.session(None).await, Err(Error::Closed)));
}

#[tokio::test]
async fn dropping_the_last_handle_ends_every_connection() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    guest.seen.until(|seen| seen.connections.load(Ordering::SeqCst) == 3).await;
    drop(pool);
    guest.seen.until(|seen| seen.connections.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn whoever_has_another_host_key_is_not_talked_to() {
    let guest = TestGuest::start();
    // Logs in with the right key, but expects another guest.
    let mut target = guest.target();
    target.keys = Arc::new(Keys::generate().unwrap());
    let refused = Pool::open(Arc::new(Engineless::default()), target).await;
    assert!(matches!(refused, Err(Error::WrongPeer { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_socket_that_is_not_the_guests_leaves_the_engines_stream() {
    let guest = TestGuest::start();
    let real = guest.dir.path().join("elsewhere");
    std::fs::rename(guest.dir.path().join(places::CARRIER), &real).unwrap();
    std::os::unix::fs::symlink(&real, guest.dir.path().join(places::CARRIER)).unwrap();
    let none = Pool::open(Arc::new(Engineless::default()), guest.target()).await;
    assert!(matches!(none, Err(Error::WrongPeer { .. })), "{none:?}");
    let pool = Pool::open(Arc::new(Engineless { stream: Some(real) }), guest.target()).await.unwrap();
    assert_eq!(pool.carrier(), "stream");
    let mut session = pool.session(None).await.unwrap();
    assert_eq!(status(&mut session, &Frame::exec(["true"])).await, Some(0));
}

#[tokio::test]
async fn commands_are_alone_while_there_are_idle_connections_and_share_only_then() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    guest.seen.until(|seen| seen.connections.load(Ordering::SeqCst) == 3).await;
    while pool.counts().len() < 3 {
        tokio::task::yield_now().await;
    }
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(pool.session(None).await.unwrap());
    }
    assert!(sessions.iter().all(Session::is_alone));
    let stalled = sessions[0].company().stalled();
    for _ in 0..40 {
        sessions.push(pool.session(None).await.unwrap());
    }
    assert!(sessions[0].is_alone(), "no new command comes to a stalled connection");
    drop(stalled);
    for session in sessions {
        session.finish().await;
    }
    while pool.counts().iter().sum::<usize>() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(pool.counts().len() <= 6, "{:?}", pool.counts());
}

#[tokio::test]
async fn after_every_connection_was_killed_the_next_command_works() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    guest.seen.until(|seen| seen.connections.load(Ordering::SeqCst) == 3).await;
    guest.kill_all();
    let mut session = pool.session(None).await.unwrap();
    let first = status(&mut session, &Frame::exec(["true"])).await;
    drop(session);
    // The first may have been on a connection that was just about to go; it says so.
    if first.is_none() {
        let mut session = pool.session(None).await.unwrap();
        assert_eq!(status(&mut session, &Frame::exec(["true"])).await, Some(0));
    }
}

#[tokio::test]
async fn idle_connections_are_armed_and_a_command_costs_no_session() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    guest.seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 3).await;
    for n in 0..20 {
        let mut session = pool.session(None).await.unwrap();
        assert_eq!(status(&mut session, &Frame::exec(["exit", "7"])).await, Some(7), "{n}");
        session.finish().await;
        // Armed again behind it.
        guest.seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 3).await;
    }
    // A terminal has to be asked for before the shell starts: it leaves the armed session alone.
    let pty = Pty { term: "xterm".into(), columns: 80, rows: 24 };
    let mut session = pool.session(Some(&pty)).await.unwrap();
    assert_eq!(pool.armed(), 3);
    assert_eq!(session.halves().0.next().await, Some(Message::Output(vec![guest::frame::READY].into())));
    // So does what must not lean on one.
    let mut session = pool.session_afresh().await.unwrap();
    assert_eq!(pool.armed(), 3);
    assert_eq!(status(&mut session, &Frame::exec(["true"])).await, Some(0));
}

#[tokio::test]
async fn an_armed_session_whose_shell_was_killed_is_not_used() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    guest.seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 3).await;
    while pool.armed() < 3 {
        tokio::task::yield_now().await;
    }
    guest.kill_waiting().await;
    pool.round_trips().await;
    for _ in 0..3 {
        let mut session = pool.session(None).await.unwrap();
        assert_eq!(status(&mut session, &Frame::exec(["true"])).await, Some(0));
    }
}

#[tokio::test]
async fn a_forward_brings_connections_and_nothing_else_comes_in() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    assert!(matches!(pool.forward(1).await.map(drop), Err(Error::NotForwarded { port: 1, .. })));
    let mut forward = pool.forward(7002).await.unwrap();
    let theirs = guest.connect().await.unwrap();
    let mut ours = forward.accept().await.unwrap();
    let mut theirs = theirs.into_stream();
    theirs.write_all(b"hello").await.unwrap();
    let mut five = [0; 5];
    ours.read_exact(&mut five).await.unwrap();
    ours.write_all(b"world").await.unwrap();
    assert_eq!(&five, b"hello");
    theirs.read_exact(&mut five).await.unwrap();
    assert_eq!(&five, b"world");
    pool.close().await;
    assert!(forward.accept().await.is_none() && !forward.is_open());
}

#[tokio::test]
async fn a_guest_that_opens_channels_for_ever_is_cut_off_and_it_is_said_once() {
    let heard = Heard::on_this_thread();
    for round in 0..2 {
        let guest = TestGuest::start();
        let pool = guest.pool().await;
        guest.seen.until(|seen| seen.connections.load(Ordering::SeqCst) == 3).await;
        let refused = guest.open_channels(1000).await;
        assert!(refused.len() == 3 && refused.iter().all(|count| *count <= 16), "{refused:?}");
        // It is no connection's end for the others of the guest: the next command works.
        let mut session = pool.session(None).await.unwrap();
        assert_eq!(status(&mut session, &Frame::exec(["true"])).await, Some(0));
        session.finish().await;
        pool.close().await;
        // In the first round a test on another thread may meet the same lines, with nobody who listens.
        let lines = heard.take_anew();
        let said = |what: &str| lines.lines().filter(|line| line.contains(what)).count();
        if round == 1 {
            assert_eq!((said("tried to open a channel"), said("no sshd of ours")), (1, 1), "{lines}");
        }
    }
}
