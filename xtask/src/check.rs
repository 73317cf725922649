//! `cargo xtask check`: what holds for every commit, the quick questions first. All are asked, so that one run shows all faults.

use anyhow::{Result, bail};

use crate::workspace::{cargo, root};
use crate::{arrows, program, say};

/// Arrows, format, lints, documentation.
pub fn run() -> Result<()> {
    let mut failed = Vec::new();
    let mut note = |name: &'static str, outcome: Result<()>| {
        if let Err(e) = outcome {
            say::line(format_args!("{name}: {e:#}"));
            failed.push(name);
        }
    };
    say::step("arrows (ARCHITECTURE.md against vcodingd/src)");
    note("arrows", arrows());
    say::step("format");
    note("format", program::run(cargo().args(["fmt", "--all", "--check"])));
    say::step("lints");
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    note("lints", program::run(cargo().args(clippy)));
    say::step("documentation");
    let mut doc = cargo();
    doc.args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
    note("documentation", program::run(&mut doc));
    if !failed.is_empty() {
        bail!("check failed: {}", failed.join(", "));
    }
    Ok(())
}

fn arrows() -> Result<()> {
    let faults = arrows::check(root())?;
    for fault in &faults {
        say::line(fault);
    }
    if !faults.is_empty() {
        bail!("{} against the map; change the code, or the map and the house in the same commit", faults.len());
    }
    Ok(())
}
