//! The daemon under a service manager: the socket that is handed over, the word that it is ready, and the units.

use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{World, executable, program, run, wait_until};

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
