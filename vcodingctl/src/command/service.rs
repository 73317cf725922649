//! `daemon install / uninstall`: the daemon as a service of the user's own service manager.
//!
//! Nobody needs it: a command that finds no daemon starts one. As a service it is restarted when it fails, its log is where the
//! others are, and it is there before the first command.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use client::{Places, start};
use protocol::daemon::NoParams;
use protocol::methods::{Shutdown, Status};
use protocol::{Error, Kind};
use serde::Serialize;

use super::{Outcome, Session};
use crate::printer::Printer;

const SOCKET: &str = "vcodingd.socket";
const SERVICE: &str = "vcodingd.service";
const UNITS: [(&str, &str); 2] = [
    (SOCKET, include_str!("../../../systemd/vcodingd.socket")),
    (SERVICE, include_str!("../../../systemd/vcodingd.service")),
];

/// How long a service may take to its first answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was written.
#[derive(Debug, Serialize)]
struct Installed {
    units: Vec<PathBuf>,
    socket: PathBuf,
    daemon: PathBuf,
}

pub fn install(session: &Session, printer: &Printer) -> Outcome {
    let places = &session.places;
    let (directory, daemon) = (units_directory()?, daemon_program()?);
    manager(&["show-environment"])?;
    DirBuilder::new().recursive(true).mode(0o755).create(&directory).map_err(|e| unwritten(&directory, &e))?;
    let mut units = Vec::new();
    for (name, text) in UNITS {
        let path = directory.join(name);
        write(&path, &filled_in(text, places, &daemon, |name| std::env::var(name).ok()))?;
        units.push(path);
    }
    end_daemon(places);
    manager(&["daemon-reload"])?;
    manager(&["enable", "--now", SOCKET])?;
    // It answers, or what was installed is good for nothing.
    let answered = start::connect(places).and_then(|mut daemon| {
        daemon.wait_at_most(PATIENCE)?;
        daemon.call::<Status>(&NoParams {})
    });
    answered.map_err(does_not_answer)?;
    let installed = Installed { units, socket: places.socket.clone(), daemon };
    if printer.json {
        printer.document(&installed);
        return Ok(0);
    }
    for unit in &installed.units {
        printer.line(&format!("wrote {}", unit.display()));
    }
    printer.line("the daemon starts with the first connection, and again if it fails");
    printer.next_of(&[
        ("journalctl --user -u vcodingd", "what it says"),
        ("loginctl enable-linger", "keep it when you log out"),
        ("vcodingctl daemon uninstall", "the way back"),
    ]);
    Ok(0)
}

pub fn uninstall(printer: &Printer) -> Outcome {
    let directory = units_directory()?;
    let there: Vec<PathBuf> =
        UNITS.iter().map(|(name, _)| directory.join(name)).filter(|path| path.symlink_metadata().is_ok()).collect();
    if !there.is_empty() {
        manager(&["disable", "--now", SOCKET, SERVICE])?;
        for path in &there {
            std::fs::remove_file(path).map_err(|e| unwritten(path, &e))?;
        }
        manager(&["daemon-reload"])?;
        // One that failed is remembered by name; none that did not is known any more.
        let _unknown = manager(&["reset-failed", SOCKET, SERVICE]);
    }
    if printer.json {
        printer.document(&serde_json::json!({ "units": there }));
    } else if there.is_empty() {
        printer.line("the daemon is no service here");
    } else {
        printer.line("the daemon is no service any more; guests go on, and the next command starts it as before");
    }
    Ok(0)
}

fn units_directory() -> Result<PathBuf, Error> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let config = config.ok_or_else(|| Error::new(Kind::Usage, "neither XDG_CONFIG_HOME nor HOME is set"))?;
    Ok(config.join("systemd/user"))
}

/// The daemon's real path: a unit outlives the directory it was typed in.
fn daemon_program() -> Result<PathBuf, Error> {
    let program = start::daemon_program();
    let found = if program.components().count() > 1 {
        Some(program.clone())
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join(&program)).find(|path| path.is_file())
    };
    found.and_then(|path| path.canonicalize().ok()).ok_or_else(|| {
        Error::new(Kind::DaemonUnreachable, format!("{} is not there", program.display()))
            .hint("put vcodingd beside vcodingctl, or set VCODING_DAEMON to its path")
    })
}

/// The running daemon goes, so that the service's own finds the state directory free.
fn end_daemon(places: &Places) {
    if let Ok(mut daemon) = start::connect(places)
        && daemon.call::<Shutdown>(&NoParams {}).is_ok()
    {
        while daemon.receive().is_ok() {}
    }
}

/// The service is there and its daemon does not answer: what became of it is the manager's to say.
fn does_not_answer(error: Error) -> Error {
    if error.kind() != Kind::DaemonUnreachable {
        return error;
    }
    let said = manager(&["show", SERVICE, "--property=Result,ExecMainStatus"]).unwrap_or_default();
    let said = if said.is_empty() { said } else { format!(" ({})", said.replace('\n', ", ")) };
    Error::new(
        Kind::DaemonUnreachable,
        format!("the service was installed, and its daemon does not answer: {error}{said}"),
    )
    .hint("journalctl --user -u vcodingd; without a service: vcodingctl daemon uninstall")
}

/// What the user's service manager answers.
fn manager(args: &[&str]) -> Result<String, Error> {
    let none = |why: &str| {
        Error::new(Kind::Usage, format!("there is no service manager of yours here: {why}"))
            .hint("nothing has to be installed: any command starts the daemon by itself")
    };
    let mut command = Command::new("systemctl");
    command.arg("--user").args(args).stdin(Stdio::null());
    match command.output() {
        Err(error) => Err(none(&format!("systemctl: {error}"))),
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if args == ["show-environment"] {
                return Err(none(&said));
            }
            Err(Error::new(Kind::Internal, format!("systemctl --user {}: {said}", args.join(" ")))
                .hint("systemctl --user status vcodingd"))
        }
    }
}

fn filled_in(text: &str, places: &Places, daemon: &Path, variable: impl Fn(&str) -> Option<String>) -> String {
    // A service manager's environment is another than this shell's: what was found here is written down.
    let found = [
        ("VCODING_STATE_DIR", Some(places.state.to_string_lossy().into_owned())),
        ("VCODING_CONFIG_DIR", Some(places.config.to_string_lossy().into_owned())),
        ("DOCKER_HOST", variable("DOCKER_HOST")),
    ];
    let environment: Vec<String> = found
        .into_iter()
        .filter_map(|(name, value)| value.filter(|value| !value.is_empty()).map(|value| (name, value)))
        .map(|(name, value)| format!("Environment={}", quoted(&format!("{name}={value}"))))
        .collect();
    text.replace("@DAEMON@", &quoted(&daemon.to_string_lossy()))
        .replace("@SOCKET@", &places.socket.to_string_lossy().replace('%', "%%"))
        .replace("@ENVIRONMENT@\n", &environment.iter().map(|line| format!("{line}\n")).collect::<String>())
}

/// A word as systemd reads it.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, path)).map_err(|e| unwritten(path, &e))
}

fn unwritten(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Kind::Internal, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_name_the_program_the_socket_and_what_was_moved() {
        let places = Places {
            state: "/a b/%x".into(),
            config: "/c".into(),
            socket: "/run/user/7/100%/vcodingd.sock".into(),
            explicit_socket: None,
        };
        let fill = |text: &str| {
            let variable = |name: &str| (name == "DOCKER_HOST").then(|| "unix:///d.sock".to_owned());
            filled_in(text, &places, Path::new("/opt/a \"b\"/vcodingd"), variable)
        };
        let service = fill(UNITS[1].1);
        assert!(service.contains("\nExecStart=\"/opt/a \\\"b\\\"/vcodingd\"\n"), "{service}");
        assert!(service.contains("\nEnvironment=\"VCODING_STATE_DIR=/a b/%%x\"\n"), "{service}");
        assert!(service.contains("\nEnvironment=\"DOCKER_HOST=unix:///d.sock\"\nRestart="), "{service}");
        let socket = fill(UNITS[0].1);
        assert!(socket.contains("\nListenStream=/run/user/7/100%%/vcodingd.sock\n"), "{socket}");
        for unit in [service, socket] {
            assert!(
                !unit.lines().any(|line| !line.starts_with('#')
                    && line.contains('@')
                    && !line.contains("=@")
                    && !line.contains("=~@")),
                "{unit}"
            );
        }
    }
}
