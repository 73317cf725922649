//! `init`: what it writes, and its questions on a real terminal.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use protocol::{Error, Kind};

use crate::fake::{Fake, Step};
use crate::{snapshot, vcodingctl};

/// Nobody answers where nothing is called.
fn nobody() -> Fake {
    Fake::start(&[])
}

fn project(fake: &Fake, files: &[(&str, &str)]) -> std::path::PathBuf {
    let project = fake.directory.path().join("shop");
    std::fs::create_dir_all(&project).unwrap();
    for (path, text) in files {
        std::fs::write(project.join(path), text).unwrap();
    }
    project
}

#[test]
fn init_writes_what_is_missing_and_leaves_what_is_there() {
    for (name, files) in [
        ("init-new", &[("pyproject.toml", "[build-system]\n")][..]),
        (
            "init-merged",
            &[("Cargo.toml", "[package]\n"), ("Dockerfile", "FROM mine\n"), (".gitignore", "/target\n")][..],
        ),
        ("init-empty", &[][..]),
    ] {
        let fake = nobody();
        let project = project(&fake, files);
        // Thrice, by pipes, with --json and on a terminal: a project each.
        let copy = fake.directory.path().join("copy");
        let run = |args: &[&str]| {
            let _none = std::fs::remove_dir_all(&copy);
            assert!(Command::new("cp").arg("-a").args([&project, &copy]).status().unwrap().success());
            let mut command = vcodingctl::command(&fake, args);
            command.current_dir(&copy);
            command
        };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let piped = run(&["init"]).output().unwrap();
        let json = run(&["--json", "init"]).output().unwrap();
        let terminal = vcodingctl::command_on_terminal(run(&["init"]), 80);
        let tree = fake.directory.path().to_string_lossy().into_owned();
        let seen = format!(
            "──── stdout\n{}──── stderr\n{}──── --json, stdout\n{}──── terminal, 80 columns\n{terminal}",
            text(piped.stdout),
            text(piped.stderr),
            text(json.stdout),
        );
        assert_eq!((piped.status.code(), json.status.code()), (Some(0), Some(0)), "{seen}");
        snapshot::compare(name, &seen.replace(&tree, "[DIR]"));
        let dockerfile = std::fs::read_to_string(copy.join("Dockerfile")).unwrap();
        assert_eq!(dockerfile == "FROM mine\n", name == "init-merged");
        // Once more there is nothing to do.
        let mut again = vcodingctl::command(&fake, &["init"]);
        let again = again.current_dir(&copy).output().unwrap();
        assert!(text(again.stdout).contains("nothing to write"), "{name}");
    }
}

#[test]
fn what_cannot_be_answered_or_made_is_said() {
    let fake = nobody();
    let project = project(&fake, &[]);
    let own = fake.directory.path().join("templates/ours");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("template.toml"), "title = \"Ours\"\n").unwrap();
    std::fs::write(own.join("Dockerfile"), "FROM {{ bass }}\n").unwrap();
    let fails = |args: &[&str], said: &str| {
        let output = vcodingctl::command(&fake, args).current_dir(&project).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && err.contains(said), "{args:?}: {err}");
    };
    fails(&["init", "--language", "cobol"], "\"cobol\" is none of python, node, go, rust, java, plain");
    fails(&["init", "--set", "colour=red"], "has no question \"colour\"; it asks nothing");
    fails(&["init", "--language", "go", "--set", "colour=red"], "it asks version");
    fails(&["init", "--language", "go", "--set", "version=0"], "\"0\" is none of");
    fails(&["init", "--template", "ours"], "Dockerfile uses the unknown variable bass");
    fails(&["init", "--template", "nowhere"], "nowhere");
    let home = vcodingctl::command(&fake, &["init"]).current_dir(&project).env("HOME", &project).output().unwrap();
    assert!(String::from_utf8_lossy(&home.stderr).contains("is no project's directory"));
    assert_eq!(std::fs::read_dir(&project).unwrap().count(), 0, "nothing was written by any of it");
}

#[test]
fn a_template_of_ones_own_is_found_by_name_and_answered_on_the_command_line() {
    let fake = nobody();
    let project = project(&fake, &[]);
    let own = fake.directory.path().join("templates/ours");
    std::fs::create_dir_all(own.join("ci")).unwrap();
    let manifest =
        "title = \"Ours\"\n[[questions]]\nname = \"team\"\nask = \"Which team?\"\ndefault = \"{{ name }}-team\"\n";
    std::fs::write(own.join("template.toml"), manifest).unwrap();
    std::fs::write(own.join("Dockerfile"), "FROM debian\nLABEL team={{ team }}\n").unwrap();
    std::fs::write(own.join("ci/{{ team }}.yml"), "on: push\n").unwrap();
    let args = ["init", "--template", "ours", "--set", "team=red"];
    let output = vcodingctl::command(&fake, &args).current_dir(&project).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(project.join("Dockerfile")).unwrap(), "FROM debian\nLABEL team=red\n");
    assert!(project.join("ci/red.yml").is_file());
}

/// A terminal of its own, in which a person types.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// None where there is no tmux.
    fn start(test: &str, fake: &Fake, project: &Path, columns: u16) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            let _told = writeln!(std::io::stderr(), "skipped: {test}: no tmux here");
            return None;
        }
        let socket = format!("vcoding-{test}-{}", std::process::id());
        let terminal = Self { socket };
        let directory = fake.directory.path().display().to_string();
        let path = Path::new(env!("CARGO_BIN_EXE_vcodingctl")).parent().unwrap().display().to_string();
        let columns = columns.to_string();
        let mut tmux = terminal.tmux();
        tmux.args(["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", "30"]);
        for (name, value) in [
            ("VCODING_STATE_DIR", directory.as_str()),
            ("VCODING_CONFIG_DIR", &directory),
            ("VCODING_SOCKET", &fake.socket().display().to_string()),
            ("PS1", "$ "),
            ("NO_COLOR", "1"),
        ] {
            tmux.args(["-e", &format!("{name}={value}")]);
        }
        tmux.arg("-c").arg(project).args(["env", "-u", "HISTFILE", &format!("PATH={path}:/usr/bin:/bin"), "sh"]);
        assert!(tmux.status().unwrap().success());
        terminal.shows("$");
        Some(terminal)
    }

    fn tmux(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.args(["-L", &self.socket]);
        tmux
    }

    fn types(&self, text: &str) {
        assert!(self.tmux().args(["send-keys", text, "Enter"]).status().unwrap().success());
    }

    fn screen(&self) -> String {
        let output = self.tmux().args(["capture-pane", "-p"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.trim_end().to_owned()
    }

    /// Waits until the last line begins so.
    #[track_caller]
    fn shows(&self, last: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.screen().lines().last().is_some_and(|line| line.starts_with(last)) {
            assert!(Instant::now() < deadline, "{last:?} is not there:\n{}", self.screen());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone = self.tmux().arg("kill-server").output();
    }
}

#[test]
fn the_wizard_asks_on_a_terminal_and_takes_answers_as_people_type_them() {
    let fake = nobody();
    let project =
        project(&fake, &[("package.json", "{\"dependencies\": {\"express\": \"4\"}, \"scripts\": {\"test\": \"x\"}}")]);
    let Some(terminal) = Terminal::start("wizard", &fake, &project, 80) else { return };
    terminal.types("clear; vcodingctl init");
    terminal.shows("? What is it written in?");
    terminal.types("");
    terminal.shows("? What is it for?");
    terminal.types("lib");
    terminal.shows("? Which Node.js?");
    terminal.types("7");
    terminal.shows("? Which Node.js?");
    terminal.types("22");
    terminal.shows("Write this?");
    terminal.types("n");
    terminal.shows("$");
    assert!(!project.join("Dockerfile").exists(), "no is no");
    terminal.types("clear; vcodingctl init");
    for question in ["? What is it written in?", "? What is it for?", "? Which Node.js?", "Write this?"] {
        terminal.shows(question);
        terminal.types("");
    }
    terminal.shows("$");
    snapshot::compare("wizard-80", &(terminal.screen() + "\n"));
    let dockerfile = std::fs::read_to_string(project.join("Dockerfile")).unwrap();
    assert!(dockerfile.contains("FROM node:24-bookworm-slim") && dockerfile.contains("curl"), "{dockerfile}");
}

#[test]
fn ctrl_c_in_the_wizard_leaves_everything_as_it_was() {
    let fake = nobody();
    let project = project(&fake, &[]);
    let Some(terminal) = Terminal::start("wizard-ctrl-c", &fake, &project, 80) else { return };
    terminal.types("clear; vcodingctl init; echo ended with $?");
    terminal.shows("? What is it written in?");
    assert!(terminal.tmux().args(["send-keys", "C-c"]).status().unwrap().success());
    terminal.shows("$");
    assert!(terminal.screen().contains("ended with 130"), "{}", terminal.screen());
    assert_eq!(std::fs::read_dir(&project).unwrap().count(), 0);
}

#[test]
fn up_without_a_dockerfile_offers_to_write_one_and_goes_on() {
    let refused = Error::new(Kind::NoDockerfile, "the project has no Dockerfile").hint("vcodingctl init");
    let fake = Fake::start(&[("workspace.up", vec![Step::Refuse(refused)])]);
    let project = project(&fake, &[("go.mod", "module x\n")]);
    let Some(terminal) = Terminal::start("up-offers", &fake, &project, 100) else { return };
    terminal.types("clear; vcodingctl --project . up");
    terminal.shows("Have it written now");
    terminal.types("");
    for question in ["? What is it written in?", "? What is it for?", "? Which Go?", "Write this?"] {
        terminal.shows(question);
        terminal.types("");
    }
    terminal.shows("$");
    assert!(project.join("Dockerfile").is_file());
    assert_eq!(fake.calls().len(), 2, "and then it was tried again");
    // Where nobody can answer, nobody is asked.
    std::fs::remove_file(project.join("Dockerfile")).unwrap();
    let output = vcodingctl::command(&fake, &["--project", ".", "up"]).current_dir(&project).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("hint: vcodingctl init"));
    assert!(!project.join("Dockerfile").exists());
}
