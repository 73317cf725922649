//! `cargo xtask demo`: the main job on a small real project with a failing test, narrated.
//!
//! Everything happens in a directory of its own, state and configuration included, and is gone afterwards: the person's own
//! workspaces are neither seen nor touched.

mod model;
mod stage;

use anyhow::Result;
use stage::{Ends, Stage};

use crate::build::{self, Profile};
use crate::workspace::ensure_static_target;
use crate::{base_image, engine, say};

/// Prints what must not be in the guest, and ends with 0 only where nothing was found.
const NO_KEY: &str = r#"env | grep -iE "api.?key|secret" && exit 1; echo "no key in the environment""#;
/// A call to an address outside; the guest has no interface that leads there.
const CALL: &str = r#"import socket; socket.create_connection(("192.0.2.1", 443), 3)"#;

/// Sets up, builds, plays.
pub fn run(profile: Profile) -> Result<()> {
    ensure_static_target(true)?;
    let engine = engine::ensure()?;
    say::line(format_args!("    engine {} ({})", engine.version, engine.driver));
    base_image::ensure(&engine, base_image::DEBIAN)?;
    let programs = build::run(profile)?;
    let mut stage = Stage::set(&programs)?;
    model::connect(&mut stage, &programs)?;
    play(&stage)?;
    say::line("\nThat was the main job. Now in a project of yours: vcodingctl up");
    Ok(())
}

fn play(stage: &Stage) -> Result<()> {
    stage.tell("A small shop with a failing test.\n# One command makes a sealed computer from its Dockerfile.");
    stage.ctl(&["up"], Ends::Well)?;
    stage.tell("Commands run in there, attached, with their own exit status. The test fails:");
    stage.ctl(&["exec", "--", "python3", "-m", "pytest", "-q"], Ends::With(1))?;

    stage.tell("The wall: a call to the outside has nowhere to go, and no key lies inside.");
    stage.ctl(&["exec", "--", "python3", "-c", CALL], Ends::With(1))?;
    stage.ctl(&["exec", "--", "sh", "-c", NO_KEY], Ends::Well)?;

    stage.tell("An agent with all permissions is let loose on it:");
    stage.ctl(&["run", "claude", "make the failing test pass"], Ends::Well)?;
    stage.ctl(&["exec", "--", "python3", "-m", "pytest", "-q"], Ends::Well)?;

    stage.tell("What it did, and the way back, and back again:");
    stage.ctl(&["log"], Ends::Well)?;
    stage.ctl(&["diff", "base", "@"], Ends::Well)?;
    stage.ctl(&["rollback", "base"], Ends::Well)?;
    stage.ctl(&["exec", "--", "python3", "-m", "pytest", "-q"], Ends::With(1))?;
    stage.ctl(&["rollback", "@~1"], Ends::Well)?;
    stage.ctl(&["exec", "--", "python3", "-m", "pytest", "-q"], Ends::Well)?;

    stage.tell("Taken home as a branch; the project's own files stay as they are:");
    stage.ctl(&["apply"], Ends::Well)?;
    stage.git(&["branch", "--list", "vcoding/*"])?;
    stage.git(&["status", "--short"])?;

    stage.tell("It can sleep and wake, and it goes without a trace:");
    stage.ctl(&["stop"], Ends::Well)?;
    stage.ctl(&["start"], Ends::Well)?;
    stage.ctl(&["ls"], Ends::Well)?;
    stage.ctl(&["destroy", "--purge"], Ends::Well)
}
