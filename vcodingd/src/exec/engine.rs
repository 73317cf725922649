//! The same as with the server in this process, and what only a kernel can show: trees, signals,
//! terminals.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use guest::Frame;
use protocol::exec::{Signal, Terminal};
use sha2::{Digest, Sha256};

use super::*;
use crate::ssh::real::RealGuest;

const LIMIT: Duration = Duration::from_secs(60);

fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
}

fn sh(script: &str) -> Request {
    Request { frame: Frame::exec(["/bin/sh", "-c", script]), terminal: None, timeout: Some(LIMIT) }
}

fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

fn unheard() -> mpsc::Receiver<Control> {
    mpsc::channel(1).1
}

async fn said(pool: &Pool, script: &str) -> (u8, String, String) {
    let frame = sh(script).frame;
    let captured = captured(pool, frame, Vec::new(), 1 << 20, LIMIT).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (captured.status, text(captured.stdout), text(captured.stderr))
}

/// Lines of a pipe, one at a time.
struct Lines(std::io::BufReader<File>);

impl Lines {
    fn of(fd: OwnedFd) -> Self {
        Self(std::io::BufReader::new(fd.into()))
    }

    async fn until(mut self, wanted: &'static str) -> (Self, String) {
        let reading = tokio::task::spawn_blocking(move || {
            let mut all = String::new();
            while !all.contains(wanted) {
                let mut piece = [0; 4096];
                let read = self.0.read(&mut piece).unwrap();
                assert!(read > 0, "{wanted:?} never came: {all:?}");
                all.push_str(&String::from_utf8_lossy(&piece[..read]));
            }
            (self, all)
        });
        tokio::time::timeout(LIMIT, reading).await.unwrap_or_else(|_| panic!("{wanted:?} never came")).unwrap()
    }
}

/// Waits until nothing in the guest has `marker` in its command line but the asking command.
async fn gone(pool: &Pool, marker: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    // The brackets keep the asker from finding itself.
    let (first, rest) = marker.split_at(1);
    let script = format!("grep -lsE '[{first}]{rest}' /proc/[0-9]*/cmdline | wc -l");
    loop {
        let (_, count, _) = said(pool, &script).await;
        if count.trim() == "0" {
            return;
        }
        assert!(Instant::now() < until, "{count} of {marker} live on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_guest_runs_commands_as_asked() {
    let Some(guest) = RealGuest::start().await else { return };
    let pool = &guest.pool;
    assert_eq!(pool.carrier(), "socket");
    assert_eq!(said(pool, "exit 7").await.0, 7);
    assert_eq!(said(pool, "kill -9 $$").await.0, 137);
    assert_eq!(said(pool, "pwd; echo $FROM_IMAGE; echo e >&2").await, (0, "/work\nyes\n".into(), "e\n".into()));
    let missing = captured(pool, Frame::exec(["no-such-command"]), Vec::new(), 1000, LIMIT).await.unwrap();
    assert_eq!(missing.status, 127, "{missing:?}");

    // Signals reach the command, not only its shell.
    let (out, out_end) = pipe().unwrap();
    let (controls, receiver) = mpsc::channel(8);
    // It starts no program meanwhile: the shell would lose a signal that comes just then.
    let script = "trap 'echo usr1' USR1; trap 'echo int; exit 9' INT; echo ready; while :; do :; done";
    let running = tokio::spawn({
        let pool = pool.clone();
        async move { attached(&pool, sh(script), vec![null(), out_end], receiver).await }
    });
    let (lines, _) = Lines::of(out).until("ready").await;
    controls.send(Control::Signal(Signal::Usr1)).await.unwrap();
    let (lines, _) = lines.until("usr1").await;
    controls.send(Control::Signal(Signal::Int)).await.unwrap();
    lines.until("int").await;
    assert_eq!(running.await.unwrap().unwrap(), 9);

    // Twenty at once.
    let many = (0..20).map(|n| {
        let pool = pool.clone();
        tokio::spawn(async move { said(&pool, &format!("sleep 0.2; echo {n}; exit {n}")).await })
    });
    for (n, one) in many.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(one.await.unwrap(), (u8::try_from(n).unwrap(), format!("{n}\n"), String::new()));
    }
    guest.pool.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_mebibytes_go_both_ways_unchanged() {
    const BYTES: usize = 100 << 20;
    let Some(guest) = RealGuest::start().await else { return };
    let (input, writer) = pipe().map(|(r, w)| (r, File::from(w))).unwrap();
    let (out, out_end) = pipe().unwrap();
    let piece: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let sent = tokio::task::spawn_blocking({
        let (mut writer, piece) = (writer, piece.clone());
        move || {
            let mut hash = Sha256::new();
            for _ in 0..BYTES / piece.len() {
                writer.write_all(&piece).unwrap();
                hash.update(&piece);
            }
            hash.finalize()
        }
    });
    let received = tokio::task::spawn_blocking(move || {
        let (mut out, mut hash, mut count, mut buffer) = (File::from(out), Sha256::new(), 0, vec![0; 1 << 16]);
        loop {
            match out.read(&mut buffer).unwrap() {
                0 => return (hash.finalize(), count),
                read => {
                    hash.update(&buffer[..read]);
                    count += read;
                }
            }
        }
    });
    let cat = Request { frame: Frame::exec(["cat"]), terminal: None, timeout: Some(LIMIT) };
    assert_eq!(attached(&guest.pool, cat, vec![input, out_end], unheard()).await.unwrap(), 0);
    let (hash, count) = received.await.unwrap();
    assert_eq!((count, hash), (BYTES, sent.await.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_caller_goes_the_whole_tree_goes() {
    let Some(guest) = RealGuest::start().await else { return };
    let pool = &guest.pool;
    let tree = "sleep 4242 & setsid sleep 4242 & nohup sleep 4242 >/dev/null 2>&1 & (setsid sh -c 'sleep 4242 & sleep 4242' &) ; echo ready; wait";
    // Alone, where the connection goes; and in company, where only the channel does.
    for company in [0, 30] {
        let others: Vec<_> = (0..company)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { attached(&pool, sh("sleep 3131"), vec![null()], unheard()).await })
            })
            .collect();
        while pool.counts().iter().sum::<usize>() < company {
            tokio::task::yield_now().await;
        }
        let (out, out_end) = pipe().unwrap();
        let running = tokio::spawn({
            let pool = pool.clone();
            async move { attached(&pool, sh(tree), vec![null(), out_end], unheard()).await }
        });
        let (_lines, _) = Lines::of(out).until("ready").await;
        running.abort();
        gone(pool, "sleep.4242").await;
        others.iter().for_each(tokio::task::JoinHandle::abort);
        gone(pool, "sleep.3131").await;
    }
    // A limit of time is such an end, too.
    let late =
        attached(pool, Request { timeout: Some(Duration::from_millis(300)), ..sh("sleep 4242") }, vec![], unheard());
    assert!(matches!(late.await, Err(Error::TimedOut { .. })));
    gone(pool, "sleep.4242").await;
    // And so is everybody's death: the next command works.
    let _dies = captured(pool, sh("kill -9 -1").frame, Vec::new(), 100, LIMIT).await;
    let until = Instant::now() + LIMIT;
    while !matches!(captured(pool, sh("exit 5").frame, Vec::new(), 100, LIMIT).await, Ok(Captured { status: 5, .. })) {
        assert!(Instant::now() < until);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_one_with_its_size_its_interrupt_and_its_job_control() {
    let Some(guest) = RealGuest::start().await else { return };
    let pool = guest.pool.clone();
    let (input, writer) = pipe().map(|(r, w)| (r, File::from(w))).unwrap();
    let (out, out_end) = pipe().unwrap();
    let (controls, receiver) = mpsc::channel(8);
    let terminal = Some(Terminal { term: "xterm".into(), columns: 91, rows: 27 });
    // An empty command: the user's shell.
    let request = Request { frame: Frame::exec(Vec::<Vec<u8>>::new()), terminal, timeout: Some(LIMIT) };
    let running = tokio::spawn(async move { attached(&pool, request, vec![input, out_end], receiver).await });
    let typed = |text: &str| (&writer).write_all(text.as_bytes()).unwrap();
    let lines = Lines::of(out);
    typed("stty size; tty; echo $TERM\n");
    let (lines, text) = lines.until("xterm\r\n").await;
    assert!(text.contains("27 91\r\n") && text.contains("/dev/pts/"), "{text:?}");
    controls.send(Control::Resize { columns: 120, rows: 40 }).await.unwrap();
    typed("sleep 0.1; stty size\n");
    let (lines, _) = lines.until("40 120\r\n").await;
    // ^C reaches what is in front, and not the shell.
    typed("echo be''gin; sleep 4242\n");
    let (lines, _) = lines.until("begin\r\n").await;
    // Until it is in front, ^C would be the shell's.
    while said(&guest.pool, "grep -lsxz '424[2]' /proc/[0-9]*/cmdline | wc -l").await.1.trim() == "0" {}
    typed("\x03");
    typed("echo st''ill\n");
    let (lines, _) = lines.until("still\r\n").await;
    typed("sleep 4242\n");
    while said(&guest.pool, "grep -lsxz '424[2]' /proc/[0-9]*/cmdline | wc -l").await.1.trim() == "0" {}
    typed("\x1a");
    let (lines, _) = lines.until("Stopped").await;
    typed("kill %1; exit 3\n");
    let (_lines, _) = lines.until("exit").await;
    // The first exit may warn of the stopped job.
    typed("exit 3\n");
    assert_eq!(running.await.unwrap().unwrap(), 3);
    assert!(writer.as_fd().try_clone_to_owned().is_ok());
}

/// Not a bench, which `cargo xtask bench` is; it tells a change of shape.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_of_nothing_takes_milliseconds() {
    let Some(guest) = RealGuest::start().await else { return };
    let mut took = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        let captured = captured(&guest.pool, Frame::exec(["true"]), Vec::new(), 100, LIMIT).await.unwrap();
        took.push(began.elapsed());
        assert_eq!(captured.status, 0);
    }
    took.sort_unstable();
    let _told = writeln!(std::io::stderr(), "`true`: median {:?}, best {:?}, p90 {:?}", took[50], took[0], took[90]);
    assert!(took[50] < Duration::from_millis(100), "{:?}", took[50]);
}
