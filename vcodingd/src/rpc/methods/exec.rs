//! `exec.*`: a command's way from a line with descriptors to its status.

use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use guest::{Frame, Job};
use jsonrpsee::RpcModule;
use protocol::daemon::Done;
use protocol::exec::{ExecParams, ExecResizeParams, ExecResult, ExecSignalParams, over_memory};
use protocol::methods::{ExecResize, ExecSignal, ExecStart};
use protocol::{Bytes, Error, Kind};
use serde_json::json;
use tokio::sync::mpsc;

use super::{Context, register};
use crate::exec::{Control, Controls, Pool, Request, attached};
use crate::rpc::call::{Call, ConnectionState};
use crate::runs::KILLED;

/// Signals and sizes that wait for one command.
const CONTROLS: usize = 32;
/// Until a command takes one.
const TAKE: Duration = Duration::from_secs(5);
/// What a command's own files are made with.
const UMASK: u16 = 0o022;

pub(super) fn register_all(module: &mut RpcModule<Context>) {
    register::<ExecStart, _, _>(module, async |context, call, params| {
        // Before anything is waited for: the next line may be a signal for it.
        let (named, controls) = Named::new(&call.connection, params.exec.clone())?;
        // A read of what is published; only a guest that is just being started is waited for.
        let workspace = context.registry.find(&params.workspace)?;
        let pool = workspace.pool().await?;
        let _doing = workspace.doing();
        let ended = start(&pool, &call, params, (named, controls)).await;
        match ended {
            // Looked at here alone: it costs the others nothing.
            Ok(ExecResult { status: KILLED, .. }) => {
                Ok(ExecResult { status: KILLED, memory_limit: workspace.memory_limit_hit() })
            }
            Err(error) if error.kind() == Kind::GuestUnreachable => {
                Err(match workspace.memory_limit_ended_guest().await {
                    Some(limit) => Error { message: format!("{}: {}", error.message, over_memory(limit)), ..error },
                    None => error,
                })
            }
            other => other,
        }
    });
    register::<ExecSignal, _, _>(module, async |_, call, params: ExecSignalParams| {
        control(&call, &params.exec, Control::Signal(params.signal)).await
    });
    register::<ExecResize, _, _>(module, async |_, call, params: ExecResizeParams| {
        control(&call, &params.exec, Control::Resize { columns: params.columns, rows: params.rows }).await
    });
}

async fn start(
    pool: &Pool,
    call: &Call,
    params: ExecParams,
    (_named, controls): (Named, mpsc::Receiver<Control>),
) -> Result<ExecResult, Error> {
    let descriptors = call.take_descriptors();
    let request = Request {
        frame: frame(&params)?,
        terminal: params.terminal,
        timeout: params.timeout_ms.map(Duration::from_millis),
    };
    match attached(pool, request, descriptors, controls).await {
        Ok(status) => Ok(ExecResult { status, memory_limit: None }),
        // The caller's exit status depends on it.
        Err(error) => {
            let started = error.has_started();
            Err(Error::from(error).details(json!({ "started": started })))
        }
    }
}

fn frame(params: &ExecParams) -> Result<Frame, Error> {
    let refused = |what: String| Err(Error::new(Kind::InvalidParameters, what));
    for entry in &params.env {
        if entry.0.iter().position(|b| *b == b'=').is_none_or(|at| at == 0) {
            return refused(format!("env: {entry:?} is not NAME=value"));
        }
    }
    let with_nul = |bytes: &&Bytes| bytes.0.contains(&0);
    if let Some(found) = params.argv.iter().chain(&params.env).chain(&params.directory).find(with_nul) {
        return refused(format!("{found:?} has a NUL in it"));
    }
    Ok(Frame {
        job: Job::Exec,
        argv: params.argv.iter().map(|word| word.0.clone()).collect(),
        env: params.env.iter().map(|entry| entry.0.clone()).collect(),
        directory: params.directory.as_ref().map(|d| d.0.clone()).unwrap_or_default(),
        umask: UMASK,
    })
}

async fn control(call: &Call, name: &str, control: Control) -> Result<Done, Error> {
    let found = call.connection.execs.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
    let ended = || Error::new(Kind::InvalidParameters, format!("no command named {name:?} runs on this connection"));
    match found.ok_or_else(ended)?.commands.send_timeout(control, TAKE).await {
        Ok(()) => Ok(Done {}),
        Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(ended()),
        Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
            Err(Error::new(Kind::GuestUnreachable, format!("the command {name:?} takes no signals")))
        }
    }
}

/// A name on its connection, for as long as the command runs.
struct Named {
    connection: Arc<ConnectionState>,
    name: String,
}

impl Named {
    fn new(connection: &Arc<ConnectionState>, name: String) -> Result<(Self, mpsc::Receiver<Control>), Error> {
        let (commands, controls) = mpsc::channel(CONTROLS);
        match connection.execs.lock().unwrap_or_else(PoisonError::into_inner).entry(name.clone()) {
            Entry::Occupied(_) => {
                Err(Error::new(Kind::AlreadyRunning, format!("a command named {name:?} runs on this connection")))
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Controls { commands });
                Ok((Self { connection: connection.clone(), name }, controls))
            }
        }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.connection.execs.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use protocol::exec::Signal;
    use serde_json::Value;

    use super::*;
    use crate::exec::testing::TestGuest;

    fn params(argv: &[&str]) -> ExecParams {
        ExecParams {
            workspace: protocol::WorkspaceRef::Name("here".into()),
            exec: "e".into(),
            argv: argv.iter().map(|word| Bytes::from(*word)).collect(),
            env: Vec::new(),
            directory: None,
            terminal: None,
            timeout_ms: None,
        }
    }

    async fn start(pool: &Pool, call: &Call, params: ExecParams) -> Result<ExecResult, Error> {
        let named = Named::new(&call.connection, params.exec.clone())?;
        super::start(pool, call, params, named).await
    }

    fn call(connection: &Arc<ConnectionState>, descriptors: Vec<std::os::fd::OwnedFd>) -> Call {
        Call::new(connection.clone(), Value::Null, descriptors, mpsc::channel(1).0)
    }

    #[tokio::test]
    async fn a_command_runs_under_its_name_and_is_told_signals_by_it() {
        let guest = TestGuest::start();
        let pool = guest.pool().await;
        let connection = Arc::<ConnectionState>::default();
        let (out, out_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap().into();
        let running = tokio::spawn({
            let (pool, call) = (pool.clone(), call(&connection, vec![null, out_end]));
            async move { start(&pool, &call, params(&["signals"])).await }
        });
        let mut ready = [0; 6];
        let mut out = std::fs::File::from(out);
        tokio::task::spawn_blocking(move || out.read_exact(&mut ready).unwrap()).await.unwrap();
        let again = start(&pool, &call(&connection, vec![]), params(&["true"])).await.unwrap_err();
        assert_eq!(again.kind(), Kind::AlreadyRunning);
        let other = call(&Arc::default(), vec![]);
        assert_eq!(
            control(&other, "e", Control::Signal(Signal::Term)).await.unwrap_err().kind(),
            Kind::InvalidParameters
        );
        control(&call(&connection, vec![]), "e", Control::Signal(Signal::Term)).await.unwrap();
        assert_eq!(running.await.unwrap().unwrap().status, 143);
        assert!(connection.execs.lock().unwrap().is_empty());
        let next = start(&pool, &call(&connection, vec![]), params(&["exit", "3"])).await.unwrap();
        assert_eq!(next.status, 3);
    }

    #[tokio::test]
    async fn what_cannot_be_run_is_said_with_whether_it_has_started() {
        let guest = TestGuest::start();
        let pool = guest.pool().await;
        let connection = Arc::<ConnectionState>::default();
        let start = async |params| start(&pool, &call(&connection, vec![]), params).await.unwrap_err();
        for (env, argv) in [("A", "true"), ("=b", "true"), ("A=b\0", "true"), ("A=b", "a\0b")] {
            let params = ExecParams { env: vec![env.into()], ..params(&[argv]) };
            assert_eq!(start(params).await.kind(), Kind::InvalidParameters, "{env:?} {argv:?}");
        }
        let late = start(ExecParams { timeout_ms: Some(30), ..params(&["hang"]) }).await;
        assert_eq!((late.kind(), &late.data.details), (Kind::TimedOut, &json!({ "started": true })));
        pool.close().await;
        let closed = start(params(&["true"])).await;
        assert_eq!((closed.kind(), &closed.data.details), (Kind::WorkspaceNotRunning, &json!({ "started": false })));
    }
}
