//! Agent runs and background commands, from the host's side.
//!
//! A run belongs to the guest: one exec of the helper ([`start_frame`]) leaves a supervisor there
//! that needs nobody, and that writes output and end into the run's directory. The host reads that
//! directory as a stranger's ([`tail`]) into a log of its own ([`Log`]), whose numbered records
//! become events through the parser of the agent's format ([`subscribe`]), for any number of
//! readers, live or long after. The end, the agent's own word and what the host did to it are
//! judged together ([`outcome`]), and what is remembered is a [`RunRecord`].
//!
//! ```text
//! guest   out.N err.N end ──tail──▶ log ──parser──▶ events ──▶ readers
//!                          └──────▶ End ─┐             │
//!                     cancelled, budget ─┴─ outcome ◀──┴ verdict
//! ```
//!
//! Nothing here is lost with the daemon: the log says how far the guest's files were read, and
//! the next daemon calls [`tail`] again. Starting, cancelling, checkpoints, and ending what is
//! left of a run's processes are the workspace's, in its order.

mod events;
mod frames;
mod log;
mod outcome;
mod record;
mod tail;

pub use events::{Origin, output, subscribe, verdict};
pub use frames::{Start, cancel_frame, start_frame};
pub use log::{
    CAP, Content, Ending, Error as LogError, Extent, Finish, Log, MAX_LINE, Output, Part, Reader, Record, Writer,
};
pub use outcome::{Ending as RunEnding, Facts, KILLED, Outcome, Work, outcome};
pub use record::{Admission, CopyError, RunRecord, read_prompt, title_of_command, title_of_prompt, write_prompt};
pub use tail::{TailError, clear, drain, tail};
