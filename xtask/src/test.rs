//! `cargo xtask test`: check, set-up, every test of the workspace, one closing line.
//!
//! A test, or a half of one, that cannot run here says so on standard error itself, past the harness's capture
//! (`writeln!(std::io::stderr(), "skipped: NAME: REASON")`): each such line counts as skipped, as does `#[ignore]`.

mod summary;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::mpsc;

use anyhow::{Context, Result, bail};
use summary::Summary;

use crate::build::{self, Profile};
use crate::workspace::{cargo, ensure_static_target};
use crate::{base_image, check, engine, program, say};

/// A line longer than this is cut in what is shown; results of the harness are far shorter.
const LINE: u64 = 64 << 10;

/// Runs everything; the closing line is alone on standard output.
pub fn run() -> Result<()> {
    ensure_static_target(true)?;
    let checked = check::run();
    if let Err(e) = &checked {
        say::line(format_args!("error: {e:#}; the tests run nevertheless"));
    }
    let mut summary = Summary::default();
    if let Err(e) = engine::ensure().and_then(|engine| {
        say::line(format_args!("    engine {} ({})", engine.version, engine.driver));
        base_image::ensure(&engine, base_image::DEBIAN)
    }) {
        say::line(format_args!("skipped: everything that needs the container engine: {e:#}"));
        summary.skipped += 1;
    }
    // The end-to-end tests run the programs themselves.
    build::run(Profile::Debug)?;
    say::step("tests");
    let ended = tests(&mut summary)?;
    say::data(&summary);
    if !ended && summary.failed == 0 {
        bail!("cargo test failed before every test could run: see above");
    }
    if summary.failed > 0 {
        bail!("{} failed", summary.failed);
    }
    checked
}

/// Runs what is too much for every day: an image of each language.
pub fn images() -> Result<()> {
    let engine = engine::ensure()?;
    base_image::ensure(&engine, base_image::DEBIAN)?;
    build::run(Profile::Debug)?;
    say::step("images");
    program::run(cargo().args(["test", "--package", "tests", "--test", "images"]))
}

/// Runs cargo's tests, shows what they say as it comes, counts; whether cargo was content.
fn tests(summary: &mut Summary) -> Result<bool> {
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", program::line(&command)))?;
    let out = child.stdout.take().expect("standard output was piped above");
    let err = child.stderr.take().expect("standard error was piped above");
    // Bounded: tests that print faster than a terminal reads wait for it.
    let (lines, shown) = mpsc::sync_channel(1024);
    let readers = [pass(out, lines.clone()), pass(err, lines)];
    for line in shown {
        summary.read(&line);
        say::line(line);
    }
    for reader in readers {
        reader.join().expect("a reader does not panic");
    }
    Ok(child.wait()?.success())
}

fn pass(stream: impl Read + Send + 'static, lines: mpsc::SyncSender<String>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.by_ref().take(LINE).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            if lines.send(text).is_err() {
                return;
            }
            line.clear();
        }
    })
}
