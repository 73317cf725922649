//! The time machine beside git.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::print;
use super::world::{World, text};
use crate::program;

const ROUNDS: usize = 9;
const FIRST: usize = 3;
const CHANGED: usize = 10;

pub fn bench(world: &World, files: usize) -> Result<()> {
    let project = world.project(files)?;
    let peer = first_scan(world, &project, files)?;
    let (mut ours, mut git, mut back, mut reset) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let tree = tree_of(world, &project)?;
    for round in 0..ROUNDS {
        for n in 0..CHANGED {
            let at = (n * files / CHANGED + round) % files;
            let path = format!("d{}/f{at}.txt", at / 100);
            let content = text(at + round * 1_000_003 + 7, 4000);
            // Into the work tree as the guest would: the host's own view of it.
            std::fs::write(tree.join(&path), &content)?;
            std::fs::write(peer.join(&path), &content)?;
        }
        let nonce = format!("round-{round}");
        ours.push(timed(|| {
            let said = program::read(&mut world.ctl(&project, &["--json", "checkpoint", "-m", &nonce]))?;
            let said: serde_json::Value = serde_json::from_str(&said)?;
            if said["checkpoint"]["changed"] != CHANGED || said["checkpoint"]["label"] != nonce.as_str() {
                bail!("a checkpoint without its changes: {said}");
            }
            Ok(())
        })?);
        git.push(timed(|| commit(world, &peer, &nonce))?);
        back.push(timed(|| program::read(&mut world.ctl(&project, &["--json", "rollback", "@~1"])).map(drop))?);
        reset.push(timed(|| program::run(world.git(&peer).args(["reset", "-q", "--hard", "HEAD~1"])))?);
    }
    print(
        &format!("{files} files, {CHANGED} changed: checkpoint, whole process, durable"),
        &[("vcodingctl checkpoint", ours), ("git add -A && git commit", git)],
    );
    print(
        &format!("{files} files, {CHANGED} changed: back"),
        &[("vcodingctl rollback (guest frozen)", back), ("git reset --hard", reset)],
    );
    program::run(world.ctl(&project, &["-q", "destroy", "--force", "--purge"]).stdout(Stdio::null()))
}

/// The project into a history that holds nothing of it; ours copies the files as well, in the same pass. Leaves the workspace of
/// `project`, and git's repository of the same files.
fn first_scan(world: &World, project: &Path, files: usize) -> Result<PathBuf> {
    let (mut ours, mut git, mut both) = (Vec::new(), Vec::new(), Vec::new());
    let mut peer = PathBuf::new();
    for round in 0..FIRST {
        // Nothing is deleted in between: a file system looks longer for an inode that was freed just now.
        let source = world.dir.join(format!("p{files}-{round}"));
        if round + 1 < FIRST {
            program::run(std::process::Command::new("cp").arg("-a").args([project, &source]))?;
        }
        let source = if round + 1 < FIRST { source.as_path() } else { project };
        peer = world.dir.join(format!("git{files}-{round}"));
        std::fs::create_dir(&peer)?;
        let copying = timed(|| {
            // The files alone: git's own are made anew.
            let pipe = "tar -C \"$0\" --exclude=./.git -cf - . | tar -C \"$1\" -xf -";
            program::run(std::process::Command::new("sh").args(["-c", pipe]).args([source, &peer]))
        })?;
        program::run(world.git(&peer).args(["init", "-q", "-b", "main"]))?;
        let committing = timed(|| commit(world, &peer, "first"))?;
        git.push(committing);
        both.push(copying + committing);
        program::run(world.ctl(source, &["-q", "up"]).stdout(Stdio::null()).stderr(Stdio::null()))?;
        ours.push(copy_in_time(world, source)?);
    }
    print(
        &format!("{files} files: first scan (ours copies the files too)"),
        &[
            ("vcoding copy-in and base", ours),
            ("git add -A && git commit", git),
            ("the same, and tar | tar before", both),
        ],
    );
    Ok(peer)
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed())
}

fn commit(world: &World, dir: &Path, message: &str) -> Result<()> {
    program::run(world.git(dir).args(["add", "-A"]))?;
    program::run(world.git(dir).args(["commit", "-q", "-m", message]))
}

/// The work tree as it lies in the state directory.
fn tree_of(world: &World, project: &Path) -> Result<std::path::PathBuf> {
    let shown = program::read(&mut world.ctl(project, &["--json", "show"]))?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let id = shown["workspace"]["id"].as_str().unwrap_or_default().to_owned();
    Ok(world.dir.join("state/workspaces").join(id).join("tree"))
}

/// How long the step took, as the daemon's log tells.
fn copy_in_time(world: &World, project: &Path) -> Result<Duration> {
    let shown = program::read(&mut world.ctl(project, &["--json", "show"]))?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let id = shown["workspace"]["id"].as_str().unwrap_or_default();
    let mut log = String::new();
    for day in std::fs::read_dir(world.dir.join("state/log"))? {
        log += &std::fs::read_to_string(day?.path())?;
    }
    for line in log.lines().rev() {
        let entry: serde_json::Value = serde_json::from_str(line)?;
        let fields = &entry["fields"];
        if fields["workspace"] == id && fields["step"] == "work tree" && fields["took_ms"].is_u64() {
            return Ok(Duration::from_millis(fields["took_ms"].as_u64().unwrap_or_default()));
        }
    }
    bail!("the daemon's log has no copy-in of {id}")
}
