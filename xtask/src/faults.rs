//! `cargo xtask faults`: real work, cut off by `kill -9` at every named point of every operation; what is there afterwards.
//!
//! Each case is a project and a workspace of its own. After the kill a daemon without a point to die at is started by the next
//! command, as a user would; then everything that was acknowledged has to be there, what was half-done has to be finished or undone,
//! and nothing may be left that nobody owns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::build::{self, Profile, Programs};
use crate::program::{self, Captured};
use crate::{base_image, engine, say};

const DOCKERFILE: &str = "FROM debian:bookworm-slim\n";
/// A command that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// Until what was cut off is finished or undone.
const SETTLED: Duration = Duration::from_secs(60);

/// How often each point is died at.
#[derive(Debug, Clone, Copy)]
pub struct Rounds(pub usize);

pub fn run(rounds: Rounds, only: Option<&str>) -> Result<()> {
    let engine = engine::ensure()?;
    base_image::ensure(&engine, base_image::DEBIAN)?;
    let programs = build::run(Profile::Debug)?;
    let points = program::read(Command::new(&programs.vcodingd).arg("--kill-points"))?;
    let points: Vec<(&str, &str)> = points.lines().filter_map(|line| line.split_once(' ')).collect();
    ensure!(points.len() > 50, "vcodingd names too few points");
    let wanted = |(command, point): &&(&str, &str)| only.is_none_or(|only| *command == only || *point == only);
    let mut histogram: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut longest = Duration::ZERO;
    let began = Instant::now();
    for (command, point) in points.iter().filter(wanted) {
        for round in 0..rounds.0 {
            let outcome = Case::new(&programs).and_then(|case| {
                let outcome = case.dies_at(command, point);
                longest = longest.max(outcome.as_ref().map_or(Duration::ZERO, |(_, took)| *took));
                if outcome.is_ok() {
                    case.clean_up()?;
                }
                outcome.map(|(outcome, _)| outcome).with_context(|| format!("kept: {}", case.dir.display()))
            });
            let word = match outcome {
                Ok(outcome) => outcome,
                Err(error) => {
                    say::line(format_args!("    {command}, {point}, round {}: {error:#}", round + 1));
                    failures.push(format!("{command} {point}: {error:#}"));
                    "WRONG".to_owned()
                }
            };
            *histogram.entry(command).or_default().entry(word).or_default() += 1;
        }
        say::line(format_args!("    {command:<9} {point}"));
    }
    say::data(format_args!("\n{:<10}{}", "killed", "what the next command found"));
    let mut all = 0;
    for (command, outcomes) in &histogram {
        let text: Vec<String> = outcomes.iter().map(|(outcome, times)| format!("{times} {outcome}")).collect();
        all += outcomes.values().sum::<usize>();
        say::data(format_args!("{command:<10}{}", text.join(", ")));
    }
    say::data(format_args!(
        "\n{all} kills at {} points in {} s; settled after at most {:.1} s; {} wrong",
        points.iter().filter(wanted).count(),
        began.elapsed().as_secs(),
        longest.as_secs_f64(),
        failures.len()
    ));
    if !failures.is_empty() {
        bail!("{} of {all} kills left something wrong", failures.len());
    }
    Ok(())
}

/// One workspace that is cut off once.
struct Case<'a> {
    programs: &'a Programs,
    dir: PathBuf,
    /// What was acknowledged before the kill.
    nonce: String,
}

impl<'a> Case<'a> {
    fn new(programs: &'a Programs) -> Result<Self> {
        let dir = PathBuf::from(program::read(Command::new("mktemp").args(["-d", "-t", "vcoding-fault.XXXXXX"]))?);
        let nonce = dir.extension().map_or_else(String::new, |end| end.to_string_lossy().into_owned());
        let case = Self { programs, dir, nonce };
        let project = case.project();
        std::fs::create_dir(&project)?;
        std::fs::write(project.join("Dockerfile"), DOCKERFILE)?;
        std::fs::write(project.join("a.txt"), "first\n")?;
        for args in [&["init", "-q", "-b", "main"][..], &["add", "-A"], &["commit", "-q", "-m", "first"]] {
            case.git(&project, args)?;
        }
        Ok(case)
    }

    fn project(&self) -> PathBuf {
        self.dir.join("faults")
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn git(&self, dir: &Path, args: &[&str]) -> Result<String> {
        let mut git = Command::new("git");
        git.current_dir(dir).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        program::read(
            git.args(["-c", "user.name=F", "-c", "user.email=f@localhost", "-c", "safe.directory=*"]).args(args),
        )
    }

    fn ctl(&self, kill_at: &str, args: &[&str]) -> Result<Captured> {
        let mut command = Command::new(&self.programs.vcodingctl);
        command
            .args(args)
            .current_dir(self.project())
            .env("VCODING_STATE_DIR", self.state())
            .env("VCODING_CONFIG_DIR", self.dir.join("config"))
            .env("VCODING_DAEMON", &self.programs.vcodingd)
            .env("VCODING_KILL_AT", kill_at)
            .env_remove("VCODING_SOCKET")
            .stdin(Stdio::null());
        program::capture(&mut command, LIMIT)
    }

    fn ok(&self, args: &[&str]) -> Result<String> {
        let done = self.ctl("", args)?;
        ensure!(done.ok, "vcodingctl {}: {}{}", args.join(" "), done.out, done.err);
        Ok(done.out)
    }

    fn json(&self, args: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.ok(&[&["--json"], args].concat())?)?)
    }

    /// What the next command found, and how long it took until all was settled.
    fn dies_at(&self, command: &str, point: &str) -> Result<(String, Duration)> {
        let write = format!("echo {} > kept.txt", self.nonce);
        if command != "up" {
            self.ok(&["up"])?;
            self.ok(&["exec", "--", "sh", "-c", &write])?;
            self.ok(&["checkpoint", "-m", "kept"])?;
        }
        if command == "start" {
            self.ok(&["stop"])?;
        }
        let run = format!("echo {} > run.txt; echo said", self.nonce);
        let act: &[&str] = match command {
            "up" => &["up"],
            "rebuild" => &["up", "--rebuild"],
            "start" => &["start"],
            "stop" => &["stop"],
            "destroy" => &["destroy", "--force"],
            "purge" => &["destroy", "--force", "--purge"],
            "rollback" => &["rollback", "base"],
            "apply" => &["apply"],
            "run" => &["run", "--detach", "--", "sh", "-c", &run],
            other => bail!("a point of {other}, which nobody here knows"),
        };
        self.ctl("", &["daemon", "stop"])?;
        let dying = self.ctl(point, &["daemon", "start"])?;
        ensure!(dying.ok, "the daemon that is to die did not start: {}", dying.err);
        let pid = self.daemon()?;
        let cut = self.ctl("", act)?;
        let began = Instant::now();
        // A run's end comes after the call's.
        while Path::new(&format!("/proc/{pid}")).exists() {
            ensure!(began.elapsed() < SETTLED, "it did not die: {}{}", cut.out, cut.err);
            std::thread::sleep(Duration::from_millis(10));
        }
        let began = Instant::now();
        let phase = self.settled()?;
        let took = began.elapsed();
        let outcome = match command {
            "destroy" | "purge" => self.destroyed(command == "purge", phase.as_deref())?,
            "run" => self.ran()?,
            _ => self.went_on(command, act, phase.as_deref())?,
        };
        self.nothing_is_left_over(command)?;
        Ok((outcome, took))
    }

    fn daemon(&self) -> Result<u64> {
        let file: Value = serde_json::from_slice(&std::fs::read(self.state().join("daemon.json"))?)?;
        file["pid"].as_u64().context("daemon.json has no pid")
    }

    /// The workspace's phase when no operation is under way any more; `None` if there is no workspace.
    fn settled(&self) -> Result<Option<String>> {
        let began = Instant::now();
        loop {
            let list = self.json(&["ls"])?;
            let phase = list["workspaces"][0]["phase"].as_str().map(str::to_owned);
            match phase.as_deref() {
                Some("creating" | "starting" | "stopping" | "destroying") => {}
                _ => return Ok(phase),
            }
            ensure!(began.elapsed() < SETTLED, "it is still {phase:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kept(&self) -> Result<()> {
        let found = self.ok(&["exec", "--", "cat", "kept.txt"])?;
        ensure!(found.trim() == self.nonce, "kept.txt holds {found:?}");
        Ok(())
    }

    fn went_on(&self, command: &str, act: &[&str], phase: Option<&str>) -> Result<String> {
        let phase = phase.unwrap_or("not there");
        match command {
            "stop" => {
                let outcome = if phase == "stopped" { "finished" } else { "undone" };
                self.ok(act)?;
                self.ok(&["start"])?;
                self.kept()?;
                return Ok(outcome.into());
            }
            "rollback" => {
                let log = self.json(&["log"])?;
                let causes = log["checkpoints"].as_array().context("no checkpoints")?;
                let rolled = causes.iter().filter(|c| c["cause"] == "rollback").count();
                ensure!(rolled <= 1, "rolled back {rolled} times");
                if rolled == 0 {
                    self.kept()?;
                    self.ok(act)?;
                }
                ensure!(
                    !self.ctl("", &["exec", "--", "test", "-e", "kept.txt"])?.ok,
                    "kept.txt is there after the rollback"
                );
                self.ok(&["rollback", "kept"])?;
                self.kept()?;
                return Ok(if rolled == 0 { "undone" } else { "finished" }.into());
            }
            "apply" => {
                let there = !self.git(&self.project(), &["branch", "--list", "vcoding/faults"])?.is_empty();
                self.ok(act)?;
                let count = self.git(&self.project(), &["rev-list", "--count", "main..vcoding/faults"])?;
                ensure!(count.trim() == "1", "{count} commits came home");
                let home = self.git(&self.project(), &["show", "vcoding/faults:kept.txt"])?;
                ensure!(home.trim() == self.nonce, "home came {home:?}");
                self.kept()?;
                return Ok(if there { "finished" } else { "undone" }.into());
            }
            _ => {}
        }
        let outcome = if phase == "ready" { "finished" } else { "undone" };
        self.ok(act)?;
        if command == "up" {
            let first = self.ok(&["exec", "--", "cat", "a.txt"])?;
            ensure!(first == "first\n" || first == "first", "a.txt holds {first:?}");
        } else {
            self.kept()?;
        }
        Ok(outcome.into())
    }

    fn destroyed(&self, purge: bool, phase: Option<&str>) -> Result<String> {
        let outcome = match phase {
            None => "finished",
            Some(_) => {
                self.kept()?;
                self.ok(if purge { &["destroy", "--force", "--purge"] } else { &["destroy", "--force"] })?;
                "undone"
            }
        };
        let began = Instant::now();
        while self.json(&["ls"])?["workspaces"].as_array().is_some_and(|all| !all.is_empty()) {
            ensure!(began.elapsed() < SETTLED, "it is still there");
            std::thread::sleep(Duration::from_millis(50));
        }
        let trash: Vec<_> = std::fs::read_dir(self.state().join("trash")).into_iter().flatten().flatten().collect();
        if purge {
            ensure!(trash.is_empty(), "the trash holds {} after a purge", trash.len());
            let runs = self.json(&["runs", "--all"])?;
            ensure!(runs["runs"].as_array().is_some_and(Vec::is_empty), "its runs are known still");
        } else {
            ensure!(trash.len() == 1, "the trash holds {}", trash.len());
            let history = trash[0].path().join("host/history.git");
            self.git(&history, &["fsck", "--strict"])?;
            let all = self.git(&history, &["log", "--all", "--format=%H"])?;
            let found = all.lines().any(|commit| {
                self.git(&history, &["show", &format!("{commit}:kept.txt")]).is_ok_and(|text| text.trim() == self.nonce)
            });
            ensure!(found, "the trash has lost kept.txt");
            ensure!(!trash[0].path().join("host/keys").exists(), "the keys are in the trash");
        }
        Ok(outcome.into())
    }

    fn ran(&self) -> Result<String> {
        let began = Instant::now();
        let state = loop {
            let runs = self.json(&["runs"])?;
            let state = runs["runs"][0]["state"].as_str().unwrap_or("none").to_owned();
            if state != "starting" && state != "running" {
                break state;
            }
            ensure!(began.elapsed() < SETTLED, "the run is still {state}");
            std::thread::sleep(Duration::from_millis(50));
        };
        self.kept()?;
        match state.as_str() {
            "succeeded" => {
                let text = self.ok(&["exec", "--", "cat", "run.txt"])?;
                ensure!(text.trim() == self.nonce, "run.txt holds {text:?}");
                let said = self.ok(&["logs", "@"])?;
                ensure!(said.lines().filter(|line| line.trim() == "said").count() == 1, "its log is {said:?}");
            }
            "lost" | "failed" => {
                let there = self.ctl("", &["exec", "--", "test", "-e", "run.txt"])?.ok;
                ensure!(!there, "a run that is called {state} has done its work");
            }
            "none" => {}
            other => bail!("the run is {other}"),
        }
        Ok(match state.as_str() {
            "succeeded" => "finished".into(),
            "none" => "undone".into(),
            other => format!("known as {other}"),
        })
    }

    /// Nothing that nobody owns.
    fn nothing_is_left_over(&self, command: &str) -> Result<()> {
        let project = self.project();
        let changed = self.git(&project, &["status", "--porcelain"])?;
        ensure!(changed.is_empty(), "the project's files changed: {changed}");
        let doctor = self.ctl("", &["doctor"])?;
        ensure!(doctor.ok, "the doctor: {}", doctor.out);
        let gone = matches!(command, "destroy" | "purge");
        let filter = format!("label=vcoding.state-dir={}", self.state().display());
        let containers = program::read(Command::new("docker").args(["ps", "-aq", "--filter", &filter]))?;
        let expected = usize::from(!gone);
        ensure!(containers.lines().count() == expected, "{} containers: {containers}", containers.lines().count());
        let filter = format!("label=vcoding.peek={}", self.state().display());
        let peeks = program::read(Command::new("docker").args(["ps", "-aq", "--filter", &filter]))?;
        ensure!(peeks.is_empty(), "containers that were only looked into: {peeks}");
        let images = program::read(Command::new("docker").args([
            "images",
            "--format",
            "{{.Repository}}:{{.Tag}}",
            "vcoding/faults",
        ]))?;
        let half: Vec<&str> = images.lines().filter(|image| image.contains(":building-")).collect();
        ensure!(half.is_empty(), "half-made images: {half:?}");
        let most = usize::from(command != "purge");
        ensure!(images.lines().count() <= most, "images that nobody needs: {images}");
        let own: Vec<_> =
            std::fs::read_dir(self.state().join("workspaces"))?.flatten().map(|entry| entry.path()).collect();
        ensure!(own.len() == expected, "{} workspace directories", own.len());
        for directory in &own {
            self.git(&directory.join("host/history.git"), &["fsck", "--strict"])?;
            for place in [directory.clone(), directory.join("host"), directory.join("host/history.git")] {
                for entry in std::fs::read_dir(&place)?.flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    let temporary =
                        name.ends_with(".new") || name.ends_with(".lock") || name.starts_with(".vcoding-tmp-");
                    ensure!(!temporary, "{} was left behind", entry.path().display());
                }
            }
        }
        ensure!(!self.state().join("db.opening").exists(), "db.opening was left behind");
        let aside =
            std::fs::read_dir(self.state())?.flatten().any(|e| e.file_name().to_string_lossy().contains("unreadable"));
        ensure!(!aside, "the store was set aside");
        Ok(())
    }

    fn clean_up(&self) -> Result<()> {
        self.ctl("", &["destroy", "--force", "--purge"])?;
        self.ok(&["daemon", "stop"])?;
        let pid = self.daemon()?;
        let began = Instant::now();
        while Path::new(&format!("/proc/{pid}")).exists() && began.elapsed() < SETTLED {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::fs::remove_dir_all(&self.dir)?;
        Ok(())
    }
}
