use std::pin::pin;

use futures_util::{FutureExt, StreamExt};
use guest::run::End;
use proptest::prelude::*;
use run::Stream::{Err as Stderr, Out};

use super::super::log::Writer;
use super::*;

fn origin() -> Origin {
    Origin {
        workspace: "01jd0000000000000000000000".parse().unwrap(),
        run: "01jd0000000000000000000001".parse().unwrap(),
    }
}

fn append(writer: &mut Writer, stream: run::Stream, bytes: &[u8], ending: Ending) {
    let consumed = writer.position(stream) + bytes.len() as u64 + u64::from(ending == Ending::Newline);
    writer.append(stream, bytes, ending, consumed).unwrap();
}

fn lines(writer: &mut Writer, range: std::ops::Range<u32>) {
    for n in range {
        append(writer, Out, n.to_string().as_bytes(), Ending::Newline);
    }
    writer.publish().unwrap();
}

async fn now(log: &Log, from: Option<[u64; 2]>) -> Vec<Event> {
    subscribe(log, Format::Plain, origin(), from, true).map(|event| event.unwrap()).collect().await
}

fn text(event: &Event) -> &[u8] {
    match &event.body {
        EventBody::Output { text, .. } => text.as_slice(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn from_any_number_on_the_events_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    // More than a batch.
    lines(&mut log.writer().unwrap(), 0..20_000);
    let all = now(&log, None).await;
    assert_eq!(all.len(), 20_000);
    assert!((0..).zip(&all).all(|(n, event)| event.seq == [n, 0] && text(event) == n.to_string().as_bytes()));
    for from in [[0, 0], [0, 1], [9, 0], [12_345, 0], [19_999, 0], [19_999, 1], [30_000, 0]] {
        let expected: Vec<Event> = all.iter().filter(|event| event.seq >= from).cloned().collect();
        assert_eq!(now(&log, Some(from)).await, expected, "{from:?}");
    }
}

#[tokio::test]
async fn a_reader_is_live_until_the_log_is_finished_and_a_slow_one_delays_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let mut writer = log.writer().unwrap();
    let mut slow = pin!(subscribe(&log, Format::Plain, origin(), None, false));
    let mut live = pin!(subscribe(&log, Format::Plain, origin(), Some([1, 0]), false));
    assert!(live.next().now_or_never().is_none());
    lines(&mut writer, 0..1);
    lines(&mut writer, 1..3);
    assert_eq!(slow.next().await.unwrap().unwrap().seq, [0, 0]);
    assert_eq!(live.next().await.unwrap().unwrap().seq, [1, 0]);
    assert_eq!(live.next().await.unwrap().unwrap().seq, [2, 0]);
    lines(&mut writer, 3..3000);
    for n in 3..3000 {
        assert_eq!(live.next().await.unwrap().unwrap().seq, [n, 0]);
    }
    assert!(live.next().now_or_never().is_none(), "the run goes on");
    writer.finish(Some(&End::Exited(0))).unwrap();
    assert!(live.next().await.is_none());
    assert!(live.next().await.is_none());
    let rest: Vec<_> = slow.collect().await;
    assert_eq!(rest.len(), 2999);
}

#[tokio::test]
async fn with_once_a_reader_ends_at_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    assert!(now(&log, None).await.is_empty());
    let mut writer = log.writer().unwrap();
    lines(&mut writer, 0..5);
    let once = subscribe(&log, Format::Plain, origin(), None, true);
    lines(&mut writer, 5..9);
    assert_eq!(once.count().await, 5);
}

#[tokio::test]
async fn pieces_of_a_line_are_one_line_with_the_number_of_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let mut writer = log.writer().unwrap();
    append(&mut writer, Out, b"one ", Ending::Cut);
    append(&mut writer, Stderr, b"between", Ending::Newline);
    append(&mut writer, Out, b"line", Ending::Cut);
    append(&mut writer, Out, b"", Ending::Newline);
    append(&mut writer, Out, b"end", Ending::Last);
    writer.publish().unwrap();
    let events = now(&log, None).await;
    let found: Vec<_> = events.iter().map(|event| (event.seq, text(event))).collect();
    assert_eq!(found, [([1, 0], &b"between"[..]), ([3, 0], b"one line"), ([4, 0], b"end")]);
}

#[tokio::test]
async fn an_endless_line_is_handed_on_in_bounded_parts() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let mut writer = log.writer().unwrap();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..17 {
        append(&mut writer, Out, &piece, Ending::Cut);
    }
    append(&mut writer, Out, b"end", Ending::Newline);
    writer.publish().unwrap();
    let events = now(&log, None).await;
    let found: Vec<_> = events.iter().map(|event| event.seq).collect();
    assert_eq!(found, [[8, 0], [16, 0], [17, 0]]);
}

#[tokio::test]
async fn an_agents_own_format_is_parsed_and_judged() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let mut writer = log.writer().unwrap();
    let output = include_bytes!("../../agents/testdata/claude-401.jsonl");
    let mut parser = agents::parser(Format::ClaudeStreamJson);
    let mut expected = Vec::new();
    for (number, line) in (0..).zip(output.split(|byte| *byte == b'\n')) {
        append(&mut writer, Out, line, Ending::Newline);
        let bodies = parser.line(Out, line);
        expected.extend((0..).zip(bodies).map(|(sub, body)| ([number, sub], body)));
    }
    writer.finish(Some(&End::Exited(1))).unwrap();
    let events: Vec<Event> =
        subscribe(&log, Format::ClaudeStreamJson, origin(), None, false).map(|event| event.unwrap()).collect().await;
    assert_eq!(events.into_iter().map(|event| (event.seq, event.body)).collect::<Vec<_>>(), expected);
    let verdict = verdict(&log, Format::ClaudeStreamJson).await.unwrap();
    assert_eq!(verdict, parser.verdict());
    assert!(verdict.endpoint_failed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// What a live reader saw is what a later one sees, however the log grew.
    #[test]
    fn an_event_never_changes(
        records in proptest::collection::vec((any::<bool>(), "[a-z]{0,9}", 0..3u8), 1..60),
        step in 1..7usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let live = runtime.block_on(async {
            let mut live = pin!(subscribe(&log, Format::Plain, origin(), None, false));
            let mut seen = Vec::new();
            let mut writer = log.writer().unwrap();
            for some in records.chunks(step) {
                for (out, text, ending) in some {
                    let stream = if *out { Out } else { Stderr };
                    let ending = [Ending::Newline, Ending::Cut, Ending::Last][usize::from(*ending)];
                    append(&mut writer, stream, text.as_bytes(), ending);
                }
                writer.publish().unwrap();
                while let Some(event) = live.next().now_or_never() {
                    seen.push(event.unwrap().unwrap());
                }
            }
            writer.finish(None).unwrap();
            seen.extend(live.map(|event| event.unwrap()).collect::<Vec<_>>().await);
            seen
        });
        let log = { drop(log); Log::open(dir.path()).unwrap() };
        prop_assert_eq!(runtime.block_on(now(&log, None)), live);
    }
}
