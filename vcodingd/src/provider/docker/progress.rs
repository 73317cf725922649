//! A build's messages, from either builder, as events and as the story of a failure.

use std::collections::{HashMap, VecDeque};

use crate::provider::{BuildEvent, Error};

/// How much of the failing step's output an error carries.
pub const OUTPUT_LINES: usize = 40;
/// A longer line of output is cut.
const LINE_BYTES: usize = 2000;
/// A longer name of a step is cut.
const NAME_CHARS: usize = 300;
/// Steps beyond this many are not told apart; no Dockerfile has them.
const MAX_STEPS: usize = 10_000;
/// The classic builder has one step at a time.
const CLASSIC: &str = "classic";

#[derive(Debug, Default)]
pub(super) struct Progress {
    steps: HashMap<String, Step>,
    begun: u32,
}

#[derive(Debug, Default)]
struct Step {
    /// 0 until it began.
    number: u32,
    name: String,
    ended: bool,
    error: String,
    line: Vec<u8>,
    tail: VecDeque<String>,
    since: Option<std::time::Instant>,
}

impl Progress {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// A step's state as BuildKit tells it, again with every change.
    pub fn step(
        &mut self,
        id: &str,
        name: &str,
        began: bool,
        cached: bool,
        elapsed_ms: Option<u64>,
        error: &str,
    ) -> Vec<BuildEvent> {
        let mut said = Vec::new();
        if self.steps.len() >= MAX_STEPS && !self.steps.contains_key(id) {
            return said;
        }
        let step = self.steps.entry(id.to_owned()).or_default();
        if !name.is_empty() {
            step.name = name.chars().take(NAME_CHARS).collect();
        }
        if (began || cached) && step.number == 0 {
            self.begun += 1;
            step.number = self.begun;
            let (step, name) = (step.number, step.name.clone());
            said.push(if cached { BuildEvent::Cached { step, name } } else { BuildEvent::Started { step, name } });
        }
        if cached {
            step.ended = true;
        }
        if !error.is_empty() && step.error.is_empty() {
            step.error = error.chars().take(LINE_BYTES).collect();
            step.ended = true;
            said.extend(step.flush());
            said.push(BuildEvent::Failed { step: step.number, cause: step.error.clone() });
        } else if let (Some(elapsed_ms), false) = (elapsed_ms, step.ended) {
            step.ended = true;
            said.extend(step.flush());
            said.push(BuildEvent::Done { step: step.number, elapsed_ms });
        }
        said
    }

    /// Output of a step, in pieces that need not end with a line.
    pub fn output(&mut self, id: &str, bytes: &[u8]) -> Vec<BuildEvent> {
        if self.steps.len() >= MAX_STEPS && !self.steps.contains_key(id) {
            return Vec::new();
        }
        self.steps.entry(id.to_owned()).or_default().output(bytes)
    }

    /// The classic builder's text: `Step 2/5 : RUN make`, ` ---> Using cache`, output, all in one.
    pub fn classic(&mut self, text: &str) -> Vec<BuildEvent> {
        let mut said = Vec::new();
        if let Some((_, name)) = text.strip_prefix("Step ").and_then(|rest| rest.split_once(" : ")) {
            said.extend(self.end_classic());
            self.begun += 1;
            let name: String = name.trim_end().chars().take(NAME_CHARS).collect();
            said.push(BuildEvent::Started { step: self.begun, name: name.clone() });
            let step = Step { number: self.begun, name, since: Some(std::time::Instant::now()), ..Step::default() };
            self.steps.insert(CLASSIC.to_owned(), step);
        } else if text.starts_with(" ---> Using cache") {
            if let Some(step) = self.steps.get_mut(CLASSIC) {
                step.ended = true;
                said.push(BuildEvent::Cached { step: step.number, name: step.name.clone() });
            }
        } else if !text.starts_with(" ---> ")
            && !text.starts_with("Successfully ")
            && !text.starts_with("Removing intermediate")
        {
            said.extend(self.output(CLASSIC, text.as_bytes()));
        }
        said
    }

    fn end_classic(&mut self) -> Vec<BuildEvent> {
        let Some(step) = self.steps.get_mut(CLASSIC) else { return Vec::new() };
        let mut said = step.flush();
        if !step.ended {
            step.ended = true;
            let elapsed = step.since.map(|since| since.elapsed().as_millis()).unwrap_or_default();
            said.push(BuildEvent::Done { step: step.number, elapsed_ms: u64::try_from(elapsed).unwrap_or(u64::MAX) });
        }
        said
    }

    /// The last words of a build that went well.
    pub fn finish(&mut self) -> Vec<BuildEvent> {
        self.end_classic()
    }

    /// The error of a build that did not, and its last events. The step is the one that failed
    /// by itself, not those that were given up because of it.
    pub fn failed(&mut self, cause: &str) -> (Error, Vec<BuildEvent>) {
        let cause: String = cause.trim().chars().take(LINE_BYTES).collect();
        let mut said = Vec::new();
        let culprit = self
            .steps
            .values_mut()
            .filter(|step| !step.error.is_empty() && !step.error.contains("context canceled"))
            .min_by_key(|step| step.number);
        let step = match culprit {
            Some(step) => Some(step),
            None => self.steps.get_mut(CLASSIC).filter(|step| step.number > 0),
        };
        let Some(step) = step else {
            return (Error::BuildFailed { step: "the Dockerfile".to_owned(), cause, output: Vec::new() }, said);
        };
        said.extend(step.flush());
        if step.error.is_empty() {
            said.push(BuildEvent::Failed { step: step.number, cause: cause.clone() });
        }
        let output = std::mem::take(&mut step.tail).into();
        (Error::BuildFailed { step: step.name.clone(), cause, output }, said)
    }
}

impl Step {
    fn output(&mut self, bytes: &[u8]) -> Vec<BuildEvent> {
        let mut said = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                said.extend(self.flush_line());
            } else if self.line.len() < LINE_BYTES {
                self.line.push(byte);
            }
        }
        said
    }

    fn flush(&mut self) -> Vec<BuildEvent> {
        if self.line.is_empty() { Vec::new() } else { self.flush_line() }
    }

    fn flush_line(&mut self) -> Vec<BuildEvent> {
        let bytes = std::mem::take(&mut self.line);
        // What a progress bar has overwritten was not there to be read.
        let text = String::from_utf8_lossy(&bytes);
        let line = text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default().to_owned();
        if self.tail.len() == OUTPUT_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.clone());
        vec![BuildEvent::Log { step: self.number, line }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_step_is_named_with_the_end_of_its_output() {
        let mut progress = Progress::default();
        progress.step("a", "[1/3] FROM base", true, true, None, "");
        progress.step("b", "[2/3] RUN make", true, false, None, "");
        progress.step("c", "[other 1/1] RUN slow", true, false, None, "");
        for i in 0..100 {
            progress.output("b", format!("line {i}\npart").as_bytes());
            progress.output("b", b" two\n");
        }
        progress.step("c", "", true, false, Some(5), "context canceled");
        progress.step("b", "", true, false, Some(7), "exit code: 3");
        let (error, _) = progress.failed("executor failed: exit code: 3");
        let Error::BuildFailed { step, cause, output } = error else { panic!("{error}") };
        assert_eq!((step.as_str(), cause.as_str()), ("[2/3] RUN make", "executor failed: exit code: 3"));
        assert_eq!(output.len(), OUTPUT_LINES);
        assert_eq!(&output[38..], ["line 99", "part two"]);
    }

    #[test]
    fn each_change_is_said_once() {
        let mut progress = Progress::default();
        assert_eq!(progress.step("a", "A", false, false, None, ""), []);
        let started = BuildEvent::Started { step: 1, name: "A".into() };
        assert_eq!(progress.step("a", "A", true, false, None, ""), [started]);
        assert_eq!(progress.step("a", "A", true, false, None, ""), []);
        assert_eq!(progress.output("a", b"10%\r50%\rdone\r\nhalf"), [BuildEvent::Log { step: 1, line: "done".into() }]);
        let end = [BuildEvent::Log { step: 1, line: "half".into() }, BuildEvent::Done { step: 1, elapsed_ms: 3 }];
        assert_eq!(progress.step("a", "A", true, false, Some(3), ""), end);
        assert_eq!(progress.step("a", "A", true, false, Some(3), ""), []);
    }

    #[test]
    fn the_classic_builders_text_gives_the_same_events() {
        let mut progress = Progress::default();
        assert_eq!(
            progress.classic("Step 1/2 : FROM base\n"),
            [BuildEvent::Started { step: 1, name: "FROM base".into() }]
        );
        assert_eq!(progress.classic(" ---> Using cache\n"), [BuildEvent::Cached { step: 1, name: "FROM base".into() }]);
        assert_eq!(
            progress.classic("Step 2/2 : RUN false\n"),
            [BuildEvent::Started { step: 2, name: "RUN false".into() }]
        );
        assert_eq!(progress.classic("oops\n"), [BuildEvent::Log { step: 2, line: "oops".into() }]);
        let (error, said) = progress.failed("exit 1");
        assert_eq!(said, [BuildEvent::Failed { step: 2, cause: "exit 1".into() }]);
        assert!(matches!(error, Error::BuildFailed { step, output, .. } if step == "RUN false" && output == ["oops"]));
    }

    #[test]
    fn endless_output_is_bounded() {
        let mut progress = Progress::default();
        progress.step("a", &"n".repeat(5000), true, false, None, "");
        progress.output("a", &vec![b'x'; 10 << 20]);
        let said = progress.step("a", "", true, false, Some(1), "");
        assert!(matches!(&said[0], BuildEvent::Log { line, .. } if line.len() == LINE_BYTES));
    }
}
