//! A pager for what is longer than the terminal, as git has one.

use std::io::{self, IsTerminal, Write};
use std::process::{Command, Stdio};

use nix::sys::signal::{SigSet, Signal};

use crate::terminal;

/// Shows `text` in `VCODING_PAGER`, `PAGER` or `less`. False where it fits the terminal, where
/// there is none, or where no pager starts: then it is for whoever asked to write it.
pub fn show(text: &[u8]) -> bool {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return false;
    }
    let rows = terminal::size(io::stdout()).map_or(24, |(_, rows)| usize::from(rows));
    let lines = text.iter().filter(|&&byte| byte == b'\n').count();
    let Some(pager) = chosen(|name| std::env::var(name).ok()).filter(|_| lines >= rows) else { return false };
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &pager]).stdin(Stdio::piped());
    // Colours, and no clearing afterwards; who has settings of their own keeps them.
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", "FRX");
    }
    let Ok(mut child) = command.spawn() else { return false };
    // Ctrl-C is the pager's now. Not before it was started: it would inherit that.
    let mut interrupt = SigSet::empty();
    interrupt.add(Signal::SIGINT);
    let _infallible = interrupt.thread_block();
    if let Some(mut input) = child.stdin.take() {
        // Whoever has seen enough closes it.
        let _seen_enough = input.write_all(text);
    }
    let shown = child.wait().is_ok_and(|status| status.code() != Some(127));
    let _infallible = interrupt.thread_unblock();
    shown
}

fn chosen(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let pager = variable("VCODING_PAGER").or_else(|| variable("PAGER")).unwrap_or_else(|| "less".to_owned());
    (!matches!(pager.trim(), "" | "cat")).then_some(pager)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_variable_is_stronger_and_cat_or_nothing_means_none() {
        let ask = |ours: Option<&str>, theirs: Option<&str>| {
            chosen(|name| if name == "PAGER" { theirs } else { ours }.map(str::to_owned))
        };
        assert_eq!(ask(None, None).as_deref(), Some("less"));
        assert_eq!(ask(None, Some("most")).as_deref(), Some("most"));
        assert_eq!(ask(Some("bat -p"), Some("most")).as_deref(), Some("bat -p"));
        assert_eq!(ask(Some(""), Some("most")), None);
        assert_eq!(ask(None, Some("cat")), None);
    }
}
