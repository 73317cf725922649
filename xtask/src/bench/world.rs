//! What is measured against what: our own workspace, and a stock container with a stock SSH server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::build::Programs;
use crate::{program, say};

const DOCKERFILE: &str = "FROM debian:bookworm-slim\n";
const PEER: &str = "FROM debian:bookworm-slim\nRUN apt-get update && apt-get install -y --no-install-recommends openssh-server \
                    && mkdir -p /run/sshd /root/.ssh\nCMD [\"/usr/sbin/sshd\", \"-D\"]\n";
const PEER_IMAGE: &str = "vcoding-bench/peer:1";
/// A wedged connection must not hang the bench.
const LIMIT: &str = "20";

pub struct World {
    pub dir: PathBuf,
    pub vcodingctl: PathBuf,
    vcodingd: PathBuf,
    peer: Option<Peer>,
}

pub struct Peer {
    pub container: String,
    pub pid: String,
    port: String,
    key: PathBuf,
    control: PathBuf,
}

impl World {
    pub fn new(programs: &Programs) -> Result<Self> {
        let dir = PathBuf::from(program::read(Command::new("mktemp").args(["-d", "-t", "vcoding-bench.XXXXXX"]))?);
        std::fs::create_dir(dir.join("config"))?;
        let mut world =
            Self { vcodingctl: programs.vcodingctl.clone(), vcodingd: programs.vcodingd.clone(), dir, peer: None };
        world.peer = Some(world.start_peer().context("the peer's container")?);
        Ok(world)
    }

    pub fn peer(&self) -> &Peer {
        self.peer.as_ref().expect("the peer was started with the world")
    }

    /// A project of `files` files, a hundred a directory, some 4 KB each.
    pub fn project(&self, files: usize) -> Result<PathBuf> {
        let project = self.dir.join(format!("p{files}"));
        std::fs::create_dir(&project)?;
        std::fs::write(project.join("Dockerfile"), DOCKERFILE)?;
        std::fs::write(project.join(".dockerignore"), "*\n")?;
        for n in 0..files {
            let dir = project.join(format!("d{}", n / 100));
            if n % 100 == 0 {
                std::fs::create_dir(&dir)?;
            }
            std::fs::write(dir.join(format!("f{n}.txt")), text(n, 4000))?;
        }
        let git = |args: &[&str]| program::run(self.git(&project).args(args));
        git(&["init", "-q", "-b", "main"])?;
        git(&["add", "-A"])?;
        git(&["commit", "-q", "-m", "first"])?;
        Ok(project)
    }

    pub fn ctl(&self, project: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.vcodingctl);
        command
            .args(args)
            .current_dir(project)
            .env("VCODING_STATE_DIR", self.dir.join("state"))
            .env("VCODING_CONFIG_DIR", self.dir.join("config"))
            .env("VCODING_DAEMON", &self.vcodingd)
            .env_remove("VCODING_SOCKET")
            .stdin(Stdio::null());
        command
    }

    pub fn git(&self, dir: &Path) -> Command {
        let mut git = Command::new("git");
        git.current_dir(dir).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").args([
            "-c",
            "user.name=B",
            "-c",
            "user.email=b@localhost",
            "-c",
            "gc.auto=0",
        ]);
        git
    }

    fn start_peer(&self) -> Result<Peer> {
        let context = self.dir.join("peer");
        std::fs::create_dir(&context)?;
        std::fs::write(context.join("Dockerfile"), PEER)?;
        say::step("building the peer's image (stock OpenSSH server)");
        program::read(Command::new("docker").args(["build", "-q", "-t", PEER_IMAGE]).arg(&context))?;
        let container = program::read(Command::new("docker").args(["run", "-d", "-p", "127.0.0.1::22", PEER_IMAGE]))?;
        let ask = |format: &str| program::read(Command::new("docker").args(["inspect", "-f", format, &container]));
        let port = ask("{{(index (index .NetworkSettings.Ports \"22/tcp\") 0).HostPort}}")?;
        let key = self.dir.join("key");
        program::run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key))?;
        let public = std::fs::read_to_string(key.with_extension("pub"))?;
        let install = format!("echo '{}' > /root/.ssh/authorized_keys", public.trim());
        program::run(Command::new("docker").args(["exec", &container, "sh", "-c", &install]))?;
        let peer = Peer { pid: ask("{{.State.Pid}}")?, port, key, control: self.dir.join("control"), container };
        // The master stays for the whole run.
        let mut master = peer.ssh(true);
        program::run(master.args(["-o", "ControlPersist=600", "-o", "ControlMaster=auto", "root@127.0.0.1", "true"]))?;
        Ok(peer)
    }

    pub fn daemon_memory(&self, when: &str) -> Result<()> {
        let file = std::fs::read_to_string(self.dir.join("state/daemon.json"))?;
        let pid = serde_json::from_str::<serde_json::Value>(&file)?["pid"].to_string();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find(|l| l.starts_with("VmRSS")).unwrap_or("VmRSS unknown");
        say::data(format_args!("\nthe daemon's resident memory, {when}: {}", rss.trim_start_matches("VmRSS:").trim()));
        Ok(())
    }
}

impl Peer {
    /// `ssh` with stock settings, by the master or with a connection of its own, under a time limit.
    pub fn ssh(&self, by_master: bool) -> Command {
        let mut ssh = Command::new("timeout");
        ssh.args([
            LIMIT,
            "ssh",
            "-F",
            "/dev/null",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args(["-o", "LogLevel=ERROR", "-p", &self.port, "-i"])
        .arg(&self.key)
        .arg("-o");
        match by_master {
            true => ssh.arg(format!("ControlPath={}", self.control.display())),
            false => ssh.arg("ControlPath=none"),
        };
        ssh.stdin(Stdio::null());
        ssh
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let quiet = |command: &mut Command| drop(command.stdout(Stdio::null()).stderr(Stdio::null()).status());
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.path().join("Dockerfile").exists() && entry.file_name() != "peer" {
                quiet(&mut self.ctl(&entry.path(), &["destroy", "--force", "--purge"]));
            }
        }
        quiet(&mut self.ctl(&self.dir, &["daemon", "stop"]));
        if let Some(peer) = &self.peer {
            quiet(peer.ssh(true).args(["-O", "exit", "root@127.0.0.1"]));
            quiet(Command::new("docker").args(["rm", "-f", &peer.container]));
        }
        if let Err(e) = std::fs::remove_dir_all(&self.dir) {
            say::line(format_args!("{} is left over: {e}", self.dir.display()));
        }
    }
}

/// Text that compresses about as source does, and differs by `n`.
pub fn text(n: usize, length: usize) -> String {
    let mut state = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut text = String::with_capacity(length + 16);
    while text.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = ["let", "value", "return", "self.", "for", "in", "match", "Some", "(x)", "=> {", "}"];
        text.push_str(word[(state >> 33) as usize % word.len()]);
        text.push(if (state >> 40).is_multiple_of(9) { '\n' } else { ' ' });
        if (state >> 50).is_multiple_of(5) {
            text.push_str(&format!("{:x}", (state >> 20) as u16));
        }
    }
    text
}
