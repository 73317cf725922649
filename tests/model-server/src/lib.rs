//! A scripted model endpoint: a real HTTP/1.1 server that speaks the Anthropic Messages protocol, streaming and plain.
//!
//! It plays the model's part in a run of a real agent, by a [`Script`]. It is no recording that plays whatever happens: each
//! answer is sent only when the request carries the result of the call before, under the id that was given out, with the
//! text that the real tool must have printed. Anything else is answered with an error that ends the agent's run, and is in
//! the log. The step is found from the request alone, so a repeated request gets the same answer and a restarted server goes on.
//!
//! ```
//! use model_server::{ModelServer, Script};
//!
//! let server = ModelServer::start(Script::fix_failing_test("/work")).expect("a loopback port is free");
//! assert!(server.url().starts_with("http://127.0.0.1:"));
//! assert!(server.exchanges().is_empty());
//! ```

#![forbid(unsafe_code)]

mod anthropic;
mod http;
mod log;
mod script;
mod server;

pub use log::{Exchange, Verdict};
pub use script::{CHECK, Call, Expect, Fault, Script, Step};
pub use server::ModelServer;
