//! The program under test, with pipes or on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};

use nix::pty::{Winsize, openpty};

use crate::fake::Fake;

/// The program with its environment and nothing of the caller's.
pub fn command(fake: &Fake, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vcodingctl"));
    command
        .args(args)
        .env_clear()
        .env("VCODING_SOCKET", fake.socket())
        .env("VCODING_STATE_DIR", fake.directory.path())
        .env("VCODING_CONFIG_DIR", fake.directory.path())
        .env("TERM", "xterm-256color")
        .current_dir(fake.directory.path())
        .stdin(Stdio::null());
    command
}

pub fn piped(fake: &Fake, args: &[&str]) -> Output {
    command(fake, args).output().unwrap()
}

pub fn spawned(fake: &Fake, args: &[&str]) -> Child {
    command(fake, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What remains on a terminal so many columns wide, escape characters as `␛`.
pub fn on_terminal(fake: &Fake, args: &[&str], columns: u16) -> String {
    command_on_terminal(command(fake, args), columns)
}

pub fn command_on_terminal(mut command: Command, columns: u16) -> String {
    /// Written by the test itself after the program's end: a terminal whose last holder leaves may
    /// lose what was not read yet.
    const ENDED: &[u8] = b"<ended>";
    let size = Winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    command.stdout(pty.slave.try_clone().unwrap()).stderr(pty.slave.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let ending = std::thread::spawn(move || {
        child.wait().unwrap();
        let mut slave = File::from(pty.slave);
        slave.write_all(ENDED).unwrap();
        slave
    });
    let (mut master, mut bytes) = (File::from(pty.master), Vec::new());
    while !bytes.ends_with(ENDED) {
        let mut some = [0; 4096];
        let n = master.read(&mut some).unwrap();
        bytes.extend_from_slice(&some[..n]);
    }
    drop(ending.join().unwrap());
    screen(std::str::from_utf8(&bytes[..bytes.len() - ENDED.len()]).unwrap())
}

/// A line that was rewritten is what it was at last.
fn screen(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let lines: Vec<String> = text
        .split('\n')
        .map(|line| line.rsplit_once("\r\x1b[K").map_or(line, |(_, last)| last).replace('\x1b', "␛"))
        .collect();
    lines.join("\n")
}
