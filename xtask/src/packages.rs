//! Packages of the distribution, through its own tool.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{program, say};

/// Installs what is missing of `packages` (Debian and Ubuntu, root); `why` is said first.
///
/// # Errors
/// Where we are not root or the system has no apt, the error says what to type instead.
pub fn install(packages: &[&str], why: &str) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("{why}: install {list} with your distribution's package manager, then run this again");
    }
    if !program::is_root() {
        bail!("{why}: type `sudo apt-get install -y {list}`, then run this again");
    }
    say::step(format_args!("{why}: apt-get install {list}"));
    if apt(&missing).is_ok() {
        return Ok(());
    }
    // Package lists that are absent or too old are the usual reason; refreshing them first would cost everyone a minute.
    program::run(Command::new("apt-get").args(["update", "-qq"]))?;
    apt(&missing)
}

fn apt(packages: &[&str]) -> Result<()> {
    program::run(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(packages),
    )
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Abbrev}", package])
        .output()
        .is_ok_and(|output| output.status.success() && output.stdout.starts_with(b"ii"))
}
