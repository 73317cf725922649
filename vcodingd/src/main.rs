//! `vcodingd`: keeps guests resident, and answers on a Unix socket.

use std::path::PathBuf;
use std::process::ExitCode;

use vcodingd::daemon::{self, Options};

const HELP: &str = "\
vcodingd keeps guests resident and answers JSON-RPC on a Unix socket.
vcodingctl starts it by itself; there is nothing to configure here.

Usage: vcodingd [--detach]

      --detach   go to the background once the socket listens
      --version  print the version
  -h, --help     print this

Environment:
  VCODING_STATE_DIR   where state lies (default: the platform's state directory)
  VCODING_CONFIG_DIR  where the user's configuration lies
  VCODING_LOG         what is logged, as tracing's filters (default: info)
";

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "before there is a log, this is the only mouth")]
fn main() -> ExitCode {
    // A client that starts it may hold signals back, which is inherited.
    let _as_it_is_then = nix::sys::signal::SigSet::all().thread_unblock();
    let mut options = Options::default();
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--detach") => options.detach = true,
            // Not for people: it is asked by a daemon that starts after one which ended at this.
            Some(daemon::CHECK_STORE) => {
                return ExitCode::from(daemon::check_store(&PathBuf::from(arguments.next().unwrap_or_default())));
            }
            #[cfg(debug_assertions)]
            Some("--kill-points") => {
                daemon::kill_points().iter().for_each(|point| println!("{point}"));
                return ExitCode::SUCCESS;
            }
            Some("--version") => {
                println!("vcodingd {}", env!("CARGO_PKG_VERSION"));
                return ExitCode::SUCCESS;
            }
            Some("-h" | "--help") => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("error: {} is not an option of vcodingd", argument.display());
                eprintln!("hint: vcodingd --help");
                return ExitCode::from(2);
            }
        }
    }
    daemon::settle();
    match daemon::main(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = &error.data.hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(error.kind().exit())
        }
    }
}
