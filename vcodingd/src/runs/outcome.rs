//! What a run came to.
//!
//! No single sign decides: agents exit with 0 after they failed, say that they succeeded and are
//! killed after it, and call their own end an error when they were cancelled. So the guest's
//! record of the end, the agent's own word, and what the host itself did or saw are judged
//! together. Pure.

use guest::run::End;
use protocol::run::RunState;

use crate::agents::Verdict;

/// All that is known of a run that is over.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub ending: Ending<'a>,
    pub work: Work<'a>,
    /// The host was asked to cancel it, before its end was seen.
    pub cancelled: bool,
    /// The host refused it a model request because its budget was used up.
    pub over_budget: bool,
    /// The guest's memory limit in bytes, where the kernel ended processes for it when this one ended.
    pub memory_limit: Option<u64>,
}

/// How its end reached the host.
#[derive(Debug, Clone, Copy)]
pub enum Ending<'a> {
    /// The guest's record.
    Recorded(&'a End),
    /// Its files are not what our supervisor writes; in which way.
    Tampered(&'a str),
    /// The host could not read them.
    Unreadable(&'a str),
    /// There is no record, and nobody left who would write one (the guest is gone).
    Missing,
}

/// What ran.
#[derive(Debug, Clone, Copy)]
pub enum Work<'a> {
    /// A command, or an agent whose output says nothing about its end: the status decides.
    Command,
    /// An agent, and what it says of itself.
    Agent(&'a Verdict),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub state: RunState,
    /// The command's exit status, in the guest's word; none if it never said.
    pub status: Option<u8>,
    /// `vcodingctl run`'s exit status.
    pub exit: u8,
    /// Why it failed.
    pub problem: Option<String>,
    /// See [`Facts::memory_limit`]; where that was why.
    pub memory_limit: Option<u64>,
}

/// The status of what was ended by KILL.
pub const KILLED: u8 = 128 + 9;

/// vcodingctl's exit status for a run that failed.
const FAILED: u8 = 1;
const OVER_BUDGET: u8 = 4;
const ENDPOINT: u8 = 6;
const TIMED_OUT: u8 = 124;
const CANCELLED: u8 = 130;

/// Judges a run.
pub fn outcome(facts: &Facts<'_>) -> Outcome {
    let status = match facts.ending {
        Ending::Recorded(end) => Some(end.status()),
        Ending::Tampered(_) | Ending::Unreadable(_) | Ending::Missing => None,
    };
    let (state, exit, problem) = judge(facts);
    let memory_limit = facts.memory_limit.filter(|_| matches!(state, RunState::Failed | RunState::Lost));
    let problem = match (problem, memory_limit) {
        (Some(problem), Some(limit)) => Some(format!("{problem}: {}", protocol::exec::over_memory(limit))),
        (problem, _) => problem,
    };
    Outcome { state, status, exit, problem, memory_limit }
}

fn judge(facts: &Facts<'_>) -> (RunState, u8, Option<String>) {
    // Cancelling ends with killing everything, so that any end may follow from it.
    if facts.cancelled {
        return (RunState::Cancelled, CANCELLED, None);
    }
    let end = match facts.ending {
        Ending::Recorded(end) => end,
        Ending::Tampered(how) => {
            let problem = format!("its files in the guest were tampered with: {how}");
            return (RunState::Tampered, FAILED, Some(problem));
        }
        Ending::Unreadable(why) => {
            return (RunState::Lost, FAILED, Some(format!("its output could not be read: {why}")));
        }
        Ending::Missing => {
            return (RunState::Lost, FAILED, Some("the guest ended before the run did".to_owned()));
        }
    };
    match end {
        End::Cancelled => (RunState::Cancelled, CANCELLED, None),
        End::TimedOut => (RunState::TimedOut, TIMED_OUT, Some("its time limit passed".to_owned())),
        End::SupervisorKilled => {
            let exit = own_status(facts.work, end.status());
            (RunState::Lost, exit, Some("its supervisor in the guest was killed".to_owned()))
        }
        End::NotStarted { status, why } => {
            (RunState::Failed, own_status(facts.work, *status), Some(format!("it could not be started: {why}")))
        }
        End::Exited(_) | End::Signalled(_) => match facts.work {
            Work::Command => command(end),
            Work::Agent(verdict) => agent(end, verdict, facts.over_budget),
        },
    }
}

/// A command's status is passed on, an agent's is not.
fn own_status(work: Work<'_>, status: u8) -> u8 {
    match work {
        Work::Command => status,
        Work::Agent(_) => FAILED,
    }
}

fn command(end: &End) -> (RunState, u8, Option<String>) {
    match end.status() {
        0 => (RunState::Succeeded, 0, None),
        status => (RunState::Failed, status, Some(how(end))),
    }
}

fn agent(end: &End, verdict: &Verdict, over_budget: bool) -> (RunState, u8, Option<String>) {
    let clean = *end == End::Exited(0);
    match verdict.finished {
        // A refused or failed request that did not keep it from finishing is no failure.
        Some(true) if clean => (RunState::Succeeded, 0, None),
        _ if over_budget => (RunState::Budget, OVER_BUDGET, Some("its budget is used up".to_owned())),
        _ if verdict.endpoint_failed => {
            let why = last_words(verdict).unwrap_or_else(|| "the model endpoint failed".to_owned());
            (RunState::Endpoint, ENDPOINT, Some(why))
        }
        Some(true) => (RunState::Failed, FAILED, Some(format!("it said that it succeeded, but {}", how(end)))),
        Some(false) => {
            let why = last_words(verdict).unwrap_or_else(|| "it said that it failed".to_owned());
            (RunState::Failed, FAILED, Some(why))
        }
        None if clean => (RunState::Failed, FAILED, Some("it ended without saying that it was done".to_owned())),
        None => (RunState::Failed, FAILED, Some(how(end))),
    }
}

/// What an agent said at its end, as one line. A stranger's text, as ever.
fn last_words(verdict: &Verdict) -> Option<String> {
    let text = verdict.text.as_deref()?;
    let line = super::record::one_line(text, 500);
    (!line.is_empty()).then_some(line)
}

fn how(end: &End) -> String {
    match end {
        End::Signalled(9) => "it was killed (signal 9)".to_owned(),
        End::Signalled(signal) => format!("it was ended by signal {signal}"),
        other => format!("it exited with status {}", other.status()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: End = End::Exited(0);

    fn said(finished: Option<bool>) -> Verdict {
        Verdict { finished, ..Verdict::default() }
    }

    fn judged(end: &End, work: Work<'_>) -> (RunState, Option<u8>, u8) {
        let facts =
            Facts { ending: Ending::Recorded(end), work, cancelled: false, over_budget: false, memory_limit: None };
        let outcome = outcome(&facts);
        assert_eq!(outcome.problem.is_some(), !matches!(outcome.state, RunState::Succeeded | RunState::Cancelled));
        (outcome.state, outcome.status, outcome.exit)
    }

    #[test]
    fn a_commands_status_is_passed_on() {
        let not_found = End::NotStarted { status: 127, why: "no such file".into() };
        for (end, expected) in [
            (OK, (RunState::Succeeded, Some(0), 0)),
            (End::Exited(3), (RunState::Failed, Some(3), 3)),
            (End::Exited(124), (RunState::Failed, Some(124), 124)),
            (End::Signalled(15), (RunState::Failed, Some(143), 143)),
            (End::Signalled(255), (RunState::Failed, Some(255), 255)),
            (not_found, (RunState::Failed, Some(127), 127)),
            (End::TimedOut, (RunState::TimedOut, Some(124), 124)),
            (End::Cancelled, (RunState::Cancelled, Some(130), 130)),
            (End::SupervisorKilled, (RunState::Lost, Some(137), 137)),
        ] {
            assert_eq!(judged(&end, Work::Command), expected, "{end:?}");
        }
    }

    #[test]
    fn an_agent_succeeds_only_if_its_status_and_its_word_both_say_so() {
        use RunState::{Cancelled, Failed, Lost, Succeeded, TimedOut};
        let not_found = End::NotStarted { status: 127, why: "no such file".into() };
        for (end, yes, no, silent) in [
            (OK, (Succeeded, 0), (Failed, 1), (Failed, 1)),
            (End::Exited(1), (Failed, 1), (Failed, 1), (Failed, 1)),
            (End::Exited(130), (Failed, 1), (Failed, 1), (Failed, 1)),
            (End::Signalled(9), (Failed, 1), (Failed, 1), (Failed, 1)),
            (not_found, (Failed, 1), (Failed, 1), (Failed, 1)),
            (End::TimedOut, (TimedOut, 124), (TimedOut, 124), (TimedOut, 124)),
            (End::Cancelled, (Cancelled, 130), (Cancelled, 130), (Cancelled, 130)),
            (End::SupervisorKilled, (Lost, 1), (Lost, 1), (Lost, 1)),
        ] {
            for (finished, (state, exit)) in [(Some(true), yes), (Some(false), no), (None, silent)] {
                let verdict = said(finished);
                let expected = (state, Some(end.status()), exit);
                assert_eq!(judged(&end, Work::Agent(&verdict)), expected, "{end:?}, {finished:?}");
            }
        }
    }

    #[test]
    fn a_cancelled_run_is_cancelled_whatever_came_of_it() {
        let verdict = said(Some(true));
        for ending in [
            Ending::Recorded(&OK),
            Ending::Recorded(&End::Exited(1)),
            Ending::Recorded(&End::SupervisorKilled),
            Ending::Tampered("out.0 was removed"),
            Ending::Missing,
        ] {
            for work in [Work::Command, Work::Agent(&verdict)] {
                for over_budget in [false, true] {
                    let outcome = outcome(&Facts { ending, work, cancelled: true, over_budget, memory_limit: None });
                    assert_eq!((outcome.state, outcome.exit), (RunState::Cancelled, 130), "{ending:?}");
                }
            }
        }
    }

    #[test]
    fn budget_and_endpoint_explain_a_failure_and_spoil_no_success() {
        for endpoint_failed in [false, true] {
            for over_budget in [false, true] {
                for (end, finished) in [(OK, Some(true)), (OK, Some(false)), (End::Exited(1), Some(true)), (OK, None)] {
                    let verdict = Verdict { finished, endpoint_failed, ..Verdict::default() };
                    let ending = Ending::Recorded(&end);
                    let work = Work::Agent(&verdict);
                    let outcome = outcome(&Facts { ending, work, cancelled: false, over_budget, memory_limit: None });
                    let expected = match (&end, finished, over_budget, endpoint_failed) {
                        (End::Exited(0), Some(true), ..) => (RunState::Succeeded, 0),
                        (_, _, true, _) => (RunState::Budget, 4),
                        (_, _, false, true) => (RunState::Endpoint, 6),
                        _ => (RunState::Failed, 1),
                    };
                    assert_eq!((outcome.state, outcome.exit), expected, "{end:?}, {verdict:?}, {over_budget}");
                }
            }
        }
    }

    #[test]
    fn without_a_record_of_the_end_the_run_is_lost_or_tampered_with_and_has_no_status() {
        for (ending, state) in [
            (Ending::Tampered("out.0 was cut off"), RunState::Tampered),
            (Ending::Unreadable("no space"), RunState::Lost),
            (Ending::Missing, RunState::Lost),
        ] {
            let facts = Facts { ending, work: Work::Command, cancelled: false, over_budget: false, memory_limit: None };
            let outcome = outcome(&facts);
            assert_eq!((outcome.state, outcome.status, outcome.exit), (state, None, 1));
            assert!(outcome.problem.is_some());
        }
    }

    #[test]
    fn what_the_memory_limit_ended_says_so_with_the_limit() {
        let killed = End::Signalled(9);
        let of = |ending, cancelled| {
            let memory_limit = Some(4 << 30);
            outcome(&Facts { ending, work: Work::Command, cancelled, over_budget: false, memory_limit })
        };
        let told = of(Ending::Recorded(&killed), false);
        assert_eq!((told.exit, told.memory_limit), (137, Some(4 << 30)));
        let why = told.problem.unwrap();
        assert!(
            why.starts_with("it was killed (signal 9): ") && why.contains("4g") && why.contains("[limits] memory"),
            "{why}"
        );
        let lost = of(Ending::Missing, false).problem.unwrap();
        assert!(lost.starts_with("the guest ended before the run did: ") && lost.contains("4g"), "{lost}");
        assert_eq!(of(Ending::Recorded(&killed), true).problem, None);
    }

    #[test]
    fn the_agents_last_words_are_one_line_without_control_characters() {
        let text = Some("API Error: 401\n\u{1b}[31minvalid key".to_owned());
        let verdict = Verdict { finished: Some(false), endpoint_failed: true, text, ..Verdict::default() };
        let ending = Ending::Recorded(&OK);
        let facts =
            Facts { ending, work: Work::Agent(&verdict), cancelled: false, over_budget: false, memory_limit: None };
        assert_eq!(outcome(&facts).problem.as_deref(), Some("API Error: 401 [31minvalid key"));
    }
}
