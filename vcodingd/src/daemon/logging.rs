//! The daemon's log: JSON lines in `<state>/log/vcodingd.DATE.log`, a file a day (UTC) of bounded size, seven days of them
//! kept; and on the terminal of one that was started by hand.

use std::path::Path;
use std::sync::Mutex;

use protocol::{Error, Kind};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use super::log_files::LogFiles;

/// Every line goes to its file at once.
pub(super) fn start(directory: &Path, detached: bool) -> Result<(), Error> {
    let file = LogFiles::open(directory).map_err(|e| {
        Error::new(Kind::InvalidConfiguration, format!("no log in {}: {e}", directory.display()))
            .hint(format!("ls -ld {}; df -h", directory.display()))
    })?;
    let filter = || {
        EnvFilter::try_from_env("VCODING_LOG")
            // hyper speaks of every packet at debug; only its warnings matter. russh warns of whatever a guest's end does, as often as
            // it does it, and what fails by that it returns, too.
            .unwrap_or_else(|_| EnvFilter::new("info,russh=off,hyper=warn,bollard=warn"))
    };
    let to_file = fmt::layer().json().with_writer(Mutex::new(file)).with_filter(filter());
    let to_terminal = (!detached).then(|| fmt::layer().with_writer(std::io::stderr).with_filter(filter()));
    tracing_subscriber::registry()
        .with(to_file)
        .with(to_terminal)
        .try_init()
        .map_err(|e| Error::new(Kind::Internal, format!("the log cannot start: {e}")))
}
