//! A run: a command that belongs to PID 1 instead of a connection, its output in files.
//!
//! The shell forks the run's supervisor and leaves once it hears that the command was started, or
//! soon after the supervisor stood on its own; so PID 1 adopts the supervisor, which registered
//! before. The command has a session of its own.

mod output;
mod supervise;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guest::places;
use guest::run::{END, End};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{ForkResult, pipe2};

use crate::process::{Program, Refusal};
use crate::{say, sys};

/// What a run is besides its program.
pub struct Run<'a> {
    pub id: &'a str,
    pub stdin: &'a [u8],
    /// A limit by the wall's clock, if there is one.
    pub limit: Option<Duration>,
}

/// Starts a run; the status of the session that asked for it.
pub fn start(run: &Run<'_>, program: &Program) -> u8 {
    let forked = pipe2(OFlag::O_CLOEXEC).and_then(|pipe| Ok((pipe, sys::fork()?)));
    match forked {
        Ok(((answer, report), ForkResult::Parent { .. })) => {
            drop(report);
            heard(File::from(answer))
        }
        Ok(((answer, report), ForkResult::Child)) => {
            drop(answer);
            supervise::run(run, program, File::from(report));
            std::process::exit(0);
        }
        Err(e) => {
            say(format!("no process for the run: {}", e.desc()).as_bytes());
            126
        }
    }
}

/// Said first by a supervisor that stands on its own and is PID 1's.
const STANDS: u8 = b'+';
/// How long after that it may take to say how the command began: its command may have stopped it.
const BEGIN: Duration = Duration::from_secs(5);

/// What the supervisor reports: that it stands, then a status, and why that is not 0. Once its
/// command runs, that may stop it between any two steps: nothing later is waited for without limit.
fn heard(mut answer: File) -> u8 {
    let killed = || {
        say(b"the run's supervisor was killed");
        126
    };
    let mut next = [0];
    if answer.read_exact(&mut next).is_err() {
        return killed();
    }
    if next[0] == STANDS {
        let mut ready = [PollFd::new(answer.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(BEGIN).unwrap_or(PollTimeout::MAX);
        if !matches!(poll(&mut ready, limit), Ok(1..)) {
            // It is PID 1's, and the run's directory tells the rest.
            return 0;
        }
        if answer.read_exact(&mut next).is_err() {
            return killed();
        }
    }
    if next[0] != 0 {
        // No command runs; it ends behind this.
        let mut why = Vec::new();
        let _cut = answer.take(8192).read_to_end(&mut why);
        say(&why);
    }
    next[0]
}

/// The opposite of [`heard`].
fn tell(mut report: &File, refusal: Option<&Refusal>) {
    let told = match refusal {
        None => report.write_all(&[0]),
        Some(refusal) => report.write_all(&[&[refusal.status], refusal.why.as_slice()].concat()),
    };
    // The session may be gone; the run is not.
    let _unheard = told;
}

/// Makes a run's directory. One that is there is taken only while it is empty: then an earlier
/// attempt was cut off before anything was started.
fn claim(id: &str) -> Result<PathBuf, Refusal> {
    let runs = Path::new(places::RUN).join(places::RUNS);
    let directory = runs.join(id);
    let refuse = |e: io::Error| Refusal::new(126, directory.as_os_str().as_encoded_bytes(), &e.to_string());
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    match builder.create(&runs) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(refuse(e)),
        _ => {}
    }
    match builder.create(&directory) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match fs::read_dir(&directory).map_err(refuse)?.next() {
            None => Ok(directory),
            Some(_) => Err(refuse(e)),
        },
        other => other.map(|()| directory.clone()).map_err(refuse),
    }
}

/// Writes a run's end, which thereby is there as a whole or not at all.
pub fn write_end(directory: &Path, end: &End) -> io::Result<()> {
    let temporary = directory.join(format!(".{END}.{}", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).open(&temporary)?;
    file.write_all(end.encode().as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(END))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_written_over_what_a_killed_writer_left() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(format!(".{END}.{}", std::process::id())), "1 ex").unwrap();
        write_end(directory.path(), &End::Exited(3)).unwrap();
        let content = fs::read(directory.path().join(END)).unwrap();
        assert_eq!(End::decode(&content), Some(End::Exited(3)));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
