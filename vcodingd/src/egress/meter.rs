//! Tokens, as the provider says while its answer passes.
//!
//! The answer is not kept: a scanner follows its nesting byte by byte and keeps only objects
//! called `usage` at the places where the Messages API has them: in the answer or event itself,
//! and in an event's `message`. What a model says lies deeper or within a text.

use std::sync::Arc;

use serde::Deserialize;

use super::usage::{Counts, Tokens};

/// A longer `usage` is passed over.
const MOST: usize = 8 << 10;
const KEY: &[u8] = b"usage";
/// An event's `message` is at depth 1 and its `usage` at 2; an answer's own is at 1.
const DEEPEST: u32 = 2;

/// Counts the tokens of one answer.
pub(super) struct Meter {
    scanner: Scanner,
    /// An answer that is a stream of events has one JSON text a line.
    lines: bool,
    seen: Tokens,
    counts: Arc<Counts>,
}

impl Meter {
    pub fn new(counts: Arc<Counts>, is_events: bool) -> Self {
        Self { scanner: Scanner::default(), lines: is_events, seen: Tokens::default(), counts }
    }

    /// The next bytes of the answer, in any pieces.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.lines && byte == b'\n' {
                self.scanner = Scanner::default();
            } else if let Some(usage) = self.scanner.step(byte) {
                self.count(&usage);
            }
        }
    }

    /// Events repeat what was counted before them, with what came since.
    fn count(&mut self, usage: &[u8]) {
        let Ok(usage) = serde_json::from_slice::<Said>(usage) else { return };
        let now =
            [usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens];
        let mut more = Tokens::default();
        for ((seen, more), now) in self.seen.0.iter_mut().zip(&mut more.0).zip(now) {
            let now = now.unwrap_or(0).max(*seen);
            *more = now - *seen;
            *seen = now;
        }
        self.counts.add(more);
    }
}

#[derive(Deserialize)]
struct Said {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

/// Follows a JSON text without judging it; text between values is passed over.
#[derive(Default)]
struct Scanner {
    depth: u32,
    text: Text,
    /// How much of [`KEY`] the text so far is; `None` once it is something else.
    matched: Option<usize>,
    at: At,
    /// An object called `usage`, so far, and the depth that it lies in.
    found: Option<(u32, Vec<u8>)>,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Text {
    #[default]
    Outside,
    Inside,
    Escaped,
}

/// How far the way to `"usage": {` has been gone.
#[derive(Default, Clone, Copy, PartialEq)]
enum At {
    #[default]
    Elsewhere,
    Word,
    Colon,
}

impl Scanner {
    /// A finished `usage`, braces and all.
    fn step(&mut self, byte: u8) -> Option<Vec<u8>> {
        if let Some((_, found)) = &mut self.found {
            found.push(byte);
            if found.len() > MOST {
                self.found = None;
            }
        }
        match self.text {
            Text::Escaped => self.text = Text::Inside,
            Text::Inside => self.inside(byte),
            Text::Outside => return self.outside(byte),
        }
        None
    }

    fn inside(&mut self, byte: u8) {
        match byte {
            b'\\' => {
                self.text = Text::Escaped;
                self.matched = None;
            }
            b'"' => {
                self.text = Text::Outside;
                self.at = if self.matched == Some(KEY.len()) { At::Word } else { At::Elsewhere };
            }
            _ => self.matched = self.matched.filter(|&n| KEY.get(n) == Some(&byte)).map(|n| n + 1),
        }
    }

    fn outside(&mut self, byte: u8) -> Option<Vec<u8>> {
        let before = std::mem::take(&mut self.at);
        match byte {
            b'"' => {
                self.text = Text::Inside;
                self.matched = Some(0);
            }
            b' ' | b'\t' | b'\r' | b'\n' => self.at = before,
            b':' if before == At::Word && (1..=DEEPEST).contains(&self.depth) => self.at = At::Colon,
            b'{' | b'[' => {
                if byte == b'{' && before == At::Colon && self.found.is_none() {
                    self.found = Some((self.depth, vec![byte]));
                }
                self.depth = self.depth.saturating_add(1);
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.found.as_ref().is_some_and(|(depth, _)| *depth == self.depth) {
                    return self.found.take().map(|(_, usage)| usage);
                }
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENTS: &str = concat!(
        "event: message_start\n",
        r#"data: {"type":"message_start","message":{"id":"m","content":[],"usage":{"input_tokens":100,"cache_creation_input_tokens":7,"cache_read_input_tokens":30,"output_tokens":1,"cache_creation":{"ephemeral":7}}}}"#,
        "\n\nevent: content_block_delta\n",
        r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"\"usage\":{\"output_tokens\":999}}"}}"#,
        "\n\n",
        r#"data: {"type":"content_block_start","content_block":{"type":"tool_use","input":{"usage":{"output_tokens":999}}}}"#,
        "\n\n: { a comment \n\n",
        r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}, "usage" : {"output_tokens":12}}"#,
        "\n\n",
        r#"data: {"type":"message_delta","delta":{},"usage":{"input_tokens":100,"output_tokens":20}}"#,
        "\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );

    fn measured(events: bool, pieces: &[&[u8]]) -> [u64; 4] {
        let counts = Arc::new(Counts::default());
        let mut meter = Meter::new(Arc::clone(&counts), events);
        for piece in pieces {
            meter.feed(piece);
        }
        let usage = counts.snapshot();
        [usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens]
    }

    #[test]
    fn a_stream_is_counted_once_whatever_the_model_says() {
        assert_eq!(measured(true, &[EVENTS.as_bytes()]), [100, 20, 30, 7]);
    }

    #[test]
    fn a_whole_answer_is_counted_on_one_line_or_many() {
        let answer = serde_json::json!({
            "content": [{"type": "text", "text": "\"usage\": {\"output_tokens\": 5}"}, {"usage": {"output_tokens": 5}}],
            "type": "message",
            "usage": {"input_tokens": 3, "output_tokens": 4, "server_tool_use": {"web_search_requests": 0}},
        });
        assert_eq!(measured(false, &[answer.to_string().as_bytes()]), [3, 4, 0, 0]);
        assert_eq!(measured(false, &[serde_json::to_string_pretty(&answer).unwrap().as_bytes()]), [3, 4, 0, 0]);
    }

    #[test]
    fn what_is_no_usage_counts_nothing() {
        for text in [
            r#"{"usage":7}"#,
            r#"{"usage":[{"output_tokens":5}]}"#,
            r#"{"usage":{"output_tokens":-5}}"#,
            r#"{"usage":{"output_tokens":"5"}}"#,
            r#"{"usage":"usage":}"#,
            r#"{"usages":{"output_tokens":5}}"#,
            r#"{"\u0075sage":{"output_tokens":5}}"#,
            r#"["usage",{"output_tokens":5}]"#,
            r#""usage":{"output_tokens":5}"#,
        ] {
            assert_eq!(measured(false, &[text.as_bytes()]), [0; 4], "{text}");
        }
        let long = format!(r#"{{"usage":{{"x":"{}","output_tokens":5}}}}"#, "x".repeat(MOST));
        assert_eq!(measured(false, &[long.as_bytes()]), [0; 4]);
    }

    proptest! {
        #[test]
        fn how_the_stream_is_cut_does_not_matter(cuts in proptest::collection::vec(0..EVENTS.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (mut pieces, mut from) = (Vec::new(), 0);
            for cut in cuts {
                pieces.push(&EVENTS.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&EVENTS.as_bytes()[from..]);
            prop_assert_eq!(measured(true, &pieces), [100, 20, 30, 7]);
        }

        #[test]
        fn no_bytes_make_it_stumble(bytes in proptest::collection::vec(any::<u8>(), 0..300), events: bool) {
            measured(events, &[&bytes]);
        }
    }
}
