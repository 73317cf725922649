//! What may be typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as Group, Parser, Subcommand};
use protocol::time::parse_duration;
use protocol::workspace::WhileRunning;

/// What the keyboard does to a run that is followed.
const FOLLOWING: &str = "\
Ctrl-C cancels the run and waits for its end; a second Ctrl-C stops waiting. Closing the terminal,
or losing the connection, leaves the run going: vcodingctl logs -f @ follows it again.

The exit status is 0 if the agent succeeded, 1 if it failed, 4 if a budget was used up, 6 if the
model endpoint refused, 124 at the time limit, 130 when cancelled; after -- the command's own.";

#[derive(Debug, Parser)]
#[command(
    name = "vcodingctl",
    version,
    about = "Gives a coding agent a computer of its own, and you the way back.",
    max_term_width = 100,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Group)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// The workspace, by name or id (default: the one of the project you are in)
    #[arg(short, long, global = true, value_name = "NAME")]
    pub workspace: Option<String>,
    /// The project's directory (default: found from where you are)
    #[arg(long, global = true, value_name = "DIR")]
    pub project: Option<PathBuf>,
    /// Print JSON: one document, or one a line for streams
    #[arg(long, global = true)]
    pub json: bool,
    /// Say less on standard error
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more: build output, thinking, tool output
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Never colour
    #[arg(long, global = true)]
    pub no_color: bool,
    /// The daemon's socket
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
// Only the command that is typed is built in full: the client lives for a millisecond.
#[command(defer = true)]
pub enum Command {
    /// Write what a project needs for a guest: Dockerfile, vcoding.toml and ignore rules
    Init(Init),
    /// Make this project's workspace, or make sure that it runs
    Up {
        /// Build the image again, with the engine's cache
        #[arg(long)]
        rebuild: bool,
        /// Build it again without the cache: newer packages
        #[arg(long)]
        no_cache: bool,
        /// Bring a destroyed workspace back, with its files: its id or name (`ls --trash`), :CHECKPOINT to go back to that
        #[arg(long, value_name = "ID[:CP]", conflicts_with_all = ["rebuild", "no_cache"])]
        from: Option<String>,
    },
    /// Run a command in the guest; its exit status is the command's
    Exec(Exec),
    /// Open a terminal in the guest
    Shell,
    /// Run an agent (or a background command after --) and follow it
    #[command(
        after_help = FOLLOWING,
        override_usage = "vcodingctl run [OPTIONS] AGENT PROMPT\n       vcodingctl run [OPTIONS] -- CMD..."
    )]
    Run(Run),
    /// List runs, newest first
    Runs {
        /// Of all workspaces
        #[arg(short, long)]
        all: bool,
    },
    /// Show a run's events
    Logs {
        /// The run: its id, the beginning or end of it (at least 4 digits), or @ for the newest
        #[arg(default_value = "@")]
        run: String,
        /// Follow until the run ends
        #[arg(short, long)]
        follow: bool,
        /// The agent's own output, as it wrote it
        #[arg(long)]
        raw: bool,
    },
    /// Make a page of a run to look at: prompt, timeline, diffs, checkpoints
    Report {
        /// The run: its id, the beginning or end of it (at least 4 digits), or @ for the newest
        #[arg(default_value = "@")]
        run: String,
        /// Where to (default: report-RUN.html here; - is standard output)
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// End a run with everything it started
    Cancel {
        /// The run: its id, the beginning or end of it (at least 4 digits), or @ for the newest
        run: String,
    },
    /// Record the work tree as it is
    Checkpoint {
        /// A name for it
        #[arg(short = 'm', long = "label", value_name = "LABEL")]
        label: Option<String>,
    },
    /// List checkpoints, newest first
    Log {
        /// At most so many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Show what changed between two checkpoints (default: from base to now)
    Diff {
        /// From this checkpoint (default: base)
        from: Option<String>,
        /// To this one (default: the work tree as it is now)
        to: Option<String>,
        /// List the files only
        #[arg(long)]
        stat: bool,
        /// Only these
        #[arg(last = true, value_name = "PATH")]
        paths: Vec<OsString>,
    },
    /// Bring the work tree back to a checkpoint
    Rollback {
        /// The checkpoint: base, @~1, run:ID^, a label, the first digits of its id
        to: String,
        #[command(flatten)]
        runs: BesideRuns,
        /// Move to the trash what was made since then and no checkpoint holds: ignored files, caches
        #[arg(long)]
        clean: bool,
        /// Only these
        #[arg(last = true, value_name = "PATH")]
        paths: Vec<OsString>,
    },
    /// Take the work home as a branch; your working tree is not touched
    Apply {
        /// The branch (default: vcoding/WORKSPACE)
        #[arg(long, value_name = "NAME")]
        branch: Option<String>,
        #[command(flatten)]
        runs: BesideRuns,
    },
    /// Copy files of the work tree out: artifacts, reports, whatever is in no branch
    Collect {
        /// Which, relative to the project: `*` ends at a slash, `**` does not; a directory means all in it
        #[arg(required = true, value_name = "GLOB")]
        globs: Vec<OsString>,
        /// Where to (default: the project; files keep their directories)
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        /// Replace what is there and differs
        #[arg(long)]
        force: bool,
    },
    /// See and grant what the project asks for beyond the defaults
    Consent(Answer),
    /// List workspaces
    Ls {
        /// Those that were destroyed and are still kept
        #[arg(long)]
        trash: bool,
    },
    /// End what nobody needs: destroyed workspaces whose time is over, images that no workspace has
    Gc {
        /// Every destroyed workspace
        #[arg(long)]
        trash: bool,
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
    },
    /// Show a workspace, and what really isolates it
    Show,
    /// Start a stopped guest
    Start,
    /// Stop the guest; its files and history stay
    Stop {
        #[command(flatten)]
        runs: BesideRuns,
    },
    /// End a workspace
    Destroy {
        /// Even if there is work that was never applied
        #[arg(long)]
        force: bool,
        /// Keep nothing in the trash
        #[arg(long)]
        purge: bool,
    },
    /// Keep keys on the host, out of every guest
    Secret {
        #[command(subcommand)]
        command: Secret,
    },
    /// Say what is wrong, with the command that mends it
    Doctor,
    /// Show who did what
    Audit(Audit),
    /// The daemon itself
    Daemon {
        #[command(subcommand)]
        command: Daemon,
    },
    /// Print a script that completes commands: bash, elvish, fish, powershell, zsh
    Completion { shell: clap_complete::Shell },
    /// Help on a command or a topic: exit-status, names, environment
    Help {
        /// A command's words, or a topic
        #[arg(value_name = "COMMAND|TOPIC")]
        words: Vec<String>,
    },
    /// Write the manual pages
    #[command(hide = true)]
    Man { directory: PathBuf },
    /// Print the version
    Version,
}

#[derive(Debug, Default, Group)]
pub struct Init {
    /// Ask nothing: take what the project looks like
    #[arg(short, long)]
    pub yes: bool,
    /// python, node, go, rust, java or plain
    #[arg(long, value_name = "NAME")]
    pub language: Option<String>,
    /// application, library, "web service" or data
    #[arg(long, value_name = "NAME")]
    pub purpose: Option<String>,
    /// The agent that works in it
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// A template of your own: a directory, or its name in the configuration's templates/
    #[arg(long, value_name = "DIR")]
    pub template: Option<PathBuf>,
    /// The answer to a question of the template
    #[arg(long, value_name = "NAME=ANSWER", value_parser = pair)]
    pub set: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, Group)]
pub struct Answer {
    /// Agree without being asked
    #[arg(long, conflicts_with = "withdraw")]
    pub agree: bool,
    /// Take back what was agreed to of vcoding.toml
    #[arg(long)]
    pub withdraw: bool,
}

#[derive(Debug, Group)]
pub struct Exec {
    /// Pass standard input on (it always is; for those used to docker exec)
    #[arg(short, long)]
    pub interactive: bool,
    /// With a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Set an environment variable (without =VALUE: this shell's)
    #[arg(short, long, value_name = "K=V")]
    pub env: Vec<OsString>,
    /// In this directory, relative to /work
    #[arg(short = 'C', long, value_name = "DIR")]
    pub directory: Option<OsString>,
    /// End it after this long: 90, 90s, 5m, 2h
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub timeout: Option<u64>,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub argv: Vec<OsString>,
}

#[derive(Debug, Group)]
pub struct Run {
    /// The agent (default: the one that vcoding.toml names), and what it is asked (- reads it from standard input)
    #[arg(value_name = "AGENT PROMPT", num_args = 0..=2, required_unless_present = "argv", conflicts_with = "argv")]
    pub agent: Vec<String>,
    /// Print the run's id and leave it going
    #[arg(short, long)]
    pub detach: bool,
    /// Go on with the session of that run
    #[arg(long, value_name = "RUN")]
    pub resume: Option<String>,
    /// End it after this long: 90, 90s, 5m, 2h
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub timeout: Option<u64>,
    /// End it after so many model requests
    #[arg(long, value_name = "N")]
    pub max_requests: Option<u64>,
    /// The model
    #[arg(long)]
    pub model: Option<String>,
    /// Show the agent's own output, as it writes it
    #[arg(long)]
    pub raw: bool,
    /// A background command instead of an agent
    #[arg(last = true, value_name = "CMD")]
    pub argv: Vec<OsString>,
}

/// What becomes of runs under way, where the command would end them or change files under them.
#[derive(Debug, Clone, Copy, Group)]
pub struct BesideRuns {
    /// Although runs are under way
    #[arg(long, conflicts_with = "wait")]
    force: bool,
    /// Wait until no run is under way
    #[arg(long)]
    wait: bool,
}

impl From<BesideRuns> for WhileRunning {
    fn from(asked: BesideRuns) -> Self {
        match (asked.force, asked.wait) {
            (true, _) => Self::Force,
            (false, true) => Self::Wait,
            (false, false) => Self::Refuse,
        }
    }
}

#[derive(Debug, Group)]
pub struct Audit {
    /// Not older than this: 5m, 2h, 7d, or a time as 2026-11-28T17:00:00Z
    #[arg(long, value_name = "D|TIME", value_parser = since)]
    pub since: Option<protocol::Timestamp>,
    /// This method, or this group of methods: workspace.up, workspace
    #[arg(long, value_name = "NAME")]
    pub method: Option<String>,
    /// Only what failed or was refused
    #[arg(long)]
    pub failed: bool,
    /// The newest so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    pub limit: u32,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Daemon {
    /// Start it, if it does not run
    Start,
    /// End it; guests and runs go on
    Stop,
    /// Say whether it runs, and for which state directory
    Status,
    /// Make it a service of yours: started by the first connection, restarted if it fails
    Install,
    /// Make it no service any more
    Uninstall,
    /// Print the end of its log
    Logs {
        /// So many lines
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
        lines: usize,
        /// Go on with what is written from now on
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Secret {
    /// Keep a key; its value is read from standard input, or asked for
    Set {
        /// As the agent's environment variable: ANTHROPIC_API_KEY
        name: String,
    },
    /// List the names of the keys that are there, never their values
    Ls,
    /// Forget a key
    Rm { name: String },
}

/// A time, or so long ago.
fn since(text: &str) -> Result<protocol::Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = parse_duration(text).map_err(|e| format!("{e}; or a time like 2026-11-28T17:00:00Z"))?;
    let ago = i64::try_from(ago).unwrap_or(i64::MAX);
    Ok(protocol::Timestamp::from_unix_ms(protocol::Timestamp::now().unix_ms().saturating_sub(ago)))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, answer) = text.split_once('=').ok_or("write it like version=3.12")?;
    Ok((name.to_owned(), answer.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn everything_after_execs_first_word_belongs_to_the_command() {
        let args = Args::try_parse_from(["vcodingctl", "exec", "-it", "ls", "--json", "-l"]).unwrap();
        let Command::Exec(exec) = args.command else { panic!() };
        assert!(exec.tty && exec.interactive && !args.global.json);
        assert_eq!(exec.argv, ["ls", "--json", "-l"]);
    }
}
