//! The steps of a long operation: on a terminal a line that is rewritten until the step's end,
//! else a line at each step's end.

use std::time::{Duration, Instant};

use protocol::workspace::{Progress, StepState};

use crate::printer::Printer;
use crate::render::ink::Style;
use crate::render::text::{brief, one_line, output_line, shortened, width};

/// Steps may lie within each other (a build's within the image's); deeper ones are forgotten.
const DEEPEST: usize = 16;
/// Where the time stands.
const COLUMN: usize = 44;

#[derive(Debug)]
pub struct Steps<'a> {
    printer: &'a Printer,
    /// The operation as a whole: shown while it has no step, once it takes long.
    whole: Step,
    open: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: String,
    since: Instant,
    /// The last it said.
    said: String,
}

impl Step {
    fn new(name: String, said: String) -> Self {
        Self { name, since: Instant::now(), said }
    }
}

impl<'a> Steps<'a> {
    pub fn new(printer: &'a Printer, doing: &str) -> Self {
        Self { printer, whole: Step::new(doing.to_owned(), String::new()), open: Vec::new() }
    }

    pub fn show(&mut self, progress: &Progress) {
        let name = one_line(&progress.step);
        let said = progress.text.as_deref().map(output_line).unwrap_or_default();
        match progress.state {
            StepState::Started => {
                if self.printer.verbose {
                    self.say(&format!("  … {name}"));
                }
                self.open.truncate(DEEPEST - 1);
                self.open.push(Step::new(name, said));
            }
            StepState::Output => {
                if self.printer.verbose {
                    self.say(&format!("    {}", self.printer.talk(Style::Dim, &said)));
                }
                if let Some(step) = self.open.iter_mut().rev().find(|s| s.name == name) {
                    step.said = said;
                }
            }
            StepState::Done | StepState::Cached | StepState::Failed => {
                self.open.retain(|s| s.name != name);
                self.say(&self.ended(progress.state, progress.took_ms, &name, &said));
            }
        }
        self.tick();
    }

    /// Shows the time going by.
    pub fn tick(&self) {
        let step = self.open.last().unwrap_or(&self.whole);
        let passed = step.since.elapsed();
        if self.open.is_empty() && passed < Duration::from_secs(1) {
            return;
        }
        let passed = if passed < Duration::from_secs(1) { String::new() } else { format!("  {} s", passed.as_secs()) };
        let said = if step.said.is_empty() { String::new() } else { format!("  {}", step.said) };
        self.printer.status(&format!("  … {}{passed}{said}", shortened(&step.name, COLUMN)));
    }

    fn ended(&self, state: StepState, took: Option<u64>, name: &str, said: &str) -> String {
        let mark = match state {
            StepState::Failed => self.printer.talk(Style::Red, "✗"),
            _ => self.printer.talk(Style::Green, "✓"),
        };
        let took = match (state, took) {
            (StepState::Cached, _) => "cached".into(),
            (_, Some(ms)) => brief(ms),
            (_, None) => String::new(),
        };
        let name = shortened(name, COLUMN);
        let pad = " ".repeat(COLUMN - width(&name));
        // Why it failed is said once, at the end.
        let said = if said.is_empty() || state == StepState::Failed { String::new() } else { format!("  {said}") };
        format!("  {mark} {name}{pad}  {}", self.printer.talk(Style::Dim, format!("{took:<8}{said}").trim_end()))
    }

    fn say(&self, line: &str) {
        if !self.printer.json {
            self.printer.say(line.trim_end());
        }
    }
}
