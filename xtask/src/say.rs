//! What the workshop says to the person at the desk: one line at a time, on standard error.
//!
//! Data that another program may read (the closing summary) goes to standard output through [`data`]; a closed pipe is
//! no reason to die, so write errors are dropped on purpose.

use std::fmt;
use std::io::Write;

/// One line for the person.
pub fn line(text: impl fmt::Display) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A step of a longer work: stands out by its arrow, never by colour alone.
pub fn step(text: impl fmt::Display) {
    line(format_args!("==> {text}"));
}

/// A line of data on standard output.
pub fn data(text: impl fmt::Display) {
    // A reader that went away has read enough.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
