//! What a command may be in a fake guest.
//!
//! ```text
//! true · false · exit N
//! echo TEXT… · err TEXT… (to standard error) · spit N (N bytes) · cat · env NAME
//! write PATH TEXT · append PATH TEXT · read PATH · rm PATH · mkdir PATH · symlink TARGET PATH
//! oom (ended for the memory it wanted) · hang (until it is ended) · spawn (a child that lives on) · dial (input and output to the model port)
//! ```
//!
//! `;` as an argument separates several; `exit` ends them, the last one's status counts. Without
//! arguments, or as a plain SSH session, each line of input is one. Paths are beneath the
//! directory of the command, or absolute beneath /work and /home/work.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use guest::frame::Frame;
use guest::places;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::life::Life;

const PIECE: usize = 32 << 10;
/// A longer line of input is none of ours.
const MAX_LINE: usize = 4096;
const NOT_FOUND: u8 = 127;

/// A command's input and output.
pub(super) struct Streams {
    pub stdin: Box<dyn AsyncRead + Send + Unpin>,
    pub stdout: Box<dyn AsyncWrite + Send + Unpin>,
    pub stderr: Box<dyn AsyncWrite + Send + Unpin>,
}

pub(super) struct Command<'a> {
    pub frame: &'a Frame,
    pub life: &'a Arc<Life>,
    /// Ends its children.
    pub tree: CancellationToken,
}

/// Runs it to its end and gives its exit status; dropping the future ends it.
pub(super) async fn run(command: &Command<'_>, streams: &mut Streams) -> u8 {
    let argv: Vec<String> = command.frame.argv.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let outcome = if argv.is_empty() { shell(command, streams).await } else { all(command, streams, &argv).await };
    let _end = streams.stdout.flush().await;
    let _end = streams.stderr.flush().await;
    match outcome {
        Ok(Status::Ended(status) | Status::Exit(status)) => status,
        // Nobody reads any more: SIGPIPE.
        Err(_) => 128 + 13,
    }
}

enum Status {
    Ended(u8),
    /// And nothing follows.
    Exit(u8),
}

async fn shell(command: &Command<'_>, streams: &mut Streams) -> io::Result<Status> {
    let mut last = 0;
    while let Some(line) = line(&mut streams.stdin).await? {
        let argv: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        match all(command, streams, &argv).await? {
            Status::Ended(status) => last = status,
            exit @ Status::Exit(_) => return Ok(exit),
        }
    }
    Ok(Status::Ended(last))
}

async fn line(input: &mut (dyn AsyncRead + Send + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        let ended = input.read(&mut byte).await? == 0;
        if ended && line.is_empty() {
            return Ok(None);
        }
        if ended || byte[0] == b'\n' || line.len() == MAX_LINE {
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
        line.push(byte[0]);
    }
}

async fn all(command: &Command<'_>, streams: &mut Streams, argv: &[String]) -> io::Result<Status> {
    let mut last = Status::Ended(0);
    for one in argv.split(|word| word == ";").filter(|one| !one.is_empty()) {
        command.life.thawed().await;
        last = verb(command, streams, one).await?;
        if matches!(last, Status::Exit(_)) {
            break;
        }
    }
    Ok(last)
}

async fn verb(command: &Command<'_>, streams: &mut Streams, argv: &[String]) -> io::Result<Status> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    match words[..] {
        ["true"] => {}
        ["false"] => return Ok(Status::Ended(1)),
        ["oom"] => {
            command.life.kill_for_memory();
            return Ok(Status::Ended(128 + 9));
        }
        ["exit", status] => return Ok(Status::Exit(status.parse().unwrap_or(2))),
        ["echo", ..] => say(&mut streams.stdout, &words[1..].join(" ")).await?,
        ["err", ..] => say(&mut streams.stderr, &words[1..].join(" ")).await?,
        ["env", name] => match variable(command.frame, name) {
            Some(value) => say(&mut streams.stdout, &value).await?,
            None => return Ok(Status::Ended(1)),
        },
        ["cat"] => cat(command, streams).await?,
        ["spit", count] => spit(command, streams, count.parse().unwrap_or(0)).await?,
        ["hang"] => std::future::pending().await,
        ["spawn"] => command.life.spawn_child(command.tree.clone()),
        ["dial"] => return dial(command, streams).await,
        [name, ref rest @ ..] => return file(command, streams, name, rest).await,
        [] => {}
    }
    Ok(Status::Ended(0))
}

async fn file(command: &Command<'_>, streams: &mut Streams, name: &str, rest: &[&str]) -> io::Result<Status> {
    let path = |text: &str| host_path(command, text);
    let outcome = match (name, rest) {
        ("write", [to, text]) => path(to).and_then(|to| std::fs::write(to, text)).map(|()| Vec::new()),
        ("append", [to, text]) => path(to).and_then(|to| append(&to, text)).map(|()| Vec::new()),
        ("read", [from]) => path(from).and_then(std::fs::read),
        ("rm", [what]) => path(what).and_then(std::fs::remove_file).map(|()| Vec::new()),
        ("mkdir", [what]) => path(what).and_then(std::fs::create_dir_all).map(|()| Vec::new()),
        ("symlink", [target, at]) => {
            path(at).and_then(|at| std::os::unix::fs::symlink(target, at)).map(|()| Vec::new())
        }
        _ => {
            say(&mut streams.stderr, &format!("{name}: not a verb of the fake guest")).await?;
            return Ok(Status::Ended(NOT_FOUND));
        }
    };
    match outcome {
        Ok(content) => {
            streams.stdout.write_all(&content).await?;
            Ok(Status::Ended(0))
        }
        Err(error) => {
            say(&mut streams.stderr, &format!("{name}: {error}")).await?;
            Ok(Status::Ended(1))
        }
    }
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    io::Write::write_all(&mut std::fs::OpenOptions::new().append(true).create(true).open(path)?, text.as_bytes())
}

/// Where a path of the guest lies on this host.
fn host_path(command: &Command<'_>, text: &str) -> io::Result<PathBuf> {
    let directory = String::from_utf8_lossy(&command.frame.directory);
    let absolute = Path::new(places::WORK).join(&*directory).join(text);
    let (root, rest) = if let Ok(rest) = absolute.strip_prefix(places::WORK) {
        ("tree", rest)
    } else if let Ok(rest) = absolute.strip_prefix(places::HOME) {
        ("home", rest)
    } else {
        return Err(io::Error::other("only /work and /home/work are there"));
    };
    if rest.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(io::Error::other("the path leads out"));
    }
    Ok(command.life.dir(root).join(rest))
}

fn variable(frame: &Frame, name: &str) -> Option<String> {
    let named = |line: &&Vec<u8>| line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='));
    let line = frame.env.iter().rfind(named)?;
    Some(String::from_utf8_lossy(&line[name.len() + 1..]).into_owned())
}

async fn say(to: &mut (dyn AsyncWrite + Send + Unpin), text: &str) -> io::Result<()> {
    to.write_all(format!("{text}\n").as_bytes()).await?;
    to.flush().await
}

async fn cat(command: &Command<'_>, streams: &mut Streams) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let read = streams.stdin.read(&mut piece).await?;
        if read == 0 {
            return Ok(());
        }
        command.life.thawed().await;
        streams.stdout.write_all(&piece[..read]).await?;
        streams.stdout.flush().await?;
    }
}

/// Numbered lines, so that a gap or a repetition can be seen; the last may be cut.
async fn spit(command: &Command<'_>, streams: &mut Streams, count: usize) -> io::Result<()> {
    let (mut left, mut number) = (count, 0_u64);
    while left > 0 {
        let mut piece = Vec::with_capacity(PIECE);
        while piece.len() < PIECE.min(left) {
            piece.extend_from_slice(format!("{number:015}\n").as_bytes());
            number += 1;
        }
        piece.truncate(left);
        command.life.thawed().await;
        streams.stdout.write_all(&piece).await?;
        left -= piece.len();
    }
    Ok(())
}

/// What a process gets that connects to the guest's model port: it waits while no daemon is there.
async fn dial(command: &Command<'_>, streams: &mut Streams) -> io::Result<Status> {
    let Some(relay) = command.life.relay().await else { return Ok(Status::Ended(1)) };
    let opened = relay.handle.channel_open_forwarded_tcpip("127.0.0.1", relay.port, "127.0.0.1", 40_000).await;
    let Ok(channel) = opened else {
        say(&mut streams.stderr, "dial: the model port does not answer").await?;
        return Ok(Status::Ended(1));
    };
    let (mut from, mut to) = tokio::io::split(channel.into_stream());
    let sent = async {
        tokio::io::copy(&mut streams.stdin, &mut to).await?;
        to.flush().await?;
        // Half a connection would be taken for a gone one; the other side ends it.
        std::future::pending::<io::Result<()>>().await
    };
    tokio::select! {
        received = tokio::io::copy(&mut from, &mut streams.stdout) => received.map(drop)?,
        failed = sent => failed?,
    }
    Ok(Status::Ended(0))
}
