//! A state directory, a configuration directory, projects, and the programs.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A command of the client that takes longer than this is a failure of its own.
const LONGEST: Duration = Duration::from_secs(300);

/// A uid that no account has.
const ORDINARY: u32 = 54_321;

/// One vcoding of its own. Its daemon and its guests end with it.
pub struct World {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
    /// Whoever types the commands, where that is not this process's own user: uid, and the group of the engine's socket.
    user: Option<(u32, u32)>,
    /// What is mounted in it.
    mounts: Vec<PathBuf>,
}

/// What a command left.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("vcoding-e2e.").tempdir().unwrap();
        for sub in ["config", "home"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        Self { dir, env: Vec::new(), user: None, mounts: Vec::new() }
    }

    /// Where an engine and a base image are; else says so and is none.
    pub fn with_engine(test: &str) -> Option<Self> {
        if engine() {
            return Some(Self::new());
        }
        let _told = writeln!(std::io::stderr(), "skipped: {test}: no container engine with the base image here");
        None
    }

    /// The same for an ordinary user who may use the engine, which takes root to be.
    pub fn of_ordinary_user(test: &str) -> Option<Self> {
        let mut world = Self::with_engine(test)?;
        let socket = std::fs::metadata("/var/run/docker.sock").map(|meta| meta.gid());
        let (true, Ok(group)) = (nix::unistd::geteuid().is_root(), socket) else {
            let _told = writeln!(std::io::stderr(), "skipped: {test}: only root can become another user");
            return None;
        };
        world.user = Some((ORDINARY, group));
        // Where that user can read them.
        std::fs::set_permissions(world.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(world.path("bin")).unwrap();
        for name in ["vcodingctl", "vcodingd"] {
            std::fs::copy(program(name), world.path("bin").join(name)).unwrap();
        }
        world.set("VCODING_DAEMON", world.path("bin/vcodingd").to_str().unwrap());
        world.give(world.dir.path());
        Some(world)
    }

    /// The ordinary user before somebody let it use the engine.
    pub fn out_of_the_group(mut self) -> Self {
        self.user = self.user.map(|(uid, _)| (uid, uid));
        self
    }

    /// Gives what lies there to the ordinary user.
    pub fn give(&self, path: &Path) {
        let (uid, _) = self.user.expect("there is another user");
        output(Command::new("chown").args(["-hR", &format!("{uid}:{uid}")]).arg(path));
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join(inside)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Every later command gets this, and so does a daemon that it starts.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// What was mounted there goes when this does, in this order.
    pub fn unmount_at_the_end(&mut self, places: impl IntoIterator<Item = PathBuf>) {
        self.mounts = places.into_iter().collect();
    }

    pub fn configure(&self, toml: &str) {
        std::fs::write(self.path("config/config.toml"), toml).unwrap();
    }

    /// A project with these files, each path relative to it.
    pub fn project(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let project = self.path(name);
        std::fs::create_dir_all(&project).unwrap();
        for (path, text) in files {
            let path = project.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        project
    }

    /// The same as a repository with one commit.
    pub fn repository(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let project = self.project(name, files);
        for args in [&["init", "-q", "-b", "main"][..], &["add", "-A"], &["commit", "-q", "-m", "first"]] {
            git(&project, args);
        }
        project
    }

    /// The client, to be run in `project`.
    pub fn command(&self, project: &Path, args: &[&str]) -> Command {
        let mut command = match self.user {
            None => Command::new(program("vcodingctl")),
            Some((uid, group)) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={uid}"), format!("--regid={uid}"), format!("--groups={group}")]);
                command.arg(self.path("bin/vcodingctl"));
                command
            }
        };
        command
            .args(args)
            .current_dir(project)
            .env("VCODING_STATE_DIR", self.state())
            .env("VCODING_CONFIG_DIR", self.path("config"))
            .env("VCODING_DAEMON", program("vcodingd"))
            .env("HOME", self.path("home"))
            .env_remove("VCODING_SOCKET")
            .env_remove("ANTHROPIC_API_KEY")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    pub fn ctl(&self, project: &Path, args: &[&str]) -> Ran {
        run(self.command(project, args))
    }

    /// The same, which has to end with 0.
    #[track_caller]
    pub fn ok(&self, project: &Path, args: &[&str]) -> Ran {
        let ran = self.ctl(project, args);
        assert_eq!(ran.status, 0, "{args:?}: {}{}\n{}", ran.out, ran.err, self.log());
        ran
    }

    /// `--json`, parsed.
    #[track_caller]
    pub fn json(&self, project: &Path, args: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(args);
        let ran = self.ok(project, &all);
        serde_json::from_str(ran.out.trim()).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", ran.out))
    }

    /// The end of the daemon's log, for a failure's text.
    pub fn log(&self) -> String {
        let days = std::fs::read_dir(self.state().join("log")).into_iter().flatten().flatten();
        let mut days: Vec<_> = days.map(|day| day.path()).collect();
        days.sort();
        let text: String = days.iter().map(|day| std::fs::read_to_string(day).unwrap()).collect();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// The directory of the one workspace that there is.
    pub fn own_directory(&self) -> PathBuf {
        let mut all = std::fs::read_dir(self.state().join("workspaces")).unwrap().flatten();
        let only = all.next().unwrap().path();
        assert!(all.next().is_none(), "one workspace");
        only
    }

    /// The daemon's pid, if one announced itself.
    pub fn daemon_pid(&self) -> Option<i32> {
        let text = std::fs::read(self.state().join("daemon.json")).ok()?;
        let file: Value = serde_json::from_slice(&text).ok()?;
        i32::try_from(file["pid"].as_i64()?).ok()
    }

    /// `kill -9` of the daemon, and its end waited for.
    pub fn kill_daemon(&self) {
        let pid = nix::unistd::Pid::from_raw(self.daemon_pid().expect("a daemon runs"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        wait_until(|| nix::sys::signal::kill(pid, None).is_err(), "the daemon's end");
    }

    /// The guest's container in the engine's words.
    pub fn container(&self, workspace: &str) -> String {
        let listed = self.json(self.dir.path(), &["ls"]);
        let all = listed["workspaces"].as_array().unwrap();
        let found = all.iter().find(|w| w["name"] == workspace).expect("the workspace is listed");
        format!("vcoding-{}", found["id"].as_str().unwrap())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end();
        for place in &self.mounts {
            output(Command::new("umount").arg("--lazy").arg(place));
        }
    }
}

impl World {
    fn end(&self) {
        let state = self.state();
        if !state.exists() {
            return;
        }
        if engine() {
            let listed = self.ctl(self.dir.path(), &["--json", "ls"]);
            let listed: Value = serde_json::from_str(listed.out.trim()).unwrap_or_default();
            for workspace in listed["workspaces"].as_array().into_iter().flatten() {
                let name = workspace["name"].as_str().unwrap_or_default();
                self.ctl(self.dir.path(), &["-w", name, "destroy", "--force", "--purge"]);
            }
            // What a broken daemon left.
            let filter = format!("label=vcoding.state-dir={}", state.display());
            let left = output(Command::new("docker").args(["ps", "-aq", "--filter", &filter]));
            for id in left.split_whitespace() {
                output(Command::new("docker").args(["rm", "-f", "-v", id]));
            }
        }
        self.ctl(self.dir.path(), &["daemon", "stop"]);
        if let Some(pid) = self.daemon_pid() {
            let pid = nix::unistd::Pid::from_raw(pid);
            let deadline = Instant::now() + Duration::from_secs(10);
            while nix::sys::signal::kill(pid, None).is_ok() && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
    }
}

/// The built program, beside this test's own directory.
pub fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let debug = here.ancestors().find(|dir| dir.join("deps").is_dir()).expect("a test lies in target/PROFILE/deps");
    let path = debug.join(name);
    assert!(path.is_file(), "{} is not built; `cargo xtask test` does that first", path.display());
    path
}

pub fn run(mut command: Command) -> Ran {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if waiting.recv_timeout(LONGEST) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _gone_already = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    });
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    drop(done);
    watchdog.join().unwrap();
    Ran {
        status: status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

pub fn output(command: &mut Command) -> String {
    String::from_utf8_lossy(&command.output().map(|o| o.stdout).unwrap_or_default()).into_owned()
}

/// git that reads nobody's configuration.
#[track_caller]
pub fn git(dir: &Path, args: &[&str]) -> String {
    let done = Command::new("git")
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "user.name=T", "-c", "user.email=t@localhost"])
        .args(args)
        .output()
        .unwrap();
    assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Whether an engine with the base image is here; asked once.
pub fn engine() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| {
        let asked = Command::new("docker").args(["image", "inspect", "debian:bookworm-slim"]).output();
        asked.is_ok_and(|o| o.status.success())
    })
}

#[track_caller]
pub fn wait_until(mut done: impl FnMut() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// The little shop with a failing test; every test's image is the same, so that it is built once.
pub const SHOP: [(&str, &str); 6] = [
    ("Dockerfile", include_str!("../../../xtask/demo/Dockerfile")),
    (".gitignore", include_str!("../../../xtask/demo/gitignore")),
    ("README.md", include_str!("../../../xtask/demo/README.md")),
    ("shop/__init__.py", include_str!("../../../xtask/demo/shop/__init__.py")),
    ("shop/cart.py", include_str!("../../../xtask/demo/shop/cart.py")),
    ("tests/test_cart.py", include_str!("../../../xtask/demo/tests/test_cart.py")),
];

/// Makes a file executable.
pub fn executable(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
