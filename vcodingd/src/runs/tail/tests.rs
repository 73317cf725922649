use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use guest::run::{UNREAD, segment};
use proptest::prelude::*;

use super::*;
use crate::runs::log::Content;

const ID: &str = "01jd0000000000000000000001";
const SMALL: u64 = 4096;

fn id() -> RunId {
    ID.parse().unwrap()
}

/// A workspace's run directory and the log's, with one run begun.
struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scene = Self { dir };
        std::fs::create_dir_all(scene.run()).unwrap();
        scene
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn run(&self) -> PathBuf {
        self.run_dir().join(RUNS).join(ID)
    }

    fn log_dir(&self) -> PathBuf {
        self.dir.path().join("host")
    }

    fn log(&self) -> Log {
        Log::open(&self.log_dir()).unwrap()
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.run().join(name), content).unwrap();
    }

    /// A tail to be driven step by step.
    fn tail(&self, log: &Log) -> Tail {
        let place = Place::new(&self.run_dir(), &id());
        let dir = place.open().unwrap().unwrap();
        Tail::new(place, dir, log.writer().unwrap(), SMALL)
    }

    fn files(&self) -> Vec<String> {
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = std::fs::read_dir(self.run()).unwrap().map(name).collect();
        names.sort();
        names
    }
}

/// What our supervisor does with a command's output.
struct Supervisor {
    run: PathBuf,
    written: [Vec<u8>; 2],
}

impl Supervisor {
    fn new(scene: &Scene) -> Self {
        Self { run: scene.run(), written: Default::default() }
    }

    /// Writes as much of the output as fits; less than all if too many segments wait.
    fn write(&mut self, stream: Stream, mut bytes: &[u8]) -> usize {
        let written = &mut self.written[usize::from(stream == Stream::Err)];
        let before = written.len();
        while !bytes.is_empty() {
            let number = written.len() as u64 / SMALL;
            let room = usize::try_from(SMALL - written.len() as u64 % SMALL).unwrap();
            let waiting = (0..number).filter(|n| self.run.join(segment(stream, *n)).exists()).count();
            if waiting >= UNREAD {
                break;
            }
            let path = self.run.join(segment(stream, number));
            let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            file.write_all(now).unwrap();
            written.extend_from_slice(now);
            bytes = later;
        }
        written.len() - before
    }

    fn end(&self, end: &End) {
        std::fs::write(self.run.join("end.new"), end.encode()).unwrap();
        std::fs::rename(self.run.join("end.new"), self.run.join(END)).unwrap();
    }
}

/// The streams as the log has them.
fn streams(log: &Log) -> [Vec<u8>; 2] {
    let mut streams = [Vec::new(), Vec::new()];
    let mut reader = log.reader(0);
    let mut number = 0;
    loop {
        let records = reader.read(1 << 20).unwrap();
        if records.is_empty() {
            return streams;
        }
        for record in records {
            assert_eq!(record.number, number);
            number += 1;
            let Content::Line { stream, ending, bytes } = record.content else { panic!("nothing was dropped") };
            assert!(!bytes.contains(&b'\n'));
            let stream = &mut streams[usize::from(stream == Stream::Err)];
            stream.extend_from_slice(&bytes);
            if ending == log::Ending::Newline {
                stream.push(b'\n');
            }
        }
    }
}

fn finish(mut tail: Tail) -> End {
    loop {
        match tail.step().unwrap() {
            Step::Ended(end) => return end,
            Step::More(next) | Step::Idle(next) => tail = next,
        }
    }
}

#[derive(Debug, Clone)]
enum Act {
    Write(Stream, Vec<u8>),
    Step,
    /// The daemon is killed.
    Kill,
    /// The power goes: of what was not synced, a part is gone.
    Cut(prop::sample::Index),
}

fn act() -> impl Strategy<Value = Act> {
    let text = prop_oneof![
        4 => "[a-z]{0,12}\n?",
        2 => "([a-z]{0,300}\n){0,30}",
        // A line that waits for its end must not fill all segments: real ones hold 64 longest lines.
        1 => "[a-z]{0,9000}\n",
        1 => "\n{0,50}",
    ];
    let stream = prop_oneof![Just(Stream::Out), Just(Stream::Err)];
    prop_oneof![
        6 => (stream, text).prop_map(|(stream, text)| Act::Write(stream, text.into_bytes())),
        4 => Just(Act::Step),
        1 => Just(Act::Kill),
        1 => any::<prop::sample::Index>().prop_map(Act::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn stopped_anywhere_it_goes_on_without_gap_and_without_duplicate(acts in proptest::collection::vec(act(), 1..60)) {
        let scene = Scene::new();
        let mut supervisor = Supervisor::new(&scene);
        let mut log = scene.log();
        let mut tail = Some(scene.tail(&log));
        let mut waiting: VecDeque<(Stream, Vec<u8>)> = VecDeque::new();
        for act in acts {
            match act {
                Act::Write(stream, bytes) => waiting.push_back((stream, bytes)),
                Act::Step => match tail.take().unwrap().step().unwrap() {
                    Step::More(next) | Step::Idle(next) => tail = Some(next),
                    Step::Ended(end) => panic!("it did not end: {end:?}"),
                },
                Act::Kill => {
                    drop(tail.take());
                    log = scene.log();
                    tail = Some(scene.tail(&log));
                }
                Act::Cut(place) => {
                    let synced = tail.take().unwrap().writer.synced_length();
                    let file = OpenOptions::new().write(true).open(scene.log_dir().join("log")).unwrap();
                    let unsynced = file.metadata().unwrap().len() - synced;
                    file.set_len(synced + place.index(usize::try_from(unsynced).unwrap() + 1) as u64).unwrap();
                    log = scene.log();
                    tail = Some(scene.tail(&log));
                }
            }
            write_what_fits(&mut supervisor, &mut waiting);
        }
        let mut tail = tail.unwrap();
        while !waiting.is_empty() {
            match tail.step().unwrap() {
                Step::More(next) | Step::Idle(next) => tail = next,
                Step::Ended(end) => panic!("it did not end: {end:?}"),
            }
            write_what_fits(&mut supervisor, &mut waiting);
        }
        supervisor.end(&End::Exited(7));
        prop_assert_eq!(finish(tail), End::Exited(7));
        prop_assert_eq!(streams(&log), supervisor.written);
        drop(log);
        prop_assert_eq!(scene.log().finished().unwrap().end, Some(End::Exited(7)));
    }
}

fn write_what_fits(supervisor: &mut Supervisor, waiting: &mut VecDeque<(Stream, Vec<u8>)>) {
    while let Some((stream, bytes)) = waiting.front_mut() {
        let written = supervisor.write(*stream, bytes);
        bytes.drain(..written);
        if !bytes.is_empty() {
            return;
        }
        waiting.pop_front();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_run_is_followed_through_stops_to_its_end() {
    let scene = Scene::new();
    let mut supervisor = Supervisor::new(&scene);
    let writer = std::thread::spawn(move || {
        for n in 0..20_000u32 {
            let line = format!("line {n} {}\n", "x".repeat(n as usize % 40));
            let stream = if n % 7 == 0 { Stream::Err } else { Stream::Out };
            let mut rest = line.as_bytes();
            while !rest.is_empty() {
                rest = &rest[supervisor.write(stream, rest)..];
                std::thread::yield_now();
            }
        }
        supervisor.end(&End::Exited(0));
        supervisor.written
    });
    let limits = Limits { segment: SMALL, ..Limits::default() };
    let end = loop {
        let log = scene.log();
        let stop = CancellationToken::new();
        let mut grown = log.watch();
        let before = log.extent().records;
        let stopper = async {
            // Stopped in the middle of work, again and again.
            let _ = grown.wait_for(|extent| extent.records > before + 1500 || extent.finished).await;
            stop.cancel();
        };
        let run_dir = scene.run_dir();
        let run = id();
        let (ended, ()) = tokio::join!(tail_with(&run_dir, &run, &log, stop.clone(), limits), stopper);
        match ended {
            Ok(end) => break end,
            Err(TailError::Stopped) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let written = writer.join().unwrap();
    assert_eq!(end, End::Exited(0));
    let log = scene.log();
    assert_eq!(streams(&log), written);
    // A log that is finished needs the directory no more.
    clear(&scene.run_dir(), &id()).unwrap();
    clear(&scene.run_dir(), &id()).unwrap();
    let again = tail(&scene.run_dir(), &id(), &log, CancellationToken::new()).await;
    assert_eq!(again.unwrap(), End::Exited(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_seen_at_once() {
    let scene = Scene::new();
    let log = scene.log();
    let stop = CancellationToken::new();
    let run_dir = scene.run_dir();
    let task = tokio::spawn({
        let (log, stop) = (log.clone(), stop.clone());
        async move { tail(&run_dir, &id(), &log, stop).await }
    });
    let mut grown = log.watch();
    let mut file = File::create(scene.run().join("out.0")).unwrap();
    let mut slowest = Duration::ZERO;
    let mut latencies = Vec::new();
    for n in 1..=20u64 {
        let begin = Instant::now();
        file.write_all(b"x\n").unwrap();
        let seen = grown.wait_for(|extent| extent.records >= n);
        tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap().unwrap();
        slowest = slowest.max(begin.elapsed());
        latencies.push(begin.elapsed());
    }
    latencies.sort();
    // The poll would take 200 ms; on a busy machine single ones may.
    assert!(latencies[10] < Duration::from_millis(100), "{latencies:?}");
    stop.cancel();
    assert!(matches!(task.await.unwrap(), Err(TailError::Stopped)));
}

#[test]
fn what_is_there_of_a_line_is_seen_before_its_end_comes() {
    let scene = Scene::new();
    let mut supervisor = Supervisor::new(&scene);
    let log = scene.log();
    supervisor.write(Stream::Out, b"a\nContinue? [y/n] ");
    let Step::More(tail) = scene.tail(&log).step().unwrap() else { panic!("there was output") };
    let Step::Idle(tail) = tail.step().unwrap() else { panic!("there is no more") };
    assert_eq!(streams(&log)[0], b"a\nContinue? [y/n] ");
    supervisor.write(Stream::Out, b"y\nb");
    supervisor.end(&End::Exited(0));
    assert_eq!(finish(tail), End::Exited(0));
    assert_eq!(streams(&log), supervisor.written);
}

#[test]
fn a_segment_is_removed_only_when_it_is_durable_in_the_log() {
    let scene = Scene::new();
    let mut supervisor = Supervisor::new(&scene);
    let log = scene.log();
    // One line over a segment's end: the segment before holds its beginning.
    supervisor.write(Stream::Out, &[b'x'; 5000]);
    let Step::More(tail) = scene.tail(&log).step().unwrap() else { panic!("there was output") };
    let Step::Idle(tail) = tail.step().unwrap() else { panic!("there is no more") };
    assert_eq!(scene.files(), ["out.0", "out.1"]);
    supervisor.write(Stream::Out, b"\n");
    let Step::More(tail) = tail.step().unwrap() else { panic!("there was output") };
    assert_eq!(scene.files(), ["out.1"]);
    assert!(tail.writer.durable(Stream::Out) >= SMALL);
}

#[test]
fn what_a_kill_left_between_a_sync_and_a_removal_is_removed_later() {
    let scene = Scene::new();
    let mut supervisor = Supervisor::new(&scene);
    let log = scene.log();
    supervisor.write(Stream::Err, &b"0123456\n".repeat(1000));
    let Step::More(tail) = scene.tail(&log).step().unwrap() else { panic!("there was output") };
    drop(tail);
    scene.write("err.0", b"what was read already");
    let Step::Idle(tail) = scene.tail(&log).step().unwrap() else { panic!("there is no more") };
    assert_eq!(scene.files(), ["err.1"]);
    drop(tail);
    assert_eq!(streams(&log)[1], supervisor.written[1]);
}

/// Reads two bytes of `out.0`, then lets `attack` change what is there, and expects to be told.
fn attacked(attack: impl FnOnce(&Scene)) -> String {
    let scene = Scene::new();
    let log = scene.log();
    scene.write("out.0", b"a\n");
    let Step::More(tail) = scene.tail(&log).step().unwrap() else { panic!("there was output") };
    attack(&scene);
    let what = tampering(tail);
    assert_eq!(streams(&log)[0], b"a\n", "what was read before stays");
    what
}

fn tampering(mut tail: Tail) -> String {
    for _ in 0..10 {
        match tail.step() {
            Ok(Step::More(next) | Step::Idle(next)) => tail = next,
            Err(TailError::Tampered { what }) => return what,
            Ok(Step::Ended(end)) => panic!("it ended with {end:?}"),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it was not noticed");
}

#[test]
fn a_segment_that_changes_under_the_reader_is_tampering() {
    let path = |scene: &Scene| scene.run().join("out.0");
    let cut = |scene: &Scene| File::create(path(scene)).map(drop).unwrap();
    assert_eq!(attacked(cut), "out.0 was cut off");
    let removed = |scene: &Scene| std::fs::remove_file(path(scene)).unwrap();
    assert_eq!(attacked(removed), "out.0 was removed or replaced");
    let replaced = |scene: &Scene| {
        scene.write("other", b"a\nb\n");
        std::fs::rename(scene.run().join("other"), path(scene)).unwrap();
    };
    assert_eq!(attacked(replaced), "out.0 was removed or replaced");
    let moved = |scene: &Scene| {
        std::fs::rename(path(scene), scene.run().join("old")).unwrap();
        scene.write("out.0", b"a\nb\n");
    };
    assert_eq!(attacked(moved), "out.0 was replaced");
    let moved_away = |scene: &Scene| std::fs::rename(path(scene), scene.run().join("old")).unwrap();
    assert_eq!(attacked(moved_away), "out.0 was removed");
    let linked = |scene: &Scene| std::fs::hard_link(path(scene), scene.run().join("second")).unwrap();
    assert_eq!(attacked(linked), "out.0 has a second name");
    let grown = |scene: &Scene| scene.write("out.0", &[b'a'; 4097]);
    assert_eq!(attacked(grown), "out.0 is longer than a segment");
    let early = |scene: &Scene| {
        scene.write("out.1", b"later");
        Supervisor::new(scene).end(&End::Exited(0));
    };
    assert_eq!(attacked(early), "out.1 was begun before the one before it was full");
    let elsewhere = |scene: &Scene| {
        std::fs::rename(scene.run(), scene.run_dir().join("moved")).unwrap();
        std::fs::create_dir(scene.run()).unwrap();
    };
    assert_eq!(attacked(elsewhere), format!("runs/{ID} was replaced"));
    // The control: a run that nobody touched goes on.
    let scene = Scene::new();
    let log = scene.log();
    scene.write("out.0", b"a\n");
    Supervisor::new(&scene).end(&End::Exited(0));
    assert_eq!(finish(scene.tail(&log)), End::Exited(0));
}

#[test]
fn a_resumed_tail_misses_a_segment_that_it_was_in() {
    let scene = Scene::new();
    let log = scene.log();
    scene.write("out.0", b"a\n");
    drop(scene.tail(&log).step().unwrap());
    std::fs::remove_file(scene.run().join("out.0")).unwrap();
    assert_eq!(tampering(scene.tail(&log)), "out.0 was removed");
}

#[test]
fn what_is_no_plain_file_is_neither_followed_nor_waited_for() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "secret\n").unwrap();
    for name in ["out.0", "err.0", END] {
        let scene = Scene::new();
        let log = scene.log();
        symlink(secret.path(), scene.run().join(name)).unwrap();
        assert_eq!(tampering(scene.tail(&log)), format!("{name} is a link"));
        assert_eq!(log.extent().records, 0);

        let scene = Scene::new();
        let fifo = nix::sys::stat::Mode::S_IRWXU;
        nix::unistd::mkfifo(&scene.run().join(name), fifo).unwrap();
        assert_eq!(tampering(scene.tail(&scene.log())), format!("{name} is no regular file"));

        let scene = Scene::new();
        std::fs::create_dir(scene.run().join(name)).unwrap();
        assert_eq!(tampering(scene.tail(&scene.log())), format!("{name} is no regular file"));

        let scene = Scene::new();
        scene.write("first", b"1 exited 0\n");
        std::fs::hard_link(scene.run().join("first"), scene.run().join(name)).unwrap();
        assert_eq!(tampering(scene.tail(&scene.log())), format!("{name} has a second name"));
    }
}

#[test]
fn a_run_directory_that_is_a_link_is_tampering() {
    let scene = Scene::new();
    std::fs::remove_dir(scene.run()).unwrap();
    symlink(scene.dir.path(), scene.run()).unwrap();
    let place = Place::new(&scene.run_dir(), &id());
    assert!(matches!(place.open(), Err(TailError::Tampered { .. })));
}

#[test]
fn an_end_that_is_none_is_tampering_however_long_it_is() {
    for content in [&b""[..], b"1 exited 0", b"2 exited 0\n", b"\xff\n", &[b'x'; MAX_END + 1]] {
        let scene = Scene::new();
        scene.write(END, content);
        assert_eq!(tampering(scene.tail(&scene.log())), "end is no end record");
    }
    let scene = Scene::new();
    let huge = File::create(scene.run().join(END)).unwrap();
    huge.set_len(1 << 40).unwrap();
    assert_eq!(tampering(scene.tail(&scene.log())), "end is no end record");
}

#[test]
fn a_lease_costs_a_bounded_wait() {
    let scene = Scene::new();
    scene.write("out.0", b"a\n");
    let take = "import fcntl,os,sys,signal\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\n\
        fd=os.open(sys.argv[1],os.O_RDWR)\nfcntl.fcntl(fd,fcntl.F_SETLEASE,fcntl.F_WRLCK)\n\
        print('ready',flush=True)\nsys.stdin.read()";
    let holder = Command::new("python3")
        .args(["-c", take])
        .arg(scene.run().join("out.0"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut holder) = holder else {
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("SKIPPED: python3 is not there to take a lease");
        }
        return;
    };
    let mut ready = [0; 6];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let begin = Instant::now();
    assert_eq!(tampering(scene.tail(&scene.log())), "out.0 is held by a lease");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    drop(holder.stdin.take());
    holder.wait().unwrap();
    // The control: without the lease it is read.
    let log = scene.log();
    drop(scene.tail(&log).step().unwrap());
    assert_eq!(streams(&log)[0], b"a\n");
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_never_comes_is_missing() {
    let scene = Scene::new();
    std::fs::remove_dir(scene.run()).unwrap();
    let log = scene.log();
    let ended = tail(&scene.run_dir(), &id(), &log, CancellationToken::new()).await;
    assert!(matches!(ended, Err(TailError::Missing { .. })));
    let stop = CancellationToken::new();
    stop.cancel();
    let ended = tail(&scene.run_dir(), &id(), &log, stop).await;
    assert!(matches!(ended, Err(TailError::Stopped)));
}

#[tokio::test]
async fn what_a_guest_left_that_is_gone_is_drained() {
    let scene = Scene::new();
    let log = scene.log();
    scene.write("out.0", b"a\nhalf");
    assert_eq!(drain(&scene.run_dir(), &id(), &log).await.unwrap(), None);
    assert_eq!(streams(&log)[0], b"a\nhalf");
    assert_eq!(log.finished().unwrap().end, None);
    assert_eq!(drain(&scene.run_dir(), &id(), &log).await.unwrap(), None);
    let ended = tail(&scene.run_dir(), &id(), &log, CancellationToken::new()).await;
    assert!(matches!(ended, Err(TailError::Over)));

    // It may have ended before.
    let scene = Scene::new();
    let log = scene.log();
    scene.write("out.0", b"a\n");
    Supervisor::new(&scene).end(&End::TimedOut);
    assert_eq!(drain(&scene.run_dir(), &id(), &log).await.unwrap(), Some(End::TimedOut));
    assert_eq!(log.finished().unwrap().end, Some(End::TimedOut));

    // Or have left nothing.
    let scene = Scene::new();
    let log = scene.log();
    clear(&scene.run_dir(), &id()).unwrap();
    assert_eq!(drain(&scene.run_dir(), &id(), &log).await.unwrap(), None);
    assert_eq!(log.extent(), log::Extent { records: 0, finished: true });
}

#[tokio::test]
async fn there_is_one_tail_of_a_run() {
    let scene = Scene::new();
    let log = scene.log();
    let _first = log.writer().unwrap();
    let ended = tail(&scene.run_dir(), &id(), &log, CancellationToken::new()).await;
    assert!(matches!(ended, Err(TailError::Busy)));
}

/// Bytes cut in any way make the same lines, and long lines are pieces.
#[test]
fn a_long_line_is_cut_into_pieces_wherever_its_bytes_come_apart() {
    let mut bytes = vec![b'x'; 2 * log::MAX_LINE + 10];
    bytes.push(b'\n');
    bytes.extend_from_slice(&vec![b'y'; log::MAX_LINE]);
    bytes.extend_from_slice(b"\nend");
    for chunk in [bytes.len(), 64 << 10, 1000] {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let mut writer = log.writer().unwrap();
        let mut lines = lines::Lines::new(Stream::Out, 0);
        for part in bytes.chunks(chunk) {
            lines.feed(part, &mut writer).unwrap();
        }
        lines.finish(&mut writer).unwrap();
        writer.publish().unwrap();
        assert_eq!(writer.position(Stream::Out), bytes.len() as u64);
        let of = |record: log::Record| match record.content {
            Content::Line { ending, bytes, .. } => (bytes.len(), ending),
            Content::Dropped { .. } => panic!("nothing was dropped"),
        };
        let found: Vec<_> = log.reader(0).read(usize::MAX).unwrap().into_iter().map(of).collect();
        use log::Ending::{Cut, Last, Newline};
        let most = log::MAX_LINE;
        assert_eq!(found, [(most, Cut), (most, Cut), (10, Newline), (most, Newline), (3, Last)], "{chunk}");
        assert_eq!(streams(&log)[0], bytes);
    }
}
