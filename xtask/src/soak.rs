//! `cargo xtask soak MINUTES`: several clients at once, each with a project of its own, while daemon and guests are killed at random.
//!
//! Every failure has to be explained by a kill just before it. In the last third only guests are killed: what the daemon holds at its
//! end is compared with what it held then.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::build::{self, Profile, Programs};
use crate::program::{self, Captured};
use crate::{base_image, engine, say};

const DOCKERFILE: &str = "FROM debian:bookworm-slim\n";
const CLIENTS: usize = 4;
/// A command that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(180);
/// A kill of the daemon, or of a client's own guest, explains what fails within this.
const EXPLAINS: Duration = Duration::from_secs(12);
/// What the daemon may hold more at its end than at the beginning of its last third.
const MORE_KIB: u64 = 24 << 10;
const MORE_DESCRIPTORS: usize = 80;
const MORE_THREADS: usize = 24;
const BETWEEN_DAEMON_KILLS: u64 = 20;
const BETWEEN_GUEST_KILLS: u64 = 15;

pub fn run(minutes: u64) -> Result<()> {
    let engine = engine::ensure()?;
    base_image::ensure(&engine, base_image::DEBIAN)?;
    let built = build::run(Profile::Debug)?;
    let dir = PathBuf::from(program::read(Command::new("mktemp").args(["-d", "-t", "vcoding-soak.XXXXXX"]))?);
    // As they are now: somebody may build meanwhile.
    let programs = Programs {
        vcodingctl: dir.join("vcodingctl"),
        vcodingd: dir.join("vcodingd"),
        model_server: built.model_server,
    };
    for (from, to) in [(&built.vcodingctl, &programs.vcodingctl), (&built.vcodingd, &programs.vcodingd)] {
        std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let world = Arc::new(World {
        programs,
        dir,
        began: Instant::now(),
        killed: std::array::from_fn(|_| AtomicU64::new(0)),
        told: Mutex::default(),
    });
    say::step(format_args!("soak: {minutes} min, {CLIENTS} clients, in {}", world.dir.display()));
    let end = Duration::from_secs(minutes * 60);
    let calm = end * 2 / 3;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let world = world.clone();
            std::thread::spawn(move || {
                Client { world: &world, number: n, name: format!("soak{n}"), dice: Dice(n as u64 * 7919 + 1) }.work(end)
            })
        })
        .collect();
    let mut dice = Dice(u64::from(std::process::id()));
    let (mut daemons, mut guests) = (0, 0);
    let (mut next_daemon, mut next_guest) = (BETWEEN_DAEMON_KILLS, BETWEEN_GUEST_KILLS);
    let mut before = None;
    while world.began.elapsed() < end {
        std::thread::sleep(Duration::from_millis(200));
        let now = world.began.elapsed().as_secs();
        if world.began.elapsed() < calm && now >= next_daemon {
            if let Ok(pid) = world.daemon() {
                world.kill(CLIENTS, "the daemon", Command::new("kill").args(["-9", &pid.to_string()]));
                daemons += 1;
            }
            next_daemon = now + BETWEEN_DAEMON_KILLS / 2 + dice.below(BETWEEN_DAEMON_KILLS);
        }
        if now >= next_guest {
            let all = world.containers("-q")?;
            let all: Vec<&str> = all.lines().collect();
            if !all.is_empty() {
                let victim = all[usize::try_from(dice.below(all.len() as u64))?];
                let how = if dice.below(2) == 0 { &["kill"][..] } else { &["rm", "-f"] };
                let label = "{{index .Config.Labels \"vcoding.workspace\"}}";
                let whose =
                    program::read(Command::new("docker").args(["inspect", "-f", label, victim])).unwrap_or_default();
                if let Some(n) = whose.trim().strip_prefix("soak").and_then(|n| n.parse::<usize>().ok()) {
                    world.kill(n, &whose, Command::new("docker").args(how).arg(victim));
                }
                guests += 1;
            }
            next_guest = now + BETWEEN_GUEST_KILLS / 2 + dice.below(BETWEEN_GUEST_KILLS);
        }
        if before.is_none() && world.began.elapsed() > calm + Duration::from_secs(10) {
            before = world.holds().ok();
        }
    }
    for client in clients {
        client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
    }
    let looked = world.settled(before).and_then(|after| Ok((after, world.left_over()?)));
    let fine = looked.and_then(|(after, left)| world.report(minutes, daemons, guests, before, &after, &left));
    let ended = world.end();
    fine?;
    ended?;
    std::fs::remove_dir_all(&world.dir).or(Ok(()))
}

struct World {
    programs: Programs,
    dir: PathBuf,
    began: Instant,
    /// When the daemon, and each client's guest, was last killed, in milliseconds since the beginning.
    killed: [AtomicU64; CLIENTS + 1],
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    done: BTreeMap<String, u64>,
    explained: BTreeMap<String, u64>,
    unexplained: Vec<String>,
}

/// What a daemon holds.
#[derive(Debug, Clone, Copy)]
struct Holds {
    kib: u64,
    descriptors: usize,
    threads: usize,
}

impl World {
    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Containers of this state directory, by `docker ps` with these arguments.
    fn containers(&self, all: &str) -> Result<String> {
        let filter = format!("label=vcoding.state-dir={}", self.state().display());
        program::read(Command::new("docker").args(["ps", all, "--filter", &filter]))
    }

    fn kill(&self, whose: usize, what: &str, command: &mut Command) {
        self.killed[whose].store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(0), Ordering::SeqCst);
        let done = program::capture(command, LIMIT);
        say::line(format_args!(
            "    {:>5} s  killed {}{}",
            self.began.elapsed().as_secs(),
            what.trim(),
            if done.is_ok_and(|d| d.ok) { "" } else { " (gone)" }
        ));
    }

    fn explained(&self, client: usize) -> bool {
        [client, CLIENTS].into_iter().any(|whose| {
            let killed = self.killed[whose].load(Ordering::SeqCst);
            killed > 0 && self.began.elapsed() < Duration::from_millis(killed) + EXPLAINS
        })
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn daemon(&self) -> Result<u64> {
        let file: Value = serde_json::from_slice(&std::fs::read(self.state().join("daemon.json"))?)?;
        file["pid"].as_u64().context("daemon.json has no pid")
    }

    fn holds(&self) -> Result<Holds> {
        let pid = self.daemon()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(Holds {
            kib: rss.trim().trim_end_matches(" kB").parse()?,
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            threads: std::fs::read_dir(format!("/proc/{pid}/task"))?.count(),
        })
    }

    /// What it holds when what was under way has gone; connections take a moment to end.
    fn settled(&self, before: Option<Holds>) -> Result<Holds> {
        let began = Instant::now();
        loop {
            let now = self.holds()?;
            if before.is_none_or(|before| now.descriptors <= before.descriptors) || began.elapsed() > EXPLAINS * 3 {
                return Ok(now);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// What is there although every workspace was destroyed.
    fn left_over(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let containers = self.containers("-aq")?;
        left.extend(containers.lines().map(|id| format!("container {id}")));
        let filter = format!("label=vcoding.peek={}", self.state().display());
        let peeks = program::read(Command::new("docker").args(["ps", "-aq", "--filter", &filter]))?;
        left.extend(peeks.lines().map(|id| format!("container {id}, looked into")));
        let images = program::read(Command::new("docker").args(["images", "--format", "{{.Repository}}:{{.Tag}}"]))?;
        left.extend(
            images.lines().filter(|image| image.starts_with("vcoding/soak")).map(|image| format!("image {image}")),
        );
        for place in ["workspaces", "trash"] {
            let entries = std::fs::read_dir(self.state().join(place)).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        let aside =
            std::fs::read_dir(self.state())?.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("db.un"));
        left.extend(aside.map(|entry| entry.path().display().to_string()));
        Ok(left)
    }

    fn report(
        &self,
        minutes: u64,
        daemons: u32,
        guests: u32,
        before: Option<Holds>,
        after: &Holds,
        left: &[String],
    ) -> Result<()> {
        let told = self.told();
        let list = |all: &BTreeMap<String, u64>| {
            all.iter().map(|(what, n)| format!("{n} {what}")).collect::<Vec<_>>().join(", ")
        };
        say::data(format_args!("\n{minutes} min, {CLIENTS} clients; killed: {daemons} daemons, {guests} guests"));
        say::data(format_args!("done       {}", list(&told.done)));
        say::data(format_args!("explained  {}", list(&told.explained)));
        if let Some(before) = before {
            say::data(format_args!(
                "the daemon at the beginning and the end of its last third: {} and {} KiB, {} and {} descriptors, {} and {} threads",
                before.kib, after.kib, before.descriptors, after.descriptors, before.threads, after.threads
            ));
        }
        let disk = program::read(Command::new("du").arg("-sk").arg(self.state()))?;
        say::data(format_args!(
            "left after every workspace was purged: {} KiB; {} things nobody owns",
            disk.split_whitespace().next().unwrap_or("?"),
            left.len()
        ));
        for what in told.unexplained.iter().chain(left) {
            say::data(format_args!("WRONG      {what}"));
        }
        if let Some(before) = before {
            let fits = after.kib <= before.kib + MORE_KIB
                && after.descriptors <= before.descriptors + MORE_DESCRIPTORS
                && after.threads <= before.threads + MORE_THREADS;
            ensure!(fits, "the daemon holds more and more: {before:?}, then {after:?}");
        }
        if !told.unexplained.is_empty() || !left.is_empty() {
            bail!(
                "{} errors without an explanation, {} things left; kept: {}",
                told.unexplained.len(),
                left.len(),
                self.dir.display()
            );
        }
        Ok(())
    }

    fn end(&self) -> Result<()> {
        let stop = Client { world: self, number: 0, name: "soak0".into(), dice: Dice(1) }.ctl(&["daemon", "stop"])?;
        ensure!(stop.ok, "the daemon did not stop: {}", stop.err);
        Ok(())
    }
}

/// Numbers that look like chance.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

struct Client<'a> {
    world: &'a World,
    number: usize,
    name: String,
    dice: Dice,
}

impl Client<'_> {
    fn project(&self) -> PathBuf {
        self.world.dir.join(&self.name)
    }

    fn ctl(&self, args: &[&str]) -> Result<Captured> {
        let mut command = Command::new(&self.world.programs.vcodingctl);
        command
            .args(args)
            .current_dir(self.project())
            .env("VCODING_STATE_DIR", self.world.state())
            .env("VCODING_CONFIG_DIR", self.world.dir.join("config"))
            .env("VCODING_DAEMON", &self.world.programs.vcodingd)
            .env_remove("VCODING_SOCKET")
            .stdin(Stdio::null());
        program::capture(&mut command, LIMIT)
    }

    fn work(mut self, end: Duration) -> Result<()> {
        let project = self.project();
        std::fs::create_dir(&project)?;
        std::fs::write(project.join("Dockerfile"), DOCKERFILE)?;
        for n in 0..200 {
            std::fs::write(project.join(format!("f{n}.txt")), format!("{n}\n").repeat(200))?;
        }
        program::run(Command::new("git").args(["init", "-q", "-b", "main"]).arg(&project))?;
        self.heal();
        let mut turn = 0_u64;
        while self.world.began.elapsed() < end {
            turn += 1;
            let nonce = format!("{}-{turn}", self.name);
            let fine = match self.dice.below(12) {
                0..=4 => self.says(
                    "exec",
                    &nonce,
                    &["exec", "--", "sh", "-c", &format!("echo {nonce} >> seen.txt; echo {nonce}")],
                ),
                5..=6 => self.says(
                    "run",
                    &nonce,
                    &["run", "--", "sh", "-c", &format!("sleep 0.3; echo {nonce} > run.txt; echo {nonce}")],
                ),
                7 => self.does("checkpoint", &["checkpoint"]),
                8 => self.does("rollback", &["rollback", "base"]),
                9 => self.does("diff", &["diff", "--stat"]),
                10 => self.does("stop", &["stop"]) && self.does("start", &["start"]),
                _ => self.does("destroy", &["destroy", "--force", "--purge"]) && self.does("up", &["up"]),
            };
            if !fine {
                self.heal();
            }
        }
        self.heal();
        for _ in 0..5 {
            if self.ctl(&["destroy", "--force", "--purge"])?.ok {
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        self.wrong("destroy at the end", &self.ctl(&["destroy", "--force", "--purge"])?);
        Ok(())
    }

    /// Until it is up again; that takes more than one try only while things are being killed.
    fn heal(&mut self) {
        for _ in 0..20 {
            if self.does("up", &["up"]) {
                return;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn does(&mut self, what: &str, args: &[&str]) -> bool {
        self.tried(what, args, |_| true)
    }

    /// Prints a line of its own, to its very end.
    fn says(&mut self, what: &str, nonce: &str, args: &[&str]) -> bool {
        self.tried(what, args, |done| done.out.lines().any(|line| line.trim() == nonce))
    }

    fn tried(&mut self, what: &str, args: &[&str], right: impl Fn(&Captured) -> bool) -> bool {
        let done = match self.ctl(args) {
            Ok(done) => done,
            Err(error) => {
                self.world.told().unexplained.push(format!("{}: {what}: {error:#}", self.name));
                return false;
            }
        };
        if done.ok && right(&done) {
            *self.world.told().done.entry(what.to_owned()).or_default() += 1;
            return true;
        }
        if done.ok || done.timed_out || !self.world.explained(self.number) {
            self.wrong(what, &done);
        } else {
            *self.world.told().explained.entry(what.to_owned()).or_default() += 1;
        }
        false
    }

    fn wrong(&self, what: &str, done: &Captured) {
        let said: String = done.err.chars().rev().take(600).collect::<Vec<_>>().into_iter().rev().collect();
        let at = self.world.began.elapsed().as_secs();
        let how = if done.timed_out {
            "hung"
        } else if done.ok {
            "did not say what it was to"
        } else {
            "failed"
        };
        say::line(format_args!("    {at:>5} s  {}: {what} {how}: {said}", self.name));
        self.world.told().unexplained.push(format!("{} s, {}: {what} {how}: {} {said}", at, self.name, done.out));
    }
}
