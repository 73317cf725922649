use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

const STREAMS: [Stream; 2] = [Stream::Out, Stream::Err];

/// A line as it is appended: its stream, its bytes, its ending.
type Line = (Stream, Vec<u8>, Ending);

/// Appends lines and keeps the account of what was consumed that the tail keeps.
struct Feeder {
    writer: Writer,
    consumed: [u64; 2],
}

impl Feeder {
    fn new(log: &Log) -> Self {
        let writer = log.writer().unwrap();
        let consumed = STREAMS.map(|stream| writer.position(stream));
        Self { writer, consumed }
    }

    fn line(&mut self, (stream, bytes, ending): &Line) {
        let consumed = &mut self.consumed[usize::from(*stream == Stream::Err)];
        *consumed += bytes.len() as u64 + u64::from(*ending == Ending::Newline);
        self.writer.append(*stream, bytes, *ending, *consumed).unwrap();
    }
}

fn lines_of(log: &Log) -> Vec<Line> {
    let mut lines = Vec::new();
    for (number, record) in (0..).zip(all(log, 0)) {
        assert_eq!(record.number, number);
        match record.content {
            Content::Line { stream, ending, bytes } => lines.push((stream, bytes, ending)),
            Content::Dropped { .. } => panic!("nothing was dropped"),
        }
    }
    lines
}

fn all(log: &Log, from: u64) -> Vec<Record> {
    let mut reader = log.reader(from);
    let mut records = Vec::new();
    loop {
        let batch = reader.read(1000).unwrap();
        if batch.is_empty() {
            return records;
        }
        records.extend(batch);
    }
}

fn line() -> impl Strategy<Value = Line> {
    let ending = prop_oneof![8 => Just(Ending::Newline), 1 => Just(Ending::Cut), 1 => Just(Ending::Last)];
    let bytes = prop_oneof![
        20 => proptest::collection::vec(any::<u8>(), 0..60),
        1 => (0..200_000usize).prop_map(|length| vec![b'x'; length])
    ];
    (prop_oneof![Just(Stream::Out), Just(Stream::Err)], bytes, ending)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cut_at_any_byte_it_opens_with_the_first_records_and_goes_on_from_them(
        lines in proptest::collection::vec(line(), 1..60),
        more in proptest::collection::vec(line(), 1..5),
        cut in any::<prop::sample::Index>(),
        garbage in prop_oneof![Just(vec![]), Just(vec![0; 40]), proptest::collection::vec(any::<u8>(), 1..40)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        {
            let mut feeder = Feeder::new(&Log::open(dir.path()).unwrap());
            for line in &lines {
                feeder.line(line);
                feeder.writer.publish().unwrap();
            }
        }
        let whole = std::fs::read(&path).unwrap();
        let cut = cut.index(whole.len() + 1);
        let mut file = File::create(&path).unwrap();
        file.write_all(&whole[..cut]).unwrap();
        // A head that was cut is only begun again where nothing else is there.
        let garbage = if cut < 8 { Vec::new() } else { garbage };
        file.write_all(&garbage).unwrap();

        let log = Log::open(dir.path()).unwrap();
        let kept = lines_of(&log);
        prop_assert_eq!(&kept[..], &lines[..kept.len()]);
        if cut == whole.len() {
            prop_assert_eq!(kept.len(), lines.len());
        }
        let mut expected = [0, 0];
        for (stream, bytes, ending) in &kept {
            expected[usize::from(*stream == Stream::Err)] +=
                bytes.len() as u64 + u64::from(*ending == Ending::Newline);
        }
        let mut feeder = Feeder::new(&log);
        prop_assert_eq!(feeder.consumed, expected);
        for line in &more {
            feeder.line(line);
        }
        feeder.writer.sync().unwrap();
        let both = [kept, more].concat();
        prop_assert_eq!(lines_of(&log), both.clone());
        drop((feeder, log));
        prop_assert_eq!(lines_of(&Log::open(dir.path()).unwrap()), both);
    }

    /// Killed while it is full, and fed again from where it says, a log says the same in the end.
    #[test]
    fn a_full_log_keeps_the_beginning_the_end_and_the_account_between(
        lines in proptest::collection::vec((prop_oneof![Just(Stream::Out), Just(Stream::Err)], 0..300usize), 1..120),
        kills in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..3),
    ) {
        let lines: Vec<Line> =
            lines.into_iter().map(|(stream, length)| (stream, vec![b'x'; length], Ending::Newline)).collect();
        let undisturbed = tempfile::tempdir().unwrap();
        let log = Log::open_bounded(undisturbed.path(), 3_000, 2_000).unwrap();
        let mut feeder = Feeder::new(&log);
        lines.iter().for_each(|line| feeder.line(line));
        feeder.writer.finish(Some(&End::Exited(0))).unwrap();
        let expected: Vec<Content> = all(&log, 0).into_iter().map(|record| record.content).collect();

        let total: u64 = lines.iter().map(|(_, bytes, _)| bytes.len() as u64 + 1).sum();
        let accounted: u64 = expected.iter().map(|content| match content {
            Content::Line { bytes, .. } => bytes.len() as u64 + 1,
            Content::Dropped { bytes } => *bytes,
        }).sum();
        prop_assert_eq!(accounted, total);
        for stream in STREAMS {
            let newest = |l: &&Line| l.0 == stream;
            let last = lines.iter().rev().find(newest).map(|l| &l.1);
            let kept = expected.iter().rev().find_map(|content| match content {
                Content::Line { stream: of, bytes, .. } if *of == stream => Some(bytes),
                _ => None,
            });
            prop_assert_eq!(last, kept);
        }

        let dir = tempfile::tempdir().unwrap();
        for (at, synced) in kills {
            let log = Log::open_bounded(dir.path(), 3_000, 2_000).unwrap();
            let mut feeder = Feeder::new(&log);
            feed(&mut feeder, &lines[..at.index(lines.len())]);
            if synced {
                feeder.writer.sync().unwrap();
            } else {
                feeder.writer.publish().unwrap();
            }
        }
        let log = Log::open_bounded(dir.path(), 3_000, 2_000).unwrap();
        let mut feeder = Feeder::new(&log);
        feed(&mut feeder, &lines);
        feeder.writer.finish(Some(&End::Exited(0))).unwrap();
        let found: Vec<Content> = all(&log, 0).into_iter().map(|record| record.content).collect();
        prop_assert_eq!(shape(&found), shape(&expected));
    }
}

/// Appends of each stream what the log does not have.
fn feed(feeder: &mut Feeder, lines: &[Line]) {
    let had = feeder.consumed;
    let mut offset = [0, 0];
    for line in lines {
        let stream = usize::from(line.0 == Stream::Err);
        offset[stream] += line.1.len() as u64 + 1;
        if offset[stream] > had[stream] {
            feeder.line(line);
        }
    }
}

/// Contents by stream, with what was dropped: the streams' order among themselves may differ.
fn shape(contents: &[Content]) -> (Vec<usize>, Vec<usize>, Option<u64>) {
    let lengths = |wanted| {
        let of = |content: &Content| match content {
            Content::Line { stream, bytes, .. } if *stream == wanted => Some(bytes.len()),
            _ => None,
        };
        contents.iter().filter_map(of).collect::<Vec<_>>()
    };
    let dropped = |content: &Content| match content {
        Content::Dropped { bytes } => Some(*bytes),
        Content::Line { .. } => None,
    };
    let dropped: Vec<u64> = contents.iter().filter_map(dropped).collect();
    assert!(dropped.len() <= 1, "one record says it all");
    (lengths(Stream::Out), lengths(Stream::Err), dropped.first().copied())
}

#[test]
fn a_flipped_byte_ends_what_is_read_there() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let mut feeder = Feeder::new(&log);
    let lines: Vec<Line> = (0..3u8).map(|n| (Stream::Out, vec![n; 10], Ending::Newline)).collect();
    for line in &lines {
        feeder.line(line);
    }
    feeder.writer.sync().unwrap();
    drop((feeder, log));
    let whole = std::fs::read(dir.path().join(NAME)).unwrap();
    for at in 8..whole.len() {
        let mut broken = whole.clone();
        broken[at] ^= 0x10;
        std::fs::write(dir.path().join(NAME), &broken).unwrap();
        let kept = lines_of(&Log::open(dir.path()).unwrap());
        assert_eq!(kept[..], lines[..kept.len()], "{at}");
        assert!(kept.len() < 3, "{at}");
    }
}

#[test]
fn a_reader_begins_at_any_record_and_sees_what_is_published_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let mut feeder = Feeder::new(&log);
    let lines: Vec<Line> =
        (0..5000u32).map(|n| (Stream::Out, n.to_string().repeat(20).into_bytes(), Ending::Newline)).collect();
    let mut reader = log.reader(7);
    for (n, line) in lines.iter().enumerate() {
        feeder.line(line);
        if n % 100 == 0 {
            feeder.writer.publish().unwrap();
        }
    }
    assert!(log.extent().records < 5000, "what is not published is not seen");
    feeder.writer.publish().unwrap();
    assert_eq!(reader.read(0).unwrap()[0].number, 7);
    for log in [log.clone(), {
        drop((feeder, log));
        Log::open(dir.path()).unwrap()
    }] {
        for from in [0, 1, 100, 101, 2500, 4999, 5000, 9000] {
            let records = all(&log, from);
            assert_eq!(records.len() as u64, 5000u64.saturating_sub(from));
            assert!(records.first().is_none_or(|first| first.number == from));
        }
    }
}

#[test]
fn there_is_one_writer_and_the_next_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let mut feeder = Feeder::new(&log);
    assert!(log.writer().is_none());
    feeder.line(&(Stream::Out, b"not yet published".to_vec(), Ending::Newline));
    drop(feeder);
    let mut feeder = Feeder::new(&log);
    assert_eq!(feeder.consumed, [18, 0]);
    feeder.writer.publish().unwrap();
    assert_eq!(log.extent().records, 1);
}

#[test]
fn a_finished_log_says_how_and_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let watch = log.watch();
    let mut feeder = Feeder::new(&log);
    feeder.line(&(Stream::Err, b"x".to_vec(), Ending::Last));
    feeder.writer.finish(Some(&End::Exited(3))).unwrap();
    assert_eq!(*watch.borrow(), Extent { records: 1, finished: true });
    for log in [log.clone(), {
        drop(log);
        Log::open(dir.path()).unwrap()
    }] {
        assert_eq!(log.finished().unwrap().end, Some(End::Exited(3)));
        let mut writer = log.writer().unwrap();
        assert!(matches!(writer.append(Stream::Out, b"", Ending::Newline, 1), Err(Error::Finished { .. })));
        assert!(matches!(writer.finish(None), Err(Error::Finished { .. })));
        assert_eq!(log.extent(), Extent { records: 1, finished: true });
    }
}

#[test]
fn only_the_owner_reads_it_and_what_is_no_log_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let runs = dir.path().join("runs/one");
    drop(Log::open(&runs).unwrap());
    let path = runs.join(NAME);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&runs).unwrap().permissions().mode() & 0o777, 0o700);
    for (content, newer) in [(&b"vcodlog\x03and more"[..], true), (b"something else", false), (b"some", false)] {
        std::fs::write(&path, content).unwrap();
        match Log::open(&runs) {
            Err(Error::Newer { found: 3, .. }) => assert!(newer),
            Err(Error::NotALog { .. }) => assert!(!newer),
            other => panic!("{other:?}"),
        }
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
}

/// The file of version 1: a daemon of tomorrow still has to read it.
#[test]
fn the_file_is_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"vcodlog\x01");
    let line = b"\x01\0\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x01\0\x03\0\0\0\0\0\0\0hi";
    bytes.extend_from_slice(b"\x1d\0\0\0");
    let mut crc = flate2::Crc::new();
    crc.update(line);
    bytes.extend_from_slice(&crc.sum().to_le_bytes());
    bytes.extend_from_slice(line);
    let mut file = OpenOptions::new().create_new(true).write(true).open(dir.path().join(NAME)).unwrap();
    file.write_all(&bytes).unwrap();
    let log = Log::open(dir.path()).unwrap();
    let content = Content::Line { stream: Stream::Out, ending: Ending::Newline, bytes: b"hi".to_vec() };
    assert_eq!(all(&log, 0), [Record { number: 0, time_ms: 5, content }]);
    let mut writer = log.writer().unwrap();
    assert_eq!(writer.position(Stream::Out), 3);
    // What is added can be read by the daemon that began it.
    writer.append_lines(Stream::Out, b"a\nbc\n", 8).unwrap();
    writer.sync().unwrap();
    drop((writer, log));
    assert_eq!(std::fs::read(dir.path().join(NAME)).unwrap()[..8], *b"vcodlog\x01");
    let mut file = Frames::new(Arc::new(File::open(dir.path().join(NAME)).unwrap()), START);
    let mut frames = 0;
    while let Next::Frame { frame, .. } = file.next(u64::MAX).unwrap() {
        assert!(matches!(frame, Frame::Line { .. }), "{frame:?}");
        frames += 1;
    }
    assert_eq!(frames, 3);
    let log = Log::open(dir.path()).unwrap();
    assert_eq!(all(&log, 1).len(), 2);
    assert_eq!(log.writer().unwrap().position(Stream::Out), 8);
}

/// Where a piece begins, and how many bytes of each stream are there after it.
type Piece = ([u64; 2], [usize; 2]);

/// All of the output from there on, in pieces of at most about `room` bytes; where each begins, and behind how many bytes of
/// each stream.
fn pieces(log: &Log, from: [u64; 2], room: usize) -> (Vec<Piece>, [Vec<u8>; 2]) {
    let mut reader = log.output(from);
    let (mut places, mut streams) = (Vec::new(), [Vec::<u8>::new(), Vec::new()]);
    let mut at = from;
    while let Some(output) = reader.read(room, log.extent().records).unwrap() {
        assert!(output.from == at && output.next > at, "{output:?}");
        at = output.next;
        places.push((output.from, [streams[0].len(), streams[1].len()]));
        let mut size = 0;
        for part in output.parts {
            let Part::Bytes { stream, bytes } = part else { panic!("nothing was dropped") };
            size += bytes.len();
            streams[usize::from(stream == Stream::Err)].extend(bytes);
        }
        assert!(size <= room);
    }
    assert_eq!(at, [log.extent().records, 0]);
    (places, streams)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_output_is_the_bytes_that_were_written_from_any_place_on(
        lines in proptest::collection::vec((line(), any::<bool>()), 1..40),
        room in prop_oneof![1..50usize, 1..100_000usize],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let mut feeder = Feeder::new(&log);
        let mut expected = [Vec::new(), Vec::new()];
        for ((stream, bytes, ending), whole) in &lines {
            let to = &mut expected[usize::from(*stream == Stream::Err)];
            if *whole {
                // Several lines in one frame.
                let text = [bytes, &b"\n"[..], bytes, b"\n\nx\n"].concat();
                to.extend_from_slice(&text);
                let consumed = &mut feeder.consumed[usize::from(*stream == Stream::Err)];
                *consumed += text.len() as u64;
                feeder.writer.append_lines(*stream, &text, *consumed).unwrap();
            } else {
                let bytes: Vec<u8> = bytes.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect();
                to.extend_from_slice(&bytes);
                if *ending == Ending::Newline {
                    to.push(b'\n');
                }
                feeder.line(&(*stream, bytes, *ending));
            }
        }
        feeder.writer.publish().unwrap();
        let (places, streams) = pieces(&log, [0, 0], room);
        prop_assert_eq!(&streams, &expected);
        for (from, before) in places.iter().step_by(1 + places.len() / 7) {
            let (_, rest) = pieces(&log, *from, 1000);
            for stream in [0, 1] {
                prop_assert!(rest[stream] == expected[stream][before[stream]..], "{:?}", from);
            }
        }
    }
}

#[test]
fn a_line_that_was_shown_before_its_end_came_is_closed_with_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let mut feeder = Feeder::new(&log);
    feeder.line(&(Stream::Out, b"half".to_vec(), Ending::Cut));
    feeder.writer.sync().unwrap();
    drop((feeder, log));
    let log = Log::open(dir.path()).unwrap();
    log.writer().unwrap().finish(None).unwrap();
    let last = (Stream::Out, Vec::new(), Ending::Last);
    assert_eq!(lines_of(&log), [(Stream::Out, b"half".to_vec(), Ending::Cut), last]);
    assert_eq!(pieces(&log, [0, 0], 100).1[0], b"half");
}
