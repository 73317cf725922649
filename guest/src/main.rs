//! The program inside a guest: PID 1, login shell, supervisor of commands and of runs, relay to
//! the model endpoint, carrier.
//!
//! ```text
//! PID 1  vcoding-guest init            who may live on when its parent died: the registry
//!  ├─ vcoding-guest relay              127.0.0.1:P → 127.0.0.1:Q
//!  ├─ sshd (a connection)
//!  │   └─ vcoding-guest -c …           the shell: reads the frame, waits for one status byte
//!  │       └─ supervisor               subreaper; ends the tree; stays for background children
//!  │           └─ the command
//!  ├─ supervisor                       of a command that ended, with children in the background
//!  └─ run supervisor                   belongs to no connection
//!      └─ the agent (a session of its own)
//! ```
//!
//! The first act of each of these is to become non-dumpable: otherwise a process of the same uid
//! could write into its memory. Nothing here uses a runtime, and only the relay and the carrier
//! use threads; so `fork` is safe everywhere else.

mod authority;
mod carrier;
mod environment;
mod init;
mod process;
mod relay;
mod runs;
mod shell;
mod supervisor;
mod sys;
mod tree;

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;

fn main() {
    sys::harden();
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap_or_default()).collect();
    let status = match words.as_slice() {
        ["init", rest @ ..] => init::run(rest),
        ["relay", port] => relay::run(port),
        ["carrier"] => carrier::run(),
        ["-c", _] => shell::command(&args[1].clone().into_vec()),
        [] if name.to_string_lossy().starts_with('-') => shell::interactive(),
        _ => {
            say(b"usage: vcoding-guest init | carrier | -c COMMAND");
            2
        }
    };
    std::process::exit(i32::from(status));
}

/// A line on standard error, in one write.
fn say(text: &[u8]) {
    let mut line = b"vcoding: ".to_vec();
    line.extend_from_slice(text);
    line.push(b'\n');
    // Nobody is there to be told that nobody listens.
    let _unheard = std::io::stderr().write_all(&line);
}
