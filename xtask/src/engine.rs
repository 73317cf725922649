//! The container engine: found, or installed and started.
//!
//! An engine that answers is never touched, whoever runs it. Only where none answers, and only as root, is the
//! distribution's engine installed and started; an ordinary user is told what to type.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{packages, program, say};

/// Where the distribution's engine listens.
const SOCKET: &str = "/var/run/docker.sock";
/// Where an engine that we started writes.
const LOG: &str = "/var/log/vcoding-dockerd.log";
/// An engine that loads many containers takes its time.
const START: Duration = Duration::from_secs(60);
/// One question to an engine that answers at all.
const ANSWER: Duration = Duration::from_secs(20);

/// An engine that answered.
#[derive(Debug)]
pub struct Engine {
    /// The engine's own version, as it says it.
    pub version: String,
    /// Its storage driver.
    pub driver: String,
}

/// What can be known without an answer.
#[derive(Debug, PartialEq, Eq)]
enum Silence {
    /// Nothing listens and no engine program is there.
    NotInstalled,
    /// An engine program is there, nothing listens.
    NotRunning,
    /// It listens, but not to us.
    Denied,
    /// It took the connection and does not answer, or it is somewhere else (`DOCKER_HOST`, a context).
    Mute(String),
}

/// An engine that answers: the one that is there, or (root only) the distribution's, installed and started now.
///
/// # Errors
/// Says what to type where we cannot do it ourselves.
pub fn ensure() -> Result<Engine> {
    match look()? {
        Ok(engine) => Ok(engine),
        Err(Silence::Denied) => bail!(
            "the container engine at {SOCKET} does not listen to this user: type `sudo usermod -aG docker $USER`, log in again, \
             then run this again"
        ),
        Err(Silence::Mute(said)) => {
            bail!("the container engine does not answer: {said}; `docker info` shows more")
        }
        Err(Silence::NotInstalled) => {
            packages::install(&["docker.io", "iptables"], "no container engine here")?;
            if program::find("docker").is_none() {
                // Newer releases ship the client by itself.
                packages::install(&["docker-cli"], "no client for the container engine")?;
            }
            start()
        }
        Err(Silence::NotRunning) => start(),
    }
}

/// The engine that answers now, without doing anything about it; `None` where none does.
pub fn present() -> Option<Engine> {
    look().ok().and_then(Result::ok)
}

/// The engine's client with nothing said yet.
pub fn docker() -> Command {
    Command::new("docker")
}

fn look() -> Result<Result<Engine, Silence>> {
    if program::find("docker").is_none() {
        return Ok(Err(silence("")));
    }
    let asked = program::capture(docker().args(["info", "--format", "{{.ServerVersion}} {{.Driver}}"]), ANSWER)?;
    // Some clients print the template's empty halves and exit 0 when nobody answers.
    let mut words = asked.out.split_whitespace();
    if asked.ok
        && let (Some(version), Some(driver)) = (words.next(), words.next())
    {
        return Ok(Ok(Engine { version: version.to_owned(), driver: driver.to_owned() }));
    }
    Ok(Err(silence(asked.err.trim())))
}

fn silence(said: &str) -> Silence {
    if let Some(host) = std::env::var_os("DOCKER_HOST") {
        return Silence::Mute(format!("DOCKER_HOST is {}: {said}", host.display()));
    }
    let socket = UnixStream::connect(SOCKET).map(drop).map_err(|e| e.kind());
    judge(socket, program::find("dockerd").is_some(), said)
}

fn judge(socket: Result<(), ErrorKind>, program: bool, said: &str) -> Silence {
    match socket {
        Ok(()) => Silence::Mute(said.to_owned()),
        Err(ErrorKind::PermissionDenied) => Silence::Denied,
        Err(_) if program => Silence::NotRunning,
        Err(_) => Silence::NotInstalled,
    }
}

fn start() -> Result<Engine> {
    // The package's own scripts may have started it.
    if let Some(engine) = present() {
        return Ok(engine);
    }
    let systemd = Path::new("/run/systemd/system").exists();
    if !program::is_root() {
        let command =
            if systemd { "sudo systemctl start docker" } else { "sudo sh -c 'dockerd >/var/log/dockerd.log 2>&1 &'" };
        bail!("the container engine is installed but does not run: type `{command}`, then run this again");
    }
    if systemd {
        say::step("starting the container engine: systemctl start docker");
        program::run(Command::new("systemctl").args(["start", "docker"]))?;
        return wait(None);
    }
    let dockerd = program::find("dockerd").context("dockerd is not installed")?;
    say::step(format_args!(
        "starting the container engine: {} (it stays after this command; its log is {LOG})",
        dockerd.display()
    ));
    fs::create_dir_all("/var/log").context("cannot create /var/log")?;
    let log = OpenOptions::new().create(true).append(true).open(LOG).with_context(|| format!("cannot write {LOG}"))?;
    let child = Command::new(&dockerd)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        // A group of its own: an interrupt typed at this command is not meant for the engine.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", dockerd.display()))?;
    wait(Some(child))
}

fn wait(mut child: Option<std::process::Child>) -> Result<Engine> {
    let deadline = Instant::now() + START;
    loop {
        if let Some(engine) = present() {
            return Ok(engine);
        }
        if let Some(child) = &mut child
            && let Some(status) = child.try_wait()?
        {
            bail!("the container engine ended at once ({status}); {LOG} ends:\n{}", tail(&PathBuf::from(LOG)));
        }
        if Instant::now() >= deadline {
            bail!(
                "the container engine did not answer within {} s; {LOG} ends:\n{}",
                START.as_secs(),
                tail(&PathBuf::from(LOG))
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_refuses_us_is_a_matter_of_permission_even_when_the_program_is_there() {
        assert_eq!(judge(Err(ErrorKind::PermissionDenied), true, ""), Silence::Denied);
    }

    #[test]
    fn no_socket_and_no_program_means_not_installed() {
        assert_eq!(judge(Err(ErrorKind::NotFound), false, ""), Silence::NotInstalled);
    }

    #[test]
    fn a_dead_socket_of_an_installed_engine_means_not_running() {
        assert_eq!(judge(Err(ErrorKind::ConnectionRefused), true, ""), Silence::NotRunning);
        assert_eq!(judge(Err(ErrorKind::NotFound), true, ""), Silence::NotRunning);
    }

    #[test]
    fn an_engine_that_takes_the_connection_and_says_nothing_is_never_replaced() {
        assert_eq!(judge(Ok(()), true, "timeout"), Silence::Mute("timeout".into()));
    }
}
