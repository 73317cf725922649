//! The carrier `stream`: the helper's carrier by an attached exec of the engine's.

use std::pin::Pin;
use std::task::{Context, Poll};

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bytes::Bytes;
use futures_util::StreamExt;
use protocol::WorkspaceId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::StreamReader;

use super::failure::Asked;
use super::{ASK, Docker, config, container_name, state_of};
use crate::provider::{Carrier, Error, GuestState, Result};

impl Docker {
    pub(super) async fn carrier(&self, id: &WorkspaceId) -> Result<Box<dyn Carrier>> {
        let state = state_of(&self.found(id).await?);
        if !matches!(state, GuestState::Running { .. }) {
            return Err(Error::NotRunning { id: id.clone(), state: state.word().to_owned() });
        }
        let client = self.client()?;
        // Not its stderr: sshd's messages would enter SSH's bytes.
        let exec = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(false),
            tty: Some(false),
            cmd: Some(vec![config::HELPER, "carrier"]),
            ..CreateExecOptions::default()
        };
        let doing = "opening a carrier";
        let made = match self.ask(doing, ASK, client.create_exec(&container_name(id), exec)).await? {
            Asked::Answer(made) => made,
            Asked::Missing(_) => return Err(Error::NoSuchGuest { id: id.clone() }),
            Asked::Conflict(message) => return Err(Error::Engine { doing, message }),
        };
        let options = StartExecOptions { output_capacity: Some(64 * 1024), ..StartExecOptions::default() };
        match self.ask(doing, ASK, client.start_exec(&made.id, Some(options))).await? {
            Asked::Answer(StartExecResults::Attached { output, input }) => {
                let bytes: BoxedBytes = Box::pin(output.filter_map(|piece| async move {
                    match piece {
                        Ok(LogOutput::StdOut { message }) => Some(Ok(message)),
                        Ok(_) => None,
                        Err(error) => Some(Err(std::io::Error::other(error))),
                    }
                }));
                Ok(Box::new(ExecStream { output: StreamReader::new(bytes), input }))
            }
            Asked::Answer(StartExecResults::Detached) => {
                Err(Error::Engine { doing, message: "the engine did not attach to it".to_owned() })
            }
            Asked::Missing(message) | Asked::Conflict(message) => Err(Error::Engine { doing, message }),
        }
    }
}

type BoxedBytes = Pin<Box<dyn futures_util::Stream<Item = std::io::Result<Bytes>> + Send>>;

/// An attached exec's two streams as one.
struct ExecStream {
    output: StreamReader<BoxedBytes, Bytes>,
    input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl AsyncRead for ExecStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.output).poll_read(cx, buf)
    }
}

impl AsyncWrite for ExecStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.input.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.input.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.input.as_mut().poll_shutdown(cx)
    }
}
