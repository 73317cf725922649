//! The daemon under a service manager: the socket that is handed over, the word that it is ready, and the units.

use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{Ran, SHOP, World, executable, program, run, wait_until};

/// Whether systemd's tools are here; a manager is not needed.
fn tools(test: &str) -> bool {
    let there = Command::new("systemd-socket-activate").arg("--version").output().is_ok_and(|o| o.status.success());
    if !there {
        let _told = writeln!(std::io::stderr(), "skipped: {test}: systemd's tools are not here");
    }
    there
}

fn daemon(world: &World) -> Command {
    let mut command = Command::new(program("vcodingd"));
    place(&mut command, world);
    command
}

fn place(command: &mut Command, world: &World) {
    command
        .env("VCODING_STATE_DIR", world.state())
        .env("VCODING_CONFIG_DIR", world.path("config"))
        .env_remove("VCODING_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
}

fn end(mut child: Child) {
    let _gone = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM);
    child.wait().unwrap();
}

#[test]
fn a_service_manager_is_told_when_calls_are_answered_and_when_that_ends() {
    let world = World::new();
    let path = world.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let child = daemon(&world).env("NOTIFY_SOCKET", &path).spawn().unwrap();
    let said = || {
        let mut said = [0; 100];
        let length = manager.recv(&mut said).unwrap();
        String::from_utf8_lossy(&said[..length]).trim().to_owned()
    };
    assert_eq!(said(), "READY=1");
    world.ok(&world.project("p", &[]), &["daemon", "status"]);
    end(child);
    assert_eq!(said(), "STOPPING=1");
}

#[test]
fn a_socket_that_was_handed_over_is_served_announced_and_left_where_it_is() {
    if !tools("socket activation") {
        return;
    }
    let world = World::new();
    let socket = world.path("handed/vcodingd.sock");
    std::fs::DirBuilder::new().mode(0o700).create(socket.parent().unwrap()).unwrap();
    let mut activate = Command::new("systemd-socket-activate");
    activate.arg("-l").arg(&socket);
    for name in ["VCODING_STATE_DIR", "VCODING_CONFIG_DIR"] {
        activate.args(["-E", name]);
    }
    activate.arg(program("vcodingd"));
    place(&mut activate, &world);
    let child = activate.spawn().unwrap();
    wait_until(|| socket.exists(), "the socket");
    let project = world.project("p", &[]);
    assert!(world.daemon_pid().is_none(), "nobody has called yet");
    let status = world.json(&project, &["--socket", socket.to_str().unwrap(), "daemon", "status"]);
    assert_eq!(status["pid"], child.id());
    // Others find it by daemon.json.
    assert_eq!(world.json(&project, &["daemon", "status"])["pid"], child.id());
    end(child);
    assert!(socket.exists(), "the manager listens on it");
}

/// In the part of a user's service manager: what it is told is written down, and a socket is listened on by systemd's own tool.
const MANAGER: &str = r#"#!/bin/sh
echo "$*" >> "$HOME/told"
case "$*" in *"enable --now vcodingd.socket")
    units="$XDG_CONFIG_HOME/systemd/user"
    listen=$(sed -n 's/^ListenStream=//p' "$units/vcodingd.socket")
    program=$(sed -n 's/^ExecStart="\(.*\)"$/\1/p' "$units/vcodingd.service")
    mkdir -p -m 700 "$(dirname "$listen")"
    rm -f "$listen"
    setsid systemd-socket-activate -l "$listen" -E VCODING_STATE_DIR -E VCODING_CONFIG_DIR "$program" >/dev/null 2>&1 </dev/null &
    while ! [ -S "$listen" ]; do :; done
esac
"#;

fn with_a_manager(world: &mut World) -> PathBuf {
    let bin = world.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join("systemctl"), MANAGER).unwrap();
    executable(&bin.join("systemctl"));
    let units = world.path("xdg");
    world.set("PATH", &format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    world.set("XDG_CONFIG_HOME", units.to_str().unwrap());
    units.join("systemd/user")
}

#[test]
fn install_makes_a_service_of_the_daemon_and_uninstall_takes_it_back() {
    if !tools("daemon install") {
        return;
    }
    let mut world = World::new();
    let units = with_a_manager(&mut world);
    let project = world.project("p", &[]);
    // One that runs already makes room.
    world.ok(&project, &["daemon", "start"]);
    let before = world.daemon_pid();
    let installed = world.json(&project, &["daemon", "install"]);
    assert_eq!(installed["units"][1], units.join("vcodingd.service").to_str().unwrap());
    assert_ne!(world.daemon_pid(), before);
    let told = std::fs::read_to_string(world.path("home/told")).unwrap();
    assert!(told.ends_with("--user daemon-reload\n--user enable --now vcodingd.socket\n"), "{told}");
    units_are_sound(&world, &units);
    world.ok(&project, &["daemon", "stop"]);
    world.ok(&project, &["daemon", "uninstall"]);
    assert!(!units.join("vcodingd.service").exists() && !units.join("vcodingd.socket").exists());
    assert!(world.ok(&project, &["daemon", "uninstall"]).out.contains("no service here"));
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

/// As systemd itself judges them.
fn units_are_sound(world: &World, units: &Path) {
    let runtime = world.path("runtime");
    std::fs::DirBuilder::new().mode(0o700).create(&runtime).unwrap();
    let analyze = |args: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(args).current_dir(units).env("XDG_RUNTIME_DIR", &runtime);
        run(command)
    };
    let verified = analyze(&["verify", "--user", "--man=no", "./vcodingd.service", "./vcodingd.socket"]);
    assert!(verified.status == 0 && verified.err.is_empty(), "{}{}", verified.out, verified.err);
    // Tenths: what needs a mount namespace is not to be had in a user's manager.
    let judged = analyze(&["security", "--user", "--offline=true", "--threshold=66", "./vcodingd.service"]);
    assert_eq!(judged.status, 0, "{}{}", judged.out, judged.err);
}

#[test]
fn without_a_service_manager_install_says_that_nothing_is_needed() {
    let mut world = World::new();
    let bin = world.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join("systemctl"), "#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n").unwrap();
    executable(&bin.join("systemctl"));
    world.set("PATH", &format!("{}:/usr/bin:/bin", bin.display()));
    let ran = world.ctl(&world.project("p", &[]), &["daemon", "install"]);
    assert_eq!(ran.status, 2, "{}", ran.err);
    assert!(
        ran.err.contains("Failed to connect to bus") && ran.err.contains("starts the daemon by itself"),
        "{}",
        ran.err
    );
}

/// What launchd gets is well-formed, and nothing else in it is ours to fill in.
#[test]
fn the_launchd_agent_is_well_formed() {
    let text = include_str!("../../../launchd/dev.vcoding.vcodingd.plist");
    let filled = text.replace("@DAEMON@", "/usr/local/bin/vcodingd").replace("@ENVIRONMENT@", "");
    let script = "import plistlib, sys; p = plistlib.loads(sys.stdin.buffer.read()); print(p['Label'], p['ProgramArguments'][0])";
    let mut python = Command::new("python3");
    python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = python.spawn() else {
        let _told = writeln!(std::io::stderr(), "skipped: launchd: no python3 here");
        return;
    };
    child.stdin.take().unwrap().write_all(filled.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "dev.vcoding.vcodingd /usr/local/bin/vcodingd\n");
}
