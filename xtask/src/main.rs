//! The workshop: `cargo xtask TASK`, the same at a desk and in continuous integration.

mod arrows;
mod base_image;
mod bench;
mod build;
mod check;
mod demo;
mod engine;
mod faults;
mod packages;
mod program;
mod say;
mod soak;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use build::Profile;

const USAGE: &str = "cargo xtask TASK

  demo [--release]   the main job on a small project, narrated
  test               check, set-up, every test; ends with one line
  check              arrows of the house, format, lints, documentation
  images             what `vcodingctl init` writes, built and tested for all six languages
  faults [N] [WHAT]  kill -9 at every named point, N times each (3); only of this command, or at this point
  soak MINUTES       several clients at once, daemon and guests killed at random; what is left
  bench [exec|files] medians and ratios beside docker exec, ssh, nsenter and git
  build [--release]  the guest and the client static, everything else native
  setup              the container engine and the base image, made where missing
  clean-bases        removes base images that were made here";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["demo"] => demo::run(Profile::Debug),
        ["demo", "--release"] => demo::run(Profile::Release),
        ["test"] => test::run(),
        ["images"] => test::images(),
        ["faults"] => faults::run(faults::Rounds(3), None),
        ["faults", rounds] if rounds.parse::<usize>().is_ok() => faults::run(rounds_of(rounds), None),
        ["faults", rounds, only] if rounds.parse::<usize>().is_ok() => faults::run(rounds_of(rounds), Some(only)),
        ["soak", minutes] if minutes.parse::<u64>().is_ok() => soak::run(minutes.parse().unwrap_or(1)),
        ["bench"] => bench::run(bench::Part::All),
        ["bench", "exec"] => bench::run(bench::Part::Exec),
        ["bench", "files"] => bench::run(bench::Part::Files),
        ["check"] => check::run(),
        ["build"] => build::run(Profile::Debug).map(drop),
        ["build", "--release"] => build::run(Profile::Release).map(drop),
        ["setup"] => setup(),
        ["clean-bases"] => base_image::clean(),
        ["help" | "--help" | "-h"] => {
            say::data(USAGE);
            return ExitCode::SUCCESS;
        }
        _ => {
            say::line(USAGE);
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say::line(format_args!("error: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

fn rounds_of(text: &str) -> faults::Rounds {
    faults::Rounds(text.parse().unwrap_or(1))
}

fn setup() -> Result<()> {
    let engine = engine::ensure()?;
    say::line(format_args!("engine {} ({})", engine.version, engine.driver));
    base_image::ensure(&engine, base_image::DEBIAN)?;
    say::line(format_args!("base {}", base_image::DEBIAN.tag));
    Ok(())
}
