//! `cargo xtask build`: the guest's static program, then everything, then the static client.

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace::{STATIC, cargo, ensure_static_target, target_dir};
use crate::{program, say};

/// Debug or release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Debug,
    Release,
}

impl Profile {
    fn flag(self) -> &'static [&'static str] {
        match self {
            Self::Debug => &[],
            Self::Release => &["--release"],
        }
    }

    fn dir(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }
}

/// What was built and a person or a demo runs.
#[derive(Debug)]
pub struct Programs {
    /// The static client.
    pub vcodingctl: PathBuf,
    pub vcodingd: PathBuf,
    pub model_server: PathBuf,
}

/// Builds all. The guest goes first: where it does not build, nothing that carries it can.
pub fn run(profile: Profile) -> Result<Programs> {
    ensure_static_target(false)?;
    let build = |what: &[&str]| program::run(cargo().arg("build").args(profile.flag()).args(what));
    say::step(format_args!("building guest ({STATIC})"));
    build(&["--package", "guest", "--target", STATIC])?;
    say::step("building the workspace");
    // Not this program: it runs, and its own profile is the one it was started with.
    build(&["--workspace", "--exclude", "xtask"])?;
    say::step(format_args!("building vcodingctl ({STATIC})"));
    build(&["--package", "vcodingctl", "--target", STATIC])?;
    let target = target_dir()?;
    let native = target.join(profile.dir());
    let programs = Programs {
        vcodingctl: target.join(STATIC).join(profile.dir()).join("vcodingctl"),
        vcodingd: native.join("vcodingd"),
        model_server: native.join("model-server"),
    };
    for program in [&programs.vcodingctl, &programs.vcodingd] {
        say::line(format_args!("    {}", program.display()));
    }
    Ok(programs)
}
