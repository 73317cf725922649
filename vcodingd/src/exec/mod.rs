//! A command on the caller's descriptors.

use tokio::sync::mpsc;

/// The way to a command under way.
#[derive(Debug, Clone)]
pub struct Controls {
    pub commands: mpsc::Sender<Control>,
}

/// What its caller may tell a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Signal(protocol::exec::Signal),
    Resize { columns: u16, rows: u16 },
}
