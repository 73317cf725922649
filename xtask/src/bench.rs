//! `cargo xtask bench`: what people feel, beside what they would use instead, in one interleaved run.
//!
//! Every figure is a whole process's wall time as its user waits for it; every round runs each contender once, in turn, so
//! that a busy moment hits all alike. A contender must print the round's nonce: a figure without the work is no figure.

mod exec;
mod files;
mod world;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile};
use crate::workspace::ensure_static_target;
use crate::{base_image, engine, say};
use world::World;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    All,
    Exec,
    Files,
}

/// Builds in release, makes a world of its own, measures, prints.
pub fn run(part: Part) -> Result<()> {
    ensure_static_target(true)?;
    let engine = engine::ensure()?;
    base_image::ensure(&engine, base_image::DEBIAN)?;
    let programs = build::run(Profile::Release)?;
    let world = World::new(&programs)?;
    say::data(format_args!("machine: {} processors, load {}", std::thread::available_parallelism()?, load()));
    if part != Part::Files {
        exec::bench(&world)?;
        world.daemon_memory("one idle guest")?;
    }
    if part != Part::Exec {
        for files in [1_000, 10_000] {
            files::bench(&world, files)?;
        }
        world.daemon_memory("after everything")?;
    }
    Ok(())
}

/// One way of doing it.
struct Contender {
    name: &'static str,
    /// Makes the command that prints this nonce.
    command: Box<dyn Fn(&str) -> Command>,
    taken: Vec<Duration>,
}

impl Contender {
    fn new(name: &'static str, command: impl Fn(&str) -> Command + 'static) -> Self {
        Self { name, command: Box::new(command), taken: Vec::new() }
    }

    fn round(&mut self, nonce: &str) -> Result<()> {
        let mut command = (self.command)(nonce);
        let began = Instant::now();
        let output = command.output().with_context(|| format!("cannot run {}", self.name))?;
        self.taken.push(began.elapsed());
        let out = String::from_utf8_lossy(&output.stdout);
        if out.trim() != nonce {
            bail!("{} did not do its work: {out:?} {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

/// Runs all in turn, `rounds` times after a warm-up, and prints medians and the ratio of the first to each.
fn compare(title: &str, contenders: &mut [Contender], rounds: usize) -> Result<()> {
    for round in 0..rounds + 3 {
        for contender in contenders.iter_mut() {
            contender.round(&format!("nonce-{round}-{}", std::process::id()))?;
        }
        if round == 2 {
            contenders.iter_mut().for_each(|c| c.taken.clear());
        }
    }
    print(title, &contenders.iter().map(|c| (c.name, c.taken.clone())).collect::<Vec<_>>());
    Ok(())
}

/// Prints a table: each one's median and spread, and the first's median as a part of it.
fn print(title: &str, rows: &[(&str, Vec<Duration>)]) {
    say::data(format_args!("\n{title}"));
    let first = median(&rows[0].1);
    for (name, taken) in rows {
        let mut sorted = taken.clone();
        sorted.sort();
        let at = |part: usize| millis(sorted[(sorted.len() - 1) * part / 10]);
        let ratio = first.as_secs_f64() / median(taken).as_secs_f64();
        say::data(format_args!(
            "  {name:<34} {:>9.2} ms   (p10 {:.2}, p90 {:.2}; n {})   ratio {ratio:.3}",
            millis(median(taken)),
            at(1),
            at(9),
            taken.len(),
        ));
    }
}

fn median(taken: &[Duration]) -> Duration {
    let mut sorted = taken.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').take(1).collect()
}
