//! `vcodingctl`: the program people type. Arguments → one call → rendering; it decides nothing.

#![forbid(unsafe_code)]

mod args;
mod ask;
mod command;
mod help;
mod init;
mod pager;
mod printer;
mod progress;
mod render;
mod report;
mod terminal;
mod wait;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use printer::Printer;
use protocol::{Error, Kind};

#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            return untyped(&error);
        }
    };
    let printer = Printer::new(&args.global);
    match command::run(&args, &printer) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            printer.failure(&failure.error);
            ExitCode::from(failure.status.unwrap_or_else(|| failure.error.kind().exit()))
        }
    }
}

/// Help and version go to standard output with status 0, mistakes to standard error, and to
/// standard output as JSON where that was asked for.
fn untyped(error: &clap::Error) -> ExitCode {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand};
    // A closed pipe is no failure.
    let _ = match error.kind() {
        // Only now is all of it made.
        DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand => {
            help::command().try_get_matches_from(std::env::args_os()).err().map_or(Ok(()), |error| error.print())
        }
        _ => error.print(),
    };
    let hint = hint(error);
    if let Some(hint) = &hint {
        let _ = writeln!(std::io::stderr(), "hint: {hint}");
    }
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().take_while(|a| a != "--").any(|a| a == "--json") {
        let text = error.to_string();
        // Up to the first empty line; what is missing stands on lines of its own.
        let said: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        let message = said.join(" ").trim_start_matches("error: ").to_owned();
        let error = Error::new(Kind::Usage, message).hint(hint.unwrap_or_else(|| "vcodingctl --help".into()));
        let _ = writeln!(std::io::stdout(), "{}", serde_json::json!({ "error": error }));
    }
    ExitCode::from(2)
}

/// What other tools call our commands.
fn known_elsewhere(typed: &str) -> Option<&'static str> {
    Some(match typed {
        "status" | "inspect" | "info" => "show",
        "ps" | "list" => "ls",
        "rm" | "remove" | "delete" | "down" => "destroy",
        "kill" => "cancel RUN",
        "reset" | "undo" | "restore" | "revert" | "checkout" => "rollback NAME",
        "commit" | "save" | "snapshot" => "checkpoint",
        "restart" => "stop, then vcodingctl start",
        "ssh" | "attach" | "enter" | "bash" | "sh" => "shell",
        "build" | "rebuild" => "up --rebuild",
        "create" | "new" => "up",
        "merge" | "export" | "push" => "apply",
        _ => return None,
    })
}

/// For what people type who know other tools.
fn hint(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue};
    if let (ErrorKind::InvalidSubcommand, Some(ContextValue::String(typed))) =
        (error.kind(), error.get(ContextKind::InvalidSubcommand))
    {
        return known_elsewhere(typed).map(|ours| format!("vcodingctl {ours}"));
    }
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidArg) else { return None };
    let words: Vec<String> = std::env::args().skip(1).collect();
    let command = words.iter().find(|word| !word.starts_with('-'))?.as_str();
    match (error.kind(), command) {
        (ErrorKind::UnknownArgument, "up" | "start" | "stop" | "show" | "destroy" | "shell" | "log" | "runs")
            if !typed.starts_with('-') =>
        {
            Some(format!("a workspace is named by -w: vcodingctl -w {typed} {command}"))
        }
        (ErrorKind::TooManyValues | ErrorKind::UnknownArgument, "run") if !typed.starts_with('-') => {
            Some("a prompt is one word to the shell: vcodingctl run claude \"make it pass\"".into())
        }
        _ => None,
    }
}
