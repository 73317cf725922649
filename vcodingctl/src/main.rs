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
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().take_while(|a| a != "--").any(|a| a == "--json") {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let error = Error::new(Kind::Usage, message).hint("vcodingctl --help");
        let _ = writeln!(std::io::stdout(), "{}", serde_json::json!({ "error": error }));
    }
    ExitCode::from(2)
}
