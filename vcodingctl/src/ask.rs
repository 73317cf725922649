//! Questions to a person at a terminal.

use std::io::{IsTerminal, stderr, stdin};
use std::os::fd::AsFd;

use protocol::{Error, Kind};

use crate::printer::Printer;
use crate::wait::Interrupts;

/// Whether somebody is there to answer.
pub fn possible(printer: &Printer) -> bool {
    !printer.json && stdin().is_terminal() && stderr().is_terminal()
}

/// What was typed, without the blanks around it; `None` where input ended instead.
///
/// # Errors
/// [`Kind::Interrupted`] on Ctrl-C; input that cannot be read.
pub fn line(printer: &Printer, question: &str) -> Result<Option<String>, Error> {
    let input = stdin();
    printer.ask(question);
    let answered = Interrupts::new()?.or_readable(input.as_fd());
    let mut text = String::new();
    if !answered {
        printer.ask("\n");
        return Err(Error::new(Kind::Interrupted, "interrupted; nothing was done"));
    }
    let read = input
        .read_line(&mut text)
        .map_err(|e| Error::new(Kind::Usage, format!("standard input cannot be read: {e}")))?;
    if read == 0 {
        printer.ask("\n");
        return Ok(None);
    }
    Ok(Some(text.trim().to_owned()))
}

/// Yes or no; anything but a clear no is a yes, except the end of input.
///
/// # Errors
/// As [`line()`].
pub fn yes_by_default(printer: &Printer, question: &str) -> Result<bool, Error> {
    let answer = line(printer, &format!("{question} [Y/n] "))?;
    Ok(answer.is_some_and(|answer| !matches!(answer.to_ascii_lowercase().as_str(), "n" | "no")))
}

/// Yes or no; only a clear yes is one.
///
/// # Errors
/// As [`line()`].
pub fn yes(printer: &Printer, question: &str) -> Result<bool, Error> {
    let answer = line(printer, &format!("{question} [y/N] "))?.unwrap_or_default();
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}
