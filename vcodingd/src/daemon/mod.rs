//! Start and end: takes the state directory, starts the rooms, serves, shuts down.

mod instance;
mod log_files;
mod logging;
mod memory;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::Places;
use client::start::NOTICE;
use nix::sys::signal::Signal;
use protocol::error::chain;
use protocol::{Error, Kind, Timestamp};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use memory::settle;

use crate::audit::Audit;
use crate::config::User;
use crate::egress::Client;
use crate::provider::docker::Docker;
use crate::rpc::{self, listener};
use crate::secrets::Secrets;
use crate::store::{SetAside, Store};
use crate::workspace::{Disk, KnownRuns, Points, Recovered, Registry, Shared, Turns, open_store};

/// After the last call has been abandoned, the rooms have this long to end.
const GRACE: Duration = Duration::from_secs(10);
/// Descriptors that may be open, where the user may have as many.
const DESCRIPTORS: u64 = 65_536;
/// What came back of a store that was set aside, beside it.
const REPORT: &str = "recovered.json";

#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Go to the background once the socket listens.
    pub detach: bool,
}

/// The program: from the environment to the end.
///
/// # Errors
/// What kept it from starting, to be shown to whoever started it.
pub fn main(options: Options) -> Result<(), Error> {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let mut places = Places::from_env()?;
    // Before there are threads: it takes its variables out of the environment.
    let inherited = listener::inherited().map_err(|e| {
        Error::new(Kind::InvalidConfiguration, format!("the socket that was handed over cannot be used: {e}"))
    })?;
    let inherited = inherited.map(|(socket, path)| {
        places.socket = path;
        socket
    });
    let patience = if inherited.is_some() { GRACE + GRACE } else { Duration::ZERO };
    let instance = instance::Instance::claim(&places, patience)?;
    logging::start(&places.state.join("log"), options.detach)?;
    take_descriptors();
    if options.detach {
        // Fails only for a process group's leader, which then has a terminal of its own.
        let _ = nix::unistd::setsid();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::Internal, format!("no runtime: {e}")))?;
    let shutdown = CancellationToken::new();
    let ended = runtime.block_on(async {
        end_on_signals(&shutdown)?;
        run(&places, inherited, shutdown, |notices| {
            instance.announce(&places)?;
            ready(options.detach, notices)
        })
        .await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(instance);
    ended
}

/// More than the 1,024 that a shell gives: a connection takes two of them, a guest's channels and files take others.
fn take_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let taken = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = hard.min(DESCRIPTORS);
        if soft < wanted { setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) } else { Ok(()) }
    });
    if let Err(error) = taken {
        tracing::warn!(%error, "the limit of open descriptors stays as it is");
    }
}

/// Serves until `shutdown`, on the socket that was handed over, or on one of its own; `listening` is
/// called once calls are accepted.
///
/// # Errors
/// What kept it from starting.
pub async fn run(
    places: &Places,
    inherited: Option<std::os::unix::net::UnixListener>,
    shutdown: CancellationToken,
    listening: impl FnOnce(&[String]) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |what: &str, e: &dyn std::error::Error| Error::new(Kind::Internal, format!("{what}: {}", chain(e)));
    let (store, aside) = Store::open_or_set_aside(&places.state.join("db"), in_a_process_of_its_own)
        .map_err(|e| failed("the state cannot be read", &e))?;
    let (audit, audit_writer) = Audit::start(&places.state.join("audit")).map_err(|e| failed("no audit log", &e))?;
    let owners = CancellationToken::new();
    let (disk, looking) = Disk::watch(places.state.clone(), owners.clone());
    let shared = shared(places, &store, disk)?;
    let looking = tokio::spawn(looking);
    let (registry, recovered) = Registry::recover(Arc::new(shared), owners.clone()).await?;
    let registry = Arc::new(registry);
    let notices = notices(aside, &recovered);
    let socket = match inherited {
        Some(socket) => listener::adopt(socket),
        None => listener::bind(&places.socket),
    };
    let socket = socket.map_err(|e| failed("the socket cannot be made", &e))?;
    listening(&notices)?;
    tracing::info!(socket = %places.socket.display(), version = env!("CARGO_PKG_VERSION"), "listening");

    let context = Arc::new(rpc::Context {
        audit,
        registry: registry.clone(),
        places: places.clone(),
        started: Timestamp::now(),
        notices,
        shutdown: shutdown.clone(),
    });
    // On a worker, beside the tasks it makes: from here every connection would cost two more threads' wake-ups.
    if let Err(error) = tokio::spawn(rpc::serve(socket, context, shutdown)).await {
        tracing::error!(%error, "the socket's task broke off");
    }

    tell_manager(sd_notify::NotifyState::Stopping);
    let closing = async {
        // After the last call: what is under way is dropped, and its intent is on disk.
        owners.cancel();
        registry.ended().await;
        looking.await.map_err(|e| failed("the look at the disk", &e))?;
        audit_writer.await.map_err(|e| failed("the audit log", &e))?;
        store.flush().await.map_err(|e| failed("the last state was not written", &e))
    };
    match tokio::time::timeout(GRACE, closing).await {
        Ok(result) => result?,
        Err(_) => tracing::error!("something was still running at the end"),
    }
    tracing::info!("ended");
    Ok(())
}

/// What is said to whoever starts this daemon; the report lies beside what was set aside, too.
fn notices(aside: Option<SetAside>, recovered: &Recovered) -> Vec<String> {
    let mut notices = Vec::new();
    if let Some(SetAside { why, path }) = aside {
        let report = serde_json::json!({"time": Timestamp::now(), "why": why, "recovered": recovered});
        if let Err(error) = std::fs::write(path.join(REPORT), report.to_string()) {
            tracing::warn!(%error, "no report was written");
        }
        notices.push(format!("the store could not be read ({why}) and was set aside as {}", path.display()));
    }
    notices.extend(recovered.notices());
    for notice in &notices {
        tracing::warn!("{notice}");
    }
    notices
}

/// Whether a store can be read, found out where nothing is lost if that ends the process.
fn in_a_process_of_its_own(store: &Path) -> Result<(), String> {
    let program = std::env::current_exe();
    let tried = program.and_then(|program| std::process::Command::new(program).arg(CHECK_STORE).arg(store).output());
    let tried = match tried {
        Ok(tried) => tried,
        Err(error) => {
            tracing::warn!(%error, "the store was not tried before it is opened");
            return Ok(());
        }
    };
    let said = String::from_utf8_lossy(&tried.stderr);
    let said: String = said.lines().next().unwrap_or_default().chars().take(300).collect();
    let damaged = match (tried.status.code(), tried.status.signal()) {
        (Some(code), _) => code == i32::from(DAMAGED) || code == PANICKED,
        // It ended itself over what it read; whoever else ends it (Ctrl-C, a manager, want of memory) says nothing about the store.
        (None, signal) => signal.is_some_and(|signal| {
            [Signal::SIGABRT, Signal::SIGSEGV, Signal::SIGBUS].map(|s| s as i32).contains(&signal)
        }),
    };
    match (damaged, said.is_empty()) {
        // What is wrong besides (it is in use, the disk is full) is found again by whoever asks.
        (false, _) => Ok(()),
        (true, true) => Err(format!("reading it ended with {}", tried.status)),
        (true, false) => Err(said),
    }
}

/// Where a test may let a daemon of a debug build die.
#[cfg(debug_assertions)]
pub use crate::workspace::kill_points;

/// The option of [`check_store`].
pub const CHECK_STORE: &str = "--check-store";

/// Exit status: damaged.
const DAMAGED: u8 = 65;
/// Rust's, for a panic that ends the program without aborting it.
const PANICKED: i32 = 101;

/// Reads a whole store and says on standard error what is wrong; the exit status.
#[expect(clippy::print_stderr, reason = "the answer to the daemon that asks")]
pub fn check_store(path: &Path) -> u8 {
    match Store::open(path).and_then(|store| store.read_whole()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            if error.is_damage() { DAMAGED } else { 1 }
        }
    }
}

/// What the rooms below share.
fn shared(places: &Places, store: &Store, disk: Disk) -> Result<Shared, Error> {
    let state_dir = places.state.canonicalize().map_err(|e| {
        Error::new(Kind::InvalidConfiguration, format!("the state directory {}: {e}", places.state.display()))
    })?;
    let internal = |e: &dyn std::error::Error| Error::new(Kind::Internal, format!("the state cannot be read: {e}"));
    let mistake = |e: &dyn std::error::Error| Error::new(Kind::InvalidConfiguration, e.to_string());
    let user = User::load(&places.config).map_err(|e| mistake(&e))?;
    let provider = match &user.engine.socket {
        Some(socket) => Docker::new(socket, &state_dir),
        None => Docker::from_environment(&state_dir).map_err(|e| mistake(&e))?,
    };
    Ok(Shared {
        disk,
        provider: Arc::new(provider),
        workspaces: store.table().map_err(|e| internal(&e))?,
        runs: store.table().map_err(|e| internal(&e))?,
        secrets: Secrets::open(&state_dir.join("secrets"), std::env::vars_os()).map_err(|e| internal(&e))?,
        config_dir: places.config.clone(),
        points: Points::from_env(),
        known_runs: KnownRuns::default(),
        turns: Turns::default(),
        put_away: tokio::sync::Notify::new(),
        warming: crate::ssh::Warming::default(),
        agents: open_store(&state_dir)?,
        model_client: Client::new(),
        state_dir,
    })
}

fn end_on_signals(shutdown: &CancellationToken) -> Result<(), Error> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut stream = signal(kind).map_err(|e| Error::new(Kind::Internal, format!("signals: {e}")))?;
        let shutdown = shutdown.clone();
        // Ends with the runtime: a second signal finds nothing left to cancel.
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                shutdown.cancel();
            }
        });
    }
    Ok(())
}

/// For a service manager that waits for it; nothing without one.
fn tell_manager(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

/// Tells whoever started a detached daemon that it listens, and lets go of its pipes.
#[expect(clippy::print_stdout, reason = "the one word that the starting client waits for")]
fn ready(detach: bool, notices: &[String]) -> Result<(), Error> {
    tell_manager(sd_notify::NotifyState::Ready);
    if !detach {
        return Ok(());
    }
    for notice in notices {
        println!("{NOTICE}{}", notice.replace(['\n', '\r'], " "));
    }
    println!("ready");
    let lost = |e: std::io::Error| Error::new(Kind::Internal, format!("/dev/null: {e}"));
    let null: OwnedFd = std::fs::File::options().read(true).write(true).open("/dev/null").map_err(lost)?.into();
    rustix::stdio::dup2_stdin(null.as_fd()).map_err(|e| lost(e.into()))?;
    rustix::stdio::dup2_stdout(null.as_fd()).map_err(|e| lost(e.into()))?;
    rustix::stdio::dup2_stderr(null.as_fd()).map_err(|e| lost(e.into()))?;
    Ok(())
}
