//! The daemon under a real service manager of the user's.
//!
//! A program of its own, since cargo runs those one after the other: where systemd does not run the machine, a manager of root's takes
//! every control group for its own, and removes those that are empty when it begins and ends, a container's that is just being
//! started among them.

#[allow(dead_code, reason = "shared with the other end-to-end tests")]
#[path = "it/world.rs"]
mod world;

use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use world::{Ran, SHOP, World, run};

/// For the same reason only one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// systemd as a user's manager, in a directory of its own.
struct Manager {
    child: Child,
    runtime: PathBuf,
}

impl Manager {
    const PROGRAM: &str = "/lib/systemd/systemd";

    /// None, and said so, where systemd is not here or may not be one.
    fn start(world: &mut World, test: &str) -> Option<Self> {
        let runtime = world.path("runtime");
        std::fs::DirBuilder::new().mode(0o700).create(&runtime).unwrap();
        world.set("XDG_CONFIG_HOME", world.path("xdg").to_str().unwrap());
        world.set("XDG_RUNTIME_DIR", runtime.to_str().unwrap());
        // Never the one of whoever runs this: systemctl would ask there if nobody answers here.
        world.set("DBUS_SESSION_BUS_ADDRESS", &Self::bus(&runtime));
        let told = |why: &str| {
            let _told = writeln!(std::io::stderr(), "skipped: {test}: {why}");
        };
        let log = std::fs::File::create(world.path("manager")).unwrap();
        let child = Command::new(Self::PROGRAM)
            .args(["--user", "--log-target=console", "--unit=basic.target"])
            .env("XDG_RUNTIME_DIR", &runtime)
            .env("DBUS_SESSION_BUS_ADDRESS", Self::bus(&runtime))
            .env("XDG_CONFIG_HOME", world.path("xdg"))
            .env("HOME", world.path("home"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let Ok(child) = child else {
            told("systemd is not here");
            return None;
        };
        let mut manager = Self { child, runtime };
        // Whether there can be one here is the machine's affair, and no failure of ours.
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline && manager.child.try_wait().unwrap().is_none() {
            let listens = manager.runtime.join("systemd/private").exists();
            if listens && manager.ask(&["is-active", "basic.target"]).out.trim() == "active" {
                return Some(manager);
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let said = std::fs::read_to_string(world.path("manager")).unwrap();
        told(&said.lines().collect::<Vec<_>>().join(" | "));
        None
    }

    fn bus(runtime: &Path) -> String {
        format!("unix:path={}", runtime.join("bus").display())
    }

    fn ask(&self, args: &[&str]) -> Ran {
        let mut command = Command::new("systemctl");
        command.arg("--user").args(args).stdin(Stdio::null());
        command.env("XDG_RUNTIME_DIR", &self.runtime).env("DBUS_SESSION_BUS_ADDRESS", Self::bus(&self.runtime));
        run(command)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // As `systemctl exit` does it.
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _gone = kill(pid, Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Its walls are the kernel's, which no stand-in has: everything that the daemon does goes through them once.
#[test]
fn under_a_real_service_manager_the_main_job_is_done() {
    let _alone = alone();
    let Some(mut world) = World::with_engine("a real service manager") else { return };
    let Some(manager) = Manager::start(&mut world, "a real service manager") else { return };
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["daemon", "install"]);
    let pid = manager.ask(&["show", "--value", "--property=MainPID", "vcodingd.service"]).out;
    assert_eq!(world.daemon_pid(), Some(pid.trim().parse().unwrap()));
    world.ok(&project, &["up"]);
    world.ok(&project, &["exec", "--", "sh", "-c", "echo nonce-4711 > new; sed -i 1d README.md"]);
    world.ok(&project, &["checkpoint", "-m", "first"]);
    world.ok(&project, &["exec", "--", "rm", "new"]);
    world.ok(&project, &["rollback", "first"]);
    assert_eq!(world.ok(&project, &["exec", "--", "cat", "new"]).out, "nonce-4711\n");
    world.ok(&project, &["run", "--", "echo", "done"]);
    world.ok(&project, &["collect", "new", "--to", "taken"]);
    world.ok(&project, &["apply"]);
    // Killed, it is back by itself.
    world.kill_daemon();
    assert_eq!(world.ok(&project, &["exec", "--", "cat", "new"]).out, "nonce-4711\n");
    assert_eq!(manager.ask(&["is-active", "vcodingd.service"]).out, "active\n");
    world.ok(&project, &["destroy", "--force", "--purge"]);
    world.ok(&project, &["daemon", "uninstall"]);
    assert_eq!(manager.ask(&["list-units", "--all", "--plain", "--no-legend", "vcodingd*"]).out, "");
}

#[test]
fn a_service_whose_daemon_does_not_start_is_said_at_once() {
    let _alone = alone();
    let mut world = World::new();
    let Some(manager) = Manager::start(&mut world, "a service that does not start") else { return };
    let project = world.project("p", &[]);
    let mut install = world.command(&project, &["daemon", "install"]);
    install.env("VCODING_DAEMON", "/bin/false");
    let ran = run(install);
    assert_eq!(ran.status, 7, "{}", ran.err);
    assert!(ran.err.contains("its daemon does not answer") && ran.err.contains("ExecMainStatus=1"), "{}", ran.err);
    assert!(ran.err.contains("journalctl --user -u vcodingd; without a service: vcodingctl daemon uninstall"));
    world.ok(&project, &["daemon", "uninstall"]);
    assert_eq!(manager.ask(&["list-units", "--all", "--plain", "--no-legend", "vcodingd*"]).out, "");
}
