//! What the model will say, and what must have happened before it says it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A conversation from the model's side.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Stands in the ids of the calls, so that results of another script are not mistaken for this one's.
    pub name: String,
    /// The one key (`x-api-key`) that is taken, others are answered with 401; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the user's own words must contain; empty: anything.
    #[serde(default)]
    pub prompt: String,
    /// The answers in order. Every step but the last makes a call.
    pub steps: Vec<Step>,
    /// What a request without tools is told (a title, a summary: no part of the conversation).
    #[serde(default = "side")]
    pub side: String,
}

/// The files that [`Script::make_check_pass`] works on, by their names.
pub const CHECK: [(&str, &str); 2] = [
    ("answer.txt", "the answer is 41\n"),
    ("check.sh", "grep -q 'is 42$' answer.txt && echo PASS || { echo FAIL; exit 3; }\n"),
];

fn side() -> String {
    "ok".to_owned()
}

/// One answer of the model.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The text of the answer, before its call.
    #[serde(default)]
    pub say: String,
    /// The tool the agent shall use; none ends the turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,
    /// What the result of this step's call must look like before the next answer is sent.
    #[serde(default)]
    pub expect: Expect,
    /// What goes wrong when this step is asked for, in order; after them comes the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// A use of one of the agent's tools.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The tool's name, as the agent lists it in the request.
    pub tool: String,
    /// Its input, as the tool's schema wants it.
    pub input: Value,
}

/// What a real result contains.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Each of these texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contains: Vec<String>,
    /// None of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// Whether the agent marked it as an error; none: either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
}

/// What goes wrong on cue.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// An error of the endpoint: 401, 429, 500, 529, …
    Status {
        /// The HTTP status.
        status: u16,
        /// Seconds, as `retry-after`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u32>,
        /// How often; none: always.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        times: Option<u32>,
    },
    /// The connection closes after half of the answer.
    Cut {
        /// How often; none: always.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        times: Option<u32>,
    },
    /// The stream begins and nothing more comes, until the client goes.
    Silent {
        /// How often; none: always.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        times: Option<u32>,
    },
    /// The whole answer, but with a pause before each of its events.
    Slow {
        /// The pause; a fraction of a second shows that nobody waits for the end.
        pause_ms: u64,
        /// How often; none: always.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        times: Option<u32>,
    },
}

impl Fault {
    fn times(&self) -> Option<u32> {
        let (Self::Status { times, .. } | Self::Cut { times } | Self::Silent { times } | Self::Slow { times, .. }) =
            self;
        *times
    }
}

impl Step {
    /// The fault for the `asked`-th request (from 0) for this step, none once they are used up.
    pub(crate) fn fault(&self, asked: u32) -> Option<&Fault> {
        let mut before = 0_u32;
        self.faults.iter().find(|fault| match fault.times() {
            None => true,
            Some(times) => {
                before = before.saturating_add(times);
                asked < before
            }
        })
    }
}

/// A tool's result as the request carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToolResult {
    pub id: String,
    pub text: String,
    pub is_error: bool,
}

/// The conversation so far, as far as the script cares.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The user's own words, all of them.
    pub words: String,
    /// In the order of the request.
    pub results: Vec<ToolResult>,
}

impl Script {
    /// Reads a script from JSON; `{work}` in any string of it becomes `work`, the directory the agent works in.
    ///
    /// # Errors
    /// No valid script: the message says where. A step in the middle without a call could never be passed.
    pub fn parse(json: &str, work: &str) -> anyhow::Result<Self> {
        let mut value: Value = serde_json::from_str(json)?;
        replace(&mut value, "{work}", work);
        let script: Self = serde_json::from_value(value)?;
        script.check()?;
        Ok(script)
    }

    /// "Make the failing test pass" of the demo's project: runs pytest and must see the failure, reads the file and must
    /// see the mistake, edits it, runs pytest and must see it pass.
    pub fn fix_failing_test(work: &str) -> Self {
        Self::parse(include_str!("../scripts/fix-failing-test.json"), work)
            .expect("the script in the source tree is valid: a test reads it")
    }

    /// A check by the shell alone: runs `check.sh` and must see `FAIL`, reads `answer.txt` and must see `the answer is 41`,
    /// makes it 42, runs the check and must see `PASS`. For a [`CHECK`] in an image without Python.
    pub fn make_check_pass(work: &str) -> Self {
        Self::parse(include_str!("../scripts/make-check-pass.json"), work)
            .expect("the script in the source tree is valid: a test reads it")
    }

    /// A script of the source tree by its name.
    pub fn named(name: &str, work: &str) -> Option<Self> {
        match name {
            "fix-failing-test" => Some(Self::fix_failing_test(work)),
            "make-check-pass" => Some(Self::make_check_pass(work)),
            _ => None,
        }
    }

    /// The id under which step `index` makes its call.
    pub fn call_id(&self, index: usize) -> String {
        format!("toolu_{}_{index}", self.name)
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let Some((last, before)) = self.steps.split_last() else {
            anyhow::bail!("script {}: it has no steps", self.name);
        };
        if let Some(index) = before.iter().position(|step| step.call.is_none()) {
            anyhow::bail!("script {}: step {index} makes no call, so the steps after it never come", self.name);
        }
        anyhow::ensure!(
            last.call.is_none(),
            "script {}: the last step makes a call, so the turn never ends",
            self.name
        );
        Ok(())
    }

    /// The step whose answer is due, or why this request has no right to one.
    pub(crate) fn due(&self, progress: &Progress) -> Result<usize, String> {
        if !progress.words.contains(&self.prompt) {
            return Err(format!("the prompt does not contain {:?}", self.prompt));
        }
        for (index, result) in progress.results.iter().enumerate() {
            if result.id != self.call_id(index) {
                return Err(format!("result {index} is for call {:?}, expected {:?}", result.id, self.call_id(index)));
            }
            let Some(step) = self.steps.get(index).filter(|step| step.call.is_some()) else {
                return Err(format!("result {index} is for a call that was never made"));
            };
            step.expect.judge(result).map_err(|why| format!("step {index}: {why}"))?;
        }
        Ok(progress.results.len())
    }
}

impl Expect {
    fn judge(&self, result: &ToolResult) -> Result<(), String> {
        let shown: String = result.text.chars().take(600).collect();
        if let Some(text) = self.contains.iter().find(|text| !result.text.contains(*text)) {
            return Err(format!("the result does not contain {text:?}: {shown}"));
        }
        if let Some(text) = self.lacks.iter().find(|text| result.text.contains(*text)) {
            return Err(format!("the result contains {text:?}: {shown}"));
        }
        match self.is_error {
            Some(wanted) if wanted != result.is_error => {
                Err(format!("is_error is {}, expected {wanted}: {shown}", result.is_error))
            }
            _ => Ok(()),
        }
    }
}

fn replace(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::String(text) if text.contains(from) => *text = text.replace(from, to),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, from, to)),
        Value::Object(fields) => fields.values_mut().for_each(|item| replace(item, from, to)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(script: &Script, index: usize, text: &str, is_error: bool) -> ToolResult {
        ToolResult { id: script.call_id(index), text: text.to_owned(), is_error }
    }

    #[test]
    fn the_ready_script_asks_for_the_failure_before_anything_else() {
        let script = Script::fix_failing_test("/work");
        let mut progress = Progress { words: "make the failing test pass".into(), results: Vec::new() };
        assert_eq!(script.due(&progress), Ok(0));
        progress.results = vec![result(&script, 0, "2 passed", false)];
        let refused = script.due(&progress).expect_err("a suite that passes is not the demo's");
        assert!(refused.contains("1 failed"), "{refused}");
        progress.results = vec![result(
            &script,
            0,
            "Exit code 1\nFAILED test_cart.py::test_ten_percent_off\n1 failed, 1 passed",
            true,
        )];
        assert_eq!(script.due(&progress), Ok(1));
    }

    #[test]
    fn every_earlier_result_is_judged_again_not_only_the_last() {
        let script = Script::fix_failing_test("/work");
        let progress = Progress {
            words: "make the failing test pass".into(),
            results: vec![result(&script, 0, "forged", true), result(&script, 1, "discount // 10", false)],
        };
        assert!(script.due(&progress).expect_err("step 0 is wrong").starts_with("step 0"));
    }

    #[test]
    fn a_result_under_an_id_that_was_not_given_out_is_refused() {
        let script = Script::fix_failing_test("/work");
        let mut forged = result(&script, 0, "1 failed", true);
        forged.id = "toolu_other_0".into();
        let progress = Progress { words: "make the failing test pass".into(), results: vec![forged] };
        assert!(script.due(&progress).is_err());
    }

    #[test]
    fn the_work_directory_stands_in_the_inputs_of_the_calls() {
        for name in ["fix-failing-test", "make-check-pass"] {
            let script = Script::named(name, "/elsewhere").expect("known");
            let inputs: String =
                script.steps.iter().filter_map(|step| step.call.as_ref()).map(|call| call.input.to_string()).collect();
            assert!(inputs.contains("/elsewhere/"), "{inputs}");
            assert!(!inputs.contains("{work}"), "{inputs}");
        }
        assert!(Script::named("another", "/").is_none());
    }

    #[test]
    fn a_script_that_can_never_end_is_refused() {
        let endless = r#"{"name":"x","steps":[{"call":{"tool":"Bash","input":{}}}]}"#;
        assert!(Script::parse(endless, "/").is_err());
        let stuck = r#"{"name":"x","steps":[{"say":"a"},{"say":"b"}]}"#;
        assert!(Script::parse(stuck, "/").is_err());
        assert!(Script::parse(r#"{"name":"x","steps":[]}"#, "/").is_err());
        assert!(Script::parse(r#"{"name":"x","steps":[{"say":"b"}],"stepz":1}"#, "/").is_err());
    }

    #[test]
    fn faults_come_in_order_and_as_often_as_said() {
        let step: Step = serde_json::from_str(
            r#"{"faults":[{"kind":"status","status":429,"retry_after":1,"times":2},{"kind":"cut","times":1}]}"#,
        )
        .expect("valid");
        assert!(matches!(step.fault(0), Some(Fault::Status { status: 429, .. })));
        assert!(matches!(step.fault(1), Some(Fault::Status { status: 429, .. })));
        assert!(matches!(step.fault(2), Some(Fault::Cut { .. })));
        assert!(step.fault(3).is_none());
        let always: Step = serde_json::from_str(r#"{"faults":[{"kind":"silent"}]}"#).expect("valid");
        assert!(matches!(always.fault(9999), Some(Fault::Silent { .. })));
    }
}
