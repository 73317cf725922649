//! Help beyond what the arguments say of themselves: examples, topics, manual pages.
//!
//! None of it is made before somebody asks for it.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Command, CommandFactory};
use protocol::{Error, Kind};

use crate::args::Args;

/// Two examples of each command, by its words: what is typed, and what comes of it.
const EXAMPLES: &[(&str, [(&str, &str); 2])] = &[
    ("init", [("init", "look, ask, and write what is missing"), ("init --yes --language go", "ask nothing")]),
    ("up", [("up", "make the guest, or make sure that it runs"), ("up --rebuild", "after a change of the Dockerfile")]),
    ("exec", [("exec -- npm test", "its exit status is the command's"), ("exec -it -- python3", "with a terminal")]),
    ("shell", [("shell", "in this project's guest"), ("-w shop shell", "in the guest named shop, from anywhere")]),
    (
        "run",
        [
            ("run claude \"make the failing test pass\"", "follow an agent at work"),
            ("run --timeout 2h -- make nightly", "a command that outlives this terminal"),
        ],
    ),
    ("runs", [("runs", "of this workspace"), ("runs --all", "of every workspace")]),
    ("logs", [("logs", "the newest run's events"), ("logs -f 7q889", "follow the run whose id ends so")]),
    (
        "report",
        [("report", "the newest run, as report-RUN.html"), ("report 7q889 -o run.html", "the run whose id ends so")],
    ),
    ("cancel", [("cancel @", "the newest run"), ("cancel 7q889", "the run whose id ends so")]),
    ("checkpoint", [("checkpoint", "record the work tree now"), ("checkpoint -m good", "and call it good")]),
    ("log", [("log", "the newest 50"), ("log -n 5", "the newest five")]),
    (
        "diff",
        [("diff", "everything since the project was copied in"), ("diff @~1 @ -- src", "the newest step, in src")],
    ),
    ("rollback", [("rollback base", "undo everything"), ("rollback @~1 -- src/main.rs", "one file, as it was before")]),
    ("apply", [("apply", "as the branch vcoding/WORKSPACE"), ("apply --branch fix-login", "as a branch of that name")]),
    (
        "collect",
        [
            ("collect 'dist/*.whl'", "to their places in the project; quoted, or the shell takes it"),
            ("collect --to /tmp/out coverage '**/*.log'", "to another directory"),
        ],
    ),
    (
        "consent",
        [
            ("consent", "see what is asked for, and answer"),
            ("consent --agree", "where nobody can be asked, in a script"),
        ],
    ),
    ("ls", [("ls", "every workspace"), ("--json ls", "for programs")]),
    ("show", [("show", "this project's workspace and its wall"), ("-w shop show", "the one named shop")]),
    ("start", [("start", "this project's guest"), ("-w shop start", "the one named shop")]),
    ("stop", [("stop", "this project's guest; its files stay"), ("-w shop stop", "the one named shop")]),
    (
        "destroy",
        [
            ("destroy", "if all work was taken home"),
            ("-w shop destroy --force", "even so; the trash keeps it for 30 days"),
        ],
    ),
    ("gc", [("gc --dry-run", "what would go"), ("gc --trash", "destroyed workspaces before their time, too")]),
    (
        "secret",
        [
            ("secret set ANTHROPIC_API_KEY", "asks for it, and does not show it"),
            ("secret ls", "names only, never values"),
        ],
    ),
    (
        "secret set",
        [
            ("secret set ANTHROPIC_API_KEY", "asks for it, and does not show it"),
            ("secret set ANTHROPIC_API_KEY < key.txt", "reads it from a file"),
        ],
    ),
    ("secret ls", [("secret ls", "names, and since when"), ("--json secret ls", "for programs")]),
    (
        "secret rm",
        [("secret rm ANTHROPIC_API_KEY", "forget it"), ("--json secret rm ANTHROPIC_API_KEY", "for programs")],
    ),
    ("doctor", [("doctor", "host, engine, keys, store, workspaces, disk"), ("--json doctor", "for programs")]),
    (
        "audit",
        [
            ("audit --since 1h", "what was done in the last hour"),
            ("-w shop audit --method workspace --failed", "what went wrong with shop's guest"),
        ],
    ),
    ("daemon", [("daemon status", "which one runs, and where"), ("daemon stop", "guests and runs go on without it")]),
    ("daemon start", [("daemon start", "any other command does that, too"), ("--json daemon start", "for programs")]),
    ("daemon stop", [("daemon stop", "guests and runs go on"), ("--json daemon stop", "for programs")]),
    ("daemon status", [("daemon status", "pid, socket, state"), ("--json daemon status", "for programs")]),
    ("daemon install", [("daemon install", "as a service of your user"), ("daemon uninstall", "the way back")]),
    ("daemon uninstall", [("daemon uninstall", "the next command starts it as before"), ("daemon install", "again")]),
    (
        "daemon logs",
        [
            ("daemon logs -f", "the last 50 lines, and what comes"),
            ("--json daemon logs -n 1000", "as they were written"),
        ],
    ),
    (
        "completion",
        [
            ("completion bash", "source <(vcodingctl completion bash)"),
            ("completion fish", "into ~/.config/fish/completions/vcodingctl.fish"),
        ],
    ),
    ("help", [("help run", "a command"), ("help exit-status", "a topic")]),
    ("man", [("man /usr/local/share/man/man1", "a page each"), ("man man", "into the directory man")]),
    ("version", [("version", "of this program, and of the protocol"), ("--json version", "for programs")]),
];

/// What is not about one command.
const TOPICS: &[(&str, &str, &str)] = &[
    ("exit-status", "what a command's exit status says", EXIT_STATUS),
    ("names", "how workspaces, checkpoints and runs are named", NAMES),
    ("environment", "variables that are read", ENVIRONMENT),
];

const EXIT_STATUS: &str = "\
exec, shell and run -- CMD end with the command's own status, 128+N if signal N ended it.

run AGENT
  0    it succeeded
  1    it failed
  4    a budget was used up
  6    the model endpoint refused, or was not there
  124  the time limit passed
  130  it was cancelled

Everything else
  0    done
  1    failed
  2    wrong usage or configuration
  3    not found
  4    refused by a rule: consent, unapplied work, the wall
  5    in conflict with something else, or busy
  6    the engine, the network or the model endpoint did not do its part
  7    the daemon cannot be reached
  124  the time limit passed
  125  exec or shell: the command was not started (--json says why)
  126  exec: it cannot be executed
  127  exec: there is no such command
  130  interrupted

docs/errors.md lists every kind of error.
";

const NAMES: &str = "\
A project is the nearest directory above with a vcoding.toml or a .git, else the current one if
it has a Dockerfile. --project DIR names another.

A workspace is the project's own; -w NAME (a name or an id) means another, from anywhere.

A checkpoint is
  base         the project as it was last copied in
  @            the newest
  @~1, @~2, …  the one before, and so on
  run:ID       as a run ended; run:ID^ as it began
  LABEL        as given with checkpoint -m
  a1b2c3       at least four digits of its id

A run is
  @            the newest of the workspace
  7q889        at least four digits that only its id begins or ends with

Paths are relative to where they are typed.
";

const ENVIRONMENT: &str = "  VCODING_STATE_DIR   where state lies (default: ~/.local/state/vcoding)
  VCODING_CONFIG_DIR  where config.toml and templates lie (default: ~/.config/vcoding)
  VCODING_SOCKET      the daemon's socket; one is started only where it is its own
  VCODING_DAEMON      the daemon's program (default: vcodingd beside vcodingctl, else on PATH)
  VCODING_PAGER       what shows a long diff (default: PAGER, else less)
  NO_COLOR            never colour
  DOCKER_HOST         the container engine's socket (read by the daemon)
  ANTHROPIC_API_KEY   a key, where none is kept by secret set (read by the daemon)
";

/// The arguments with everything that help has to say.
pub fn command() -> Command {
    let topics: Vec<String> =
        TOPICS.iter().map(|(name, about, _)| format!("  vcodingctl help {name:<14}{about}")).collect();
    let first = "First steps, in a project of yours:\n  vcodingctl init\n  vcodingctl up\n  vcodingctl exec -- ls\n  \
                 vcodingctl run claude \"make the failing test pass\"\n  vcodingctl diff\n  vcodingctl apply";
    let mut command = Args::command();
    // What is deferred has to be there to be told more about; and each then shows the global options.
    command.build();
    with_examples(command, "").after_help(format!("{first}\n\nMore:\n{}", topics.join("\n")))
}

fn with_examples(command: Command, words: &str) -> Command {
    command.mut_subcommands(|sub| {
        let words = if words.is_empty() { sub.get_name().to_owned() } else { format!("{words} {}", sub.get_name()) };
        let sub = with_examples(sub, &words);
        let Some((_, examples)) = EXAMPLES.iter().find(|(name, _)| *name == words) else { return sub };
        let widest = examples.iter().map(|(typed, _)| typed.chars().count()).max().unwrap_or(0);
        let mut text = String::from("Examples:\n");
        for (typed, about) in examples {
            let _never_fails = writeln!(text, "  vcodingctl {typed:<widest$}   {about}");
        }
        let own = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
        let gap = if own.is_empty() { "" } else { "\n\n" };
        sub.after_help(format!("{own}{gap}{}", text.trim_end()))
    })
}

/// `help`: of everything, of a command, of a topic.
///
/// # Errors
/// [`Kind::Usage`] for what is neither, with the nearest.
pub fn of(words: &[String]) -> Result<String, Error> {
    if let [topic] = words
        && let Some((_, _, text)) = TOPICS.iter().find(|(name, _, _)| name == topic)
    {
        return Ok((*text).to_owned());
    }
    let mut found = command();
    for word in words {
        let sub = found.find_subcommand(word).cloned();
        found = sub.ok_or_else(|| unknown(&found, word))?;
    }
    Ok(format!("{}\n", found.render_help().to_string().trim_end()))
}

fn unknown(at: &Command, word: &str) -> Error {
    let topics = TOPICS.iter().map(|(name, _, _)| *name);
    let names = at.get_subcommands().map(Command::get_name).chain(topics);
    let near = names.map(|name| (strsim::jaro_winkler(name, word), name)).filter(|(score, _)| *score > 0.7);
    let near = near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name);
    let error = Error::new(Kind::Usage, format!("there is no command and no topic {word:?}"));
    match near {
        Some(name) => error.hint(format!("vcodingctl help {name}")),
        None => error.hint("vcodingctl help"),
    }
}

/// Writes a manual page for the program and for each command; how many.
///
/// # Errors
/// What cannot be written.
pub fn manual(directory: &Path) -> Result<usize, Error> {
    let failed = |e: std::io::Error| Error::new(Kind::Usage, format!("{}: {e}", directory.display()));
    std::fs::create_dir_all(directory).map_err(failed)?;
    page(&command(), "vcodingctl", directory).map_err(failed)
}

fn page(command: &Command, name: &str, directory: &Path) -> std::io::Result<usize> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name.to_uppercase()).render(&mut text)?;
    std::fs::write(directory.join(format!("{name}.1")), text)?;
    let mut pages = 1;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        pages += page(sub, &format!("{name}-{}", sub.get_name()), directory)?;
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(command: &Command, words: &str, found: &mut Vec<String>) {
        for sub in command.get_subcommands() {
            let words = format!("{words} {}", sub.get_name()).trim().to_owned();
            all(sub, &words, found);
            found.push(words);
        }
    }

    #[test]
    fn every_command_has_its_examples_and_every_example_its_command() {
        let mut commands = Vec::new();
        let mut built = Args::command();
        built.build();
        all(&built, "", &mut commands);
        for words in &commands {
            assert!(EXAMPLES.iter().any(|(name, _)| name == words), "{words} has no examples");
        }
        for (name, examples) in EXAMPLES {
            assert!(commands.contains(&(*name).to_owned()), "there is no {name}");
            for (typed, _) in examples {
                // As a shell would cut it, as far as the examples go.
                let typed = typed.split(" < ").next().unwrap().replace("\"make the failing test pass\"", "prompt");
                let parsed =
                    Args::command().try_get_matches_from(std::iter::once("vcodingctl").chain(typed.split(' ')));
                assert!(parsed.is_ok(), "{typed}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn help_is_of_commands_and_topics_and_knows_what_was_nearly_typed() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(of(&words("exit-status")).unwrap().contains("125"));
        assert!(of(&words("daemon install")).unwrap().contains("Examples:\n  vcodingctl daemon install"));
        assert!(of(&[]).unwrap().contains("vcodingctl help names"));
        let hint = |text: &str| of(&words(text)).unwrap_err().data.hint.unwrap();
        assert_eq!(hint("exitstatus"), "vcodingctl help exit-status");
        assert_eq!(hint("rolback"), "vcodingctl help rollback");
        assert_eq!(hint("zzz"), "vcodingctl help");
    }

    #[test]
    fn manual_pages_are_made_of_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let pages = manual(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), pages);
        let text = std::fs::read_to_string(dir.path().join("vcodingctl-run.1")).unwrap();
        assert!(text.contains(".TH VCODINGCTL-RUN 1") && text.contains("make the failing test pass"), "{text}");
    }
}
