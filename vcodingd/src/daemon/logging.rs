//! The daemon's log: JSON lines in `<state>/log/vcodingd.log`, and on the terminal of one that
//! was started by hand.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use protocol::{Error, Kind};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

pub(super) fn start(directory: &Path, detached: bool) -> Result<(), Error> {
    let path = directory.join("vcodingd.log");
    let file = std::fs::create_dir_all(directory)
        .and_then(|()| OpenOptions::new().append(true).create(true).mode(0o600).open(&path))
        .map_err(|e| {
            Error::new(Kind::InvalidConfiguration, format!("the log {} cannot be written: {e}", path.display()))
        })?;
    let filter = || {
        EnvFilter::try_from_env("VCODING_LOG")
            // russh and hyper speak of every packet at debug; only their warnings matter.
            .unwrap_or_else(|_| EnvFilter::new("info,russh=warn,hyper=warn,bollard=warn"))
    };
    let to_file = fmt::layer().json().with_writer(Mutex::new(file)).with_filter(filter());
    let to_terminal = (!detached).then(|| fmt::layer().with_writer(std::io::stderr).with_filter(filter()));
    tracing_subscriber::registry()
        .with(to_file)
        .with(to_terminal)
        .try_init()
        .map_err(|e| Error::new(Kind::Internal, format!("the log cannot start: {e}")))
}
