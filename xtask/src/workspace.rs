//! This workspace: where it lies, where its products go, and its cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::program;

/// The machine's architecture as targets name it.
pub const STATIC: &str = match std::env::consts::ARCH.as_bytes() {
    b"aarch64" => "aarch64-unknown-linux-musl",
    _ => "x86_64-unknown-linux-musl",
};

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// The cargo that runs us, in the workspace's root.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Where cargo puts its products, wherever configuration or environment has moved it.
pub fn target_dir() -> Result<PathBuf> {
    let text = program::read(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo metadata is no JSON")?;
    let dir = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(dir.into())
}

/// Whether the standard library for static programs is installed.
pub fn has_static_target() -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let dir =
        program::read(Command::new(rustc).args(["--print", "target-libdir", "--target", STATIC]).current_dir(root()))?;
    Ok(Path::new(&dir).is_dir())
}

/// The standard library for static programs; with `install`, rustup is asked for it.
///
/// # Errors
/// It is missing: says what to type.
pub fn ensure_static_target(install: bool) -> Result<()> {
    if has_static_target()? {
        return Ok(());
    }
    if install && program::find("rustup").is_some() {
        crate::say::step(format_args!("rustup target add {STATIC}"));
        return program::run(Command::new("rustup").args(["target", "add", STATIC]).current_dir(root()));
    }
    bail!(
        "the guest's program is linked statically and needs a target that is not installed: type `rustup target add {STATIC}`"
    )
}
