//! The login shell: what sshd starts for every session.
//!
//! `-c vcoding-frame` reads a frame; any other string is the user's real shell's own business
//! (scp, rsync, an editor's server), and so is a session without a command. All of them run below
//! a supervisor, in the work tree, with the image's environment.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use guest::frame::{EXEC, HEAD, READY};
use guest::{Frame, Job, places};
use nix::errno::Errno;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use crate::environment::{self, Environment};
use crate::process::Program;
use crate::runs::Run;
use crate::supervisor::Work;
use crate::{authority, runs, say, supervisor};

const UMASK: u16 = 0o022;

/// A session with a command.
pub fn command(string: &[u8]) -> u8 {
    supervisor::shell_first();
    supervisor::command(|| {
        if string == EXEC.as_bytes() {
            return framed();
        }
        let shell = environment::shell();
        let argv = vec![shell.clone(), b"-c".to_vec(), string.to_vec()];
        Work::Command(program(&shell, argv))
    })
}

/// A session without one: the user's shell as a login shell.
pub fn interactive() -> u8 {
    supervisor::shell_first();
    supervisor::command(|| Work::Command(login()))
}

fn login() -> Program {
    let shell = environment::shell();
    let base = shell.rsplit(|&b| b == b'/').next().unwrap_or_default();
    let argv = vec![[b"-", base].concat()];
    program(&shell, argv)
}

fn program(shell: &[u8], argv: Vec<Vec<u8>>) -> Program {
    Program {
        name: shell.to_vec(),
        argv,
        env: Environment::of_session(shell),
        directory: environment::directory(),
        umask: UMASK,
    }
}

fn framed() -> Work {
    // First what does not depend on the frame, which may be long in coming.
    let session = login();
    let frame = match read_frame() {
        Ok(frame) => frame,
        Err(e) => {
            say(e.to_string().as_bytes());
            return Work::Done(126);
        }
    };
    match frame.job {
        Job::Exec => Work::Command(asked(session, &frame)),
        Job::Run { ref id, ref stdin, timeout_ms } => {
            let limit = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms));
            Work::Done(runs::start(&Run { id, stdin, limit }, &asked(session, &frame)))
        }
        Job::Cancel { id } => Work::Done(match authority::cancel(&id) {
            Ok(true) => 0,
            Ok(false) => {
                say(format!("no run {id} is alive").as_bytes());
                3
            }
            Err(e) => {
                say(format!("the guest's init does not answer: {e}").as_bytes());
                126
            }
        }),
    }
}

/// What a frame asks for, on top of what every session has.
fn asked(session: Program, frame: &Frame) -> Program {
    let mut program = session;
    if let Some(name) = frame.argv.first() {
        program.name.clone_from(name);
        program.argv.clone_from(&frame.argv);
    }
    for entry in &frame.env {
        program.env.add(entry);
    }
    match frame.directory.as_slice() {
        // As it is now, not as it was when the session began to wait.
        [] => program.directory = environment::directory(),
        [b'/', ..] => program.directory.clone_from(&frame.directory),
        relative => program.directory = [places::WORK.as_bytes(), b"/", relative].concat(),
    }
    program.umask = frame.umask & 0o777;
    program
}

/// Reads the frame to its last byte and nothing more. A terminal is made raw and without echo
/// for that long.
fn read_frame() -> io::Result<Frame> {
    let stdin = io::stdin();
    let Ok(modes) = tcgetattr(&stdin) else {
        let frame = read_body()?;
        say_ready()?;
        return Ok(frame);
    };
    let mut raw = modes.clone();
    cfmakeraw(&mut raw);
    tcsetattr(&stdin, SetArg::TCSANOW, &raw)?;
    let frame = say_ready().and_then(|()| read_body());
    tcsetattr(&stdin, SetArg::TCSANOW, &modes)?;
    frame
}

fn say_ready() -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(&[READY])?;
    stdout.flush()
}

fn read_body() -> io::Result<Frame> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
    let mut head = [0; HEAD];
    read_exact(&mut head)?;
    let mut body = vec![0; Frame::body_length(head).map_err(invalid)?];
    read_exact(&mut body)?;
    Frame::decode(&body).map_err(invalid)
}

/// Unbuffered, as what follows is the command's.
fn read_exact(mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match nix::unistd::read(io::stdin().as_fd(), into) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the frame ended early")),
            Ok(length) => into = &mut into[length..],
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
