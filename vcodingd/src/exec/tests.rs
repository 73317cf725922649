//! Commands on descriptors, against an SSH server in this process.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use guest::Frame;
use protocol::exec::{Signal, Terminal};

use super::*;
use crate::ssh::testing::{TestGuest, pattern};

/// Its ends are in no process that another test starts meanwhile: an input would never end.
fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
}

fn request(argv: &[&str]) -> Request {
    Request { frame: Frame::exec(argv.iter().copied()), terminal: None, timeout: None }
}

fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

fn unheard() -> mpsc::Receiver<Control> {
    mpsc::channel(1).1
}

/// Reads to the end, on a thread of its own.
async fn all_of(fd: OwnedFd) -> Vec<u8> {
    tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        File::from(fd).read_to_end(&mut bytes).unwrap();
        bytes
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn status_output_and_errors_are_the_commands() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    let (out, out_end) = pipe().unwrap();
    let (err, err_end) = pipe().unwrap();
    let run = attached(&pool, request(&["both", "to out", "to err"]), vec![null(), out_end, err_end], unheard());
    assert_eq!(run.await.unwrap(), 0);
    assert_eq!(all_of(out).await, b"to out");
    assert_eq!(all_of(err).await, b"to err");
    assert_eq!(attached(&pool, request(&["exit", "7"]), Vec::new(), unheard()).await.unwrap(), 7);
    assert_eq!(attached(&pool, request(&["no", "such"]), Vec::new(), unheard()).await.unwrap(), 127);
}

#[tokio::test]
async fn input_comes_from_a_pipe_a_file_and_nowhere() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    // A pipe that is filled while the command runs.
    let (input, mut writer) = pipe().map(|(r, w)| (r, File::from(w))).unwrap();
    let (out, out_end) = pipe().unwrap();
    let feeding = tokio::task::spawn_blocking(move || {
        for at in 0..64 {
            writer.write_all(&pattern(at * 10_000, 10_000)).unwrap();
        }
    });
    let reading = tokio::spawn(all_of(out));
    assert_eq!(attached(&pool, request(&["cat"]), vec![input, out_end], unheard()).await.unwrap(), 0);
    feeding.await.unwrap();
    assert!(reading.await.unwrap() == pattern(0, 640_000));
    // Files: from where they stand, to where they stand.
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"before|after").unwrap();
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(7)).unwrap();
    let mut sink = tempfile::tempfile().unwrap();
    sink.write_all(b"head:").unwrap();
    let descriptors = vec![file.into(), sink.try_clone().unwrap().into()];
    assert_eq!(attached(&pool, request(&["cat"]), descriptors, unheard()).await.unwrap(), 0);
    rustix::fs::seek(&sink, rustix::fs::SeekFrom::Start(0)).unwrap();
    assert_eq!(all_of(sink.into()).await, b"head:after");
    // Nothing, in three ways.
    let directory: OwnedFd = File::open("/").unwrap().into();
    for descriptors in [vec![], vec![null()], vec![directory]] {
        assert_eq!(attached(&pool, request(&["cat"]), descriptors, unheard()).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn descriptors_stay_blocking_for_the_callers_shell() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    let (input, _writer) = pipe().unwrap();
    let (_out, out_end) = pipe().unwrap();
    let flags = |fd: &OwnedFd| rustix::fs::fcntl_getfl(fd).unwrap();
    let before = (flags(&input), flags(&out_end));
    let copies = vec![input.try_clone().unwrap(), out_end.try_clone().unwrap()];
    attached(&pool, request(&["both", "a", "b"]), copies, unheard()).await.unwrap();
    assert_eq!((flags(&input), flags(&out_end)), before);
}

#[tokio::test]
async fn what_stands_in_a_pipe_after_the_end_is_left_to_the_caller() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    let (input, writer) = pipe().map(|(r, w)| (r, File::from(w))).unwrap();
    // The thread waits in poll when the command ends.
    attached(&pool, request(&["true"]), vec![input.try_clone().unwrap()], unheard()).await.unwrap();
    (&writer).write_all(b"typed later").unwrap();
    drop(writer);
    assert_eq!(all_of(input).await, b"typed later");
}

#[tokio::test]
async fn output_in_one_place_keeps_its_order() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    for _ in 0..20 {
        let (out, out_end) = pipe().unwrap();
        let both = vec![null(), out_end.try_clone().unwrap(), out_end];
        attached(&pool, request(&["both", "first ", "second"]), both, unheard()).await.unwrap();
        assert_eq!(all_of(out).await, b"first second");
    }
}

#[tokio::test]
async fn signals_reach_the_command() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    let (out, out_end) = pipe().unwrap();
    let (controls, receiver) = mpsc::channel(8);
    for signal in [Signal::Int, Signal::Hup, Signal::Usr1, Signal::Usr2, Signal::Quit, Signal::Term] {
        controls.send(Control::Signal(signal)).await.unwrap();
    }
    assert_eq!(attached(&pool, request(&["signals"]), vec![null(), out_end], receiver).await.unwrap(), 143);
    assert_eq!(all_of(out).await, b"ready\nINT\nHUP\nUSR1\nCustom(\"USR2\")\nQUIT\n");
}

#[tokio::test]
async fn a_terminal_has_its_size_and_learns_of_new_ones() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    let (input, mut writer) = pipe().map(|(r, w)| (r, File::from(w))).unwrap();
    let (out, out_end) = pipe().unwrap();
    let (controls, receiver) = mpsc::channel(8);
    controls.send(Control::Resize { columns: 100, rows: 30 }).await.unwrap();
    let terminal = Terminal { term: "xterm".into(), columns: 80, rows: 24 };
    let request = Request { terminal: Some(terminal), ..request(&["sizes"]) };
    let running = tokio::spawn(async move { attached(&pool, request, vec![input, out_end], receiver).await });
    let reading = tokio::task::spawn_blocking(move || {
        let (mut out, mut text) = (File::from(out), String::new());
        while text.lines().count() < 2 {
            let mut piece = [0; 64];
            let read = out.read(&mut piece).unwrap();
            text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        }
        text
    });
    assert_eq!(reading.await.unwrap(), "(80, 24)\n(100, 30)\n");
    writer.write_all(b"\x04").unwrap();
    assert_eq!(running.await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_command_whose_caller_goes_is_ended_alone_or_in_company() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    let hang = |timeout| Request { timeout: Some(timeout), ..request(&["hang"]) };
    let soon = attached(&pool, hang(Duration::from_millis(50)), Vec::new(), unheard()).await;
    assert!(matches!(soon, Err(Error::TimedOut { .. })));
    guest.seen.until(|seen| seen.abandoned.load(Ordering::SeqCst) == 1).await;
    // More than there can be connections: some share.
    let many: Vec<_> = (0..30)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { attached(&pool, request(&["hang"]), Vec::new(), unheard()).await })
        })
        .collect();
    guest.seen.until(|seen| seen.started.load(Ordering::SeqCst) == 31).await;
    many.iter().for_each(tokio::task::JoinHandle::abort);
    guest.seen.until(|seen| seen.abandoned.load(Ordering::SeqCst) == 31).await;
    assert_eq!(attached(&pool, request(&["true"]), Vec::new(), unheard()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_shell_that_stands_still_is_told_from_a_command_that_is_silent() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    let patience = Duration::from_millis(300);
    guest.seen.stopped.store(true, Ordering::SeqCst);
    let error = run(&pool, request(&["true"]), Vec::new(), unheard(), patience).await.unwrap_err();
    assert!(matches!(error, Error::NotTaken { .. }) && error.has_started(), "{error}");
    assert_eq!(guest.seen.started.load(Ordering::SeqCst), 0);
    let error = protocol::Error::from(error);
    assert!(error.data.hint.unwrap().contains("vcodingctl start"));
    // The control: silence after the shell's word is the command's own affair.
    guest.seen.stopped.store(false, Ordering::SeqCst);
    let silent = run(&pool, request(&["hang"]), Vec::new(), unheard(), patience);
    assert!(tokio::time::timeout(patience * 3, silent).await.is_err());
    guest.seen.until(|seen| seen.started.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_commands_end_and_errors_may_overtake_its_shells_word() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    guest.seen.overtaken.store(true, Ordering::SeqCst);
    let (out, out_end) = pipe().unwrap();
    let (err, err_end) = pipe().unwrap();
    let ran = attached(&pool, request(&["x"]), vec![null(), out_end, err_end], unheard());
    assert_eq!(ran.await.unwrap(), 3);
    assert_eq!((all_of(out).await, all_of(err).await), (b"output".to_vec(), b"errors".to_vec()));
    let kept = captured(&pool, request(&["x"]).frame, Vec::new(), 100, Duration::from_secs(30)).await.unwrap();
    let expected = Captured { status: 3, stdout: b"output".to_vec(), stderr: b"errors".to_vec() };
    assert_eq!(kept, expected);
}

#[tokio::test]
async fn a_reader_that_is_gone_ends_its_command_as_sigpipe_would() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    let (out, out_end) = pipe().unwrap();
    drop(out);
    let spit = attached(&pool, request(&["spit", "100000000"]), vec![null(), out_end], unheard());
    assert_eq!(spit.await.unwrap(), 141);
    guest.seen.until(|seen| seen.abandoned.load(Ordering::SeqCst) == 1).await;
    // Errors that nobody reads are no reason.
    let (err, err_end) = pipe().unwrap();
    drop(err);
    let both = attached(&pool, request(&["both", "a", "b"]), vec![null(), null(), err_end], unheard());
    assert_eq!(both.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stalls_freezes_nobody_and_loses_nothing() {
    const MUCH: usize = 40 << 20;
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    // Fill every connection, so that the next ones share.
    let mut stalled = Vec::new();
    let mut outs = Vec::new();
    for _ in 0..40 {
        let (out, out_end) = pipe().unwrap();
        outs.push(out);
        let pool = pool.clone();
        stalled.push(tokio::spawn(async move {
            attached(&pool, request(&["spit", &(MUCH / 40).to_string()]), vec![null(), out_end], unheard()).await
        }));
    }
    while pool.counts().iter().sum::<usize>() < 40 {
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        let quick = attached(&pool, request(&["true"]), Vec::new(), unheard());
        assert_eq!(tokio::time::timeout(Duration::from_secs(10), quick).await.unwrap().unwrap(), 0);
    }
    for out in outs {
        assert!(all_of(out).await == pattern(0, MUCH / 40));
    }
    for one in stalled {
        assert_eq!(one.await.unwrap().unwrap(), 0);
    }
}

#[tokio::test]
async fn what_the_daemon_asks_for_itself_is_bounded() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    let second = Duration::from_secs(10);
    let cat = captured(&pool, Frame::exec(["cat"]), b"through".to_vec(), 100, second).await.unwrap();
    assert_eq!(cat, Captured { status: 0, stdout: b"through".to_vec(), stderr: Vec::new() });
    let both = captured(&pool, Frame::exec(["both", "o", "e"]), Vec::new(), 100, second).await.unwrap();
    assert_eq!((both.stdout, both.stderr), (b"o".to_vec(), b"e".to_vec()));
    let much = captured(&pool, Frame::exec(["spit", "1000000"]), Vec::new(), 1000, second).await;
    assert!(matches!(much, Err(Error::TooMuch { limit: 1000 })));
    let late = captured(&pool, Frame::exec(["hang"]), Vec::new(), 1000, Duration::from_millis(20)).await;
    assert!(matches!(late, Err(Error::TimedOut { .. })));
}

#[tokio::test]
async fn a_connection_that_goes_is_said_and_a_command_too_long_is_not_sent() {
    let guest = TestGuest::start();
    let pool = guest.pool().await;
    let hang = tokio::spawn({
        let pool = pool.clone();
        async move { attached(&pool, request(&["hang"]), Vec::new(), unheard()).await }
    });
    guest.seen.until(|seen| seen.started.load(Ordering::SeqCst) == 1).await;
    guest.kill_all();
    let lost = hang.await.unwrap().unwrap_err();
    assert!(matches!(lost, Error::Lost), "{lost}");
    let long = "x".repeat(guest::frame::MAX);
    let refused = attached(&pool, request(&["true", &long]), Vec::new(), unheard()).await.unwrap_err();
    assert!(matches!(refused, Error::TooLong(_)) && !refused.has_started());
}

mod spilling {
    use super::super::outlet::Outlets;
    use super::*;
    use crate::ssh::Company;

    #[tokio::test]
    async fn a_terminal_and_a_file_are_written_by_a_thread_in_full() {
        let mut sink = tempfile::tempfile().unwrap();
        let mut outlets = Outlets::new(Some(sink.try_clone().unwrap().into()), None, Company::none());
        for at in 0..100 {
            outlets.out(pattern(at * 30_000, 30_000).into()).await.unwrap();
        }
        outlets.drain().await.unwrap();
        let mut bytes = Vec::new();
        rustix::fs::seek(&sink, rustix::fs::SeekFrom::Start(0)).unwrap();
        sink.read_to_end(&mut bytes).unwrap();
        assert!(bytes == pattern(0, 3_000_000));
    }
}
