//! The demo's stage: a project, a state directory and a daemon that end with it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::build::Programs;
use crate::{program, say};

/// The project's files, as they stand in the tree; git's own are named so that they do nothing there.
const FILES: [(&str, &str); 6] = [
    ("Dockerfile", include_str!("../../demo/Dockerfile")),
    (".gitignore", include_str!("../../demo/gitignore")),
    ("README.md", include_str!("../../demo/README.md")),
    ("shop/__init__.py", include_str!("../../demo/shop/__init__.py")),
    ("shop/cart.py", include_str!("../../demo/shop/cart.py")),
    ("tests/test_cart.py", include_str!("../../demo/tests/test_cart.py")),
];

/// How a command of the play must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    Well,
    /// With this exit status: the play shows something that fails, and a success would be a lie.
    With(i32),
}

#[derive(Debug)]
pub struct Stage {
    dir: PathBuf,
    vcodingctl: PathBuf,
    environment: Vec<(OsString, OsString)>,
    /// Started beside the daemon, ended with the stage.
    helpers: Vec<Child>,
}

impl Stage {
    /// The project, committed, in a fresh private directory.
    pub fn set(programs: &Programs) -> Result<Self> {
        let dir = program::read(Command::new("mktemp").args(["-d", "-t", "vcoding-demo.XXXXXX"]))?;
        let dir = PathBuf::from(dir);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let beside = programs.vcodingd.parent().context("a program lies in a directory")?;
        let stage = Self {
            vcodingctl: programs.vcodingctl.clone(),
            environment: vec![
                ("VCODING_STATE_DIR".into(), dir.join("state").into()),
                ("VCODING_CONFIG_DIR".into(), dir.join("config").into()),
                // The client is another build than the daemon and looks for it beside itself, then here.
                (
                    "PATH".into(),
                    std::env::join_paths(std::iter::once(beside.to_path_buf()).chain(std::env::split_paths(&path)))?,
                ),
            ],
            helpers: Vec::new(),
            dir,
        };
        fs::create_dir_all(stage.config())?;
        for (name, text) in FILES {
            let file = stage.project().join(name);
            fs::create_dir_all(file.parent().context("a file has a directory")?)?;
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        for args in [
            &["init", "--quiet", "--initial-branch=main"][..],
            &["add", "--all"],
            &["commit", "--quiet", "--message", "A cart that adds up prices"],
        ] {
            program::run(stage.quiet_git().args(args))?;
        }
        Ok(stage)
    }

    /// Where the demo's user configuration lies.
    pub fn config(&self) -> PathBuf {
        self.dir.join("config")
    }

    pub fn project(&self) -> PathBuf {
        self.dir.join("shop")
    }

    /// A file of the stage itself, outside project, state and configuration.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Ends with the stage.
    pub fn keep(&mut self, helper: Child) {
        self.helpers.push(helper);
    }

    /// Every later command gets this, and so does the daemon it starts.
    pub fn set_env(&mut self, name: &str, value: impl Into<OsString>) {
        self.environment.push((name.into(), value.into()));
    }

    pub fn tell(&self, text: &str) {
        say::line(format_args!("\n# {text}"));
    }

    /// Types a command for the person to see, and holds it to its end.
    pub fn ctl(&self, args: &[&str], ends: Ends) -> Result<()> {
        let mut shown = Command::new("vcodingctl");
        shown.args(args);
        say::line(format_args!("$ {}", program::line(&shown)));
        let status = self.client().args(args).status();
        let status = status.with_context(|| format!("cannot run {}", self.vcodingctl.display()))?;
        let wanted = match ends {
            Ends::Well => 0,
            Ends::With(code) => code,
        };
        if status.code() != Some(wanted) {
            bail!("`{}` ended with {status}, expected status {wanted}", program::line(&shown));
        }
        if wanted != 0 {
            say::line(format_args!("  (status {wanted}, as it should be)"));
        }
        Ok(())
    }

    /// A command of git in the project, shown.
    pub fn git(&self, args: &[&str]) -> Result<()> {
        let mut shown = Command::new("git");
        shown.args(args);
        say::line(format_args!("$ {}", program::line(&shown)));
        program::run(self.quiet_git().args(args))
    }

    fn client(&self) -> Command {
        let mut command = Command::new(&self.vcodingctl);
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env_remove("VCODING_SOCKET")
            .stdin(Stdio::null())
            .current_dir(self.project());
        command
    }

    /// git that knows who commits and reads nobody's configuration.
    fn quiet_git(&self) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(self.project())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(["-c", "user.name=Demo", "-c", "user.email=demo@localhost"]);
        command
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // After a play that broke off the workspace is still there; after a whole one these find nothing to do.
        let state = self.dir.join("state");
        if state.exists() {
            for args in [&["destroy", "--force", "--purge"][..], &["daemon", "stop"]] {
                let _ = self.client().args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
            }
        }
        for helper in &mut self.helpers {
            let _ = helper.kill();
            let _ = helper.wait();
        }
        clear(&self.dir);
    }
}

fn clear(dir: &Path) {
    if let Err(e) = fs::remove_dir_all(dir) {
        say::line(format_args!("{} is left over: {e}", dir.display()));
    }
}
