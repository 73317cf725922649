//! The daemon's log: JSON lines in `<state>/log/vcodingd.DATE.log`, a file a day (UTC), seven of them
//! kept; and on the terminal of one that was started by hand.

use std::path::Path;

use protocol::{Error, Kind};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// Days of it that are kept.
const KEPT: usize = 7;

/// Files are made with the process's umask: 0600.
pub(super) fn start(directory: &Path, detached: bool) -> Result<(), Error> {
    // It says of a directory that is not there yet, on standard error, that it cannot be read.
    let _said_below = std::fs::create_dir_all(directory);
    let file = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("vcodingd")
        .filename_suffix("log")
        .max_log_files(KEPT)
        .build(directory)
        .map_err(|e| {
            Error::new(Kind::InvalidConfiguration, format!("no log in {}: {e}", directory.display()))
                .hint(format!("ls -ld {}; df -h", directory.display()))
        })?;
    let filter = || {
        EnvFilter::try_from_env("VCODING_LOG")
            // russh and hyper speak of every packet at debug; only their warnings matter.
            .unwrap_or_else(|_| EnvFilter::new("info,russh=warn,hyper=warn,bollard=warn"))
    };
    let to_file = fmt::layer().json().with_writer(file).with_filter(filter());
    let to_terminal = (!detached).then(|| fmt::layer().with_writer(std::io::stderr).with_filter(filter()));
    tracing_subscriber::registry()
        .with(to_file)
        .with(to_terminal)
        .try_init()
        .map_err(|e| Error::new(Kind::Internal, format!("the log cannot start: {e}")))
}
