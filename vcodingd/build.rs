//! Builds the program that runs inside guests, which the daemon carries in itself.
//!
//! It is another target (static) and always the release profile, in a target directory of its own:
//! the one of the build that waits for this script is locked by it.

#![allow(clippy::print_stdout)] // How a build script speaks to cargo.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the outer build (or clippy, or a coverage tool) means for its own crates only.
const NOT_OURS: [&str; 8] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
];

fn main() -> Result<(), Box<dyn Error>> {
    let workspace = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    for input in ["guest/src", "guest/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", workspace.join(input).display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    let target = format!("{}-unknown-linux-musl", variable("CARGO_CFG_TARGET_ARCH")?);
    installed(&target)?;
    let directory = PathBuf::from(variable("OUT_DIR")?).join("guest");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.current_dir(&workspace).args(["build", "--locked", "--release", "-p", "guest", "--bin", "vcoding-guest"]);
    cargo.args(["--target", &target, "--target-dir"]).arg(&directory);
    for name in NOT_OURS {
        cargo.env_remove(name);
    }
    if !cargo.status()?.success() {
        return Err(format!("the guest program did not build for {target}").into());
    }
    let program = directory.join(&target).join("release/vcoding-guest");
    println!("cargo:rustc-env=VCODING_GUEST={}", program.display());
    Ok(())
}

/// Refuses with the command that mends it, where cargo would speak of a missing crate `core`.
fn installed(target: &str) -> Result<(), Box<dyn Error>> {
    let output = Command::new(variable("RUSTC")?).args(["--print", "target-libdir", "--target", target]).output()?;
    let directory = String::from_utf8(output.stdout)?;
    if output.status.success() && Path::new(directory.trim()).is_dir() {
        return Ok(());
    }
    Err(format!("Rust's target {target} is not installed: rustup target add {target}").into())
}

fn variable(name: &str) -> Result<String, Box<dyn Error>> {
    env::var(name).map_err(|e| format!("{name}: {e}").into())
}
