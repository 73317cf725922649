//! Counting over many test binaries.

use std::fmt;

/// The sums; shown as the one closing line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl Summary {
    /// Takes one line of output: a binary's result, or a test that says it skipped.
    pub fn read(&mut self, line: &str) {
        if line.starts_with("skipped: ") {
            self.skipped += 1;
            return;
        }
        let Some(counts) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")).map(|(_, counts)| counts)
        else {
            return;
        };
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            if let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) {
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.skipped += number,
                    _ => {}
                }
            }
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_sums_every_binary_and_every_skip() {
        let mut summary = Summary::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "skipped: exec::pty: no engine here",
            "test result: FAILED. 8 passed; 2 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.32s",
            "  test result: ok. 100 passed; quoted by a test",
        ] {
            summary.read(line);
        }
        assert_eq!(summary.to_string(), "20 passed, 2 failed, 2 skipped");
    }
}
