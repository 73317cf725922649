//! `vcodingctl`: the program people type. Arguments → one call → rendering; it decides nothing.

#![forbid(unsafe_code)]

mod args;
mod command;
mod printer;
mod terminal;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use printer::Printer;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version go to standard output with status 0, mistakes to standard error.
            drop(error.print());
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(2),
            };
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
