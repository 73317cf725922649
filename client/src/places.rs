//! Where state, configuration and socket lie.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use protocol::{Error, Kind};

/// The longest socket path that is used as it is: `sockaddr_un` holds 108 bytes with its NUL.
const SOCKET_PATH_MAX: usize = 100;

/// The directories of one vcoding, decided once from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `VCODING_STATE_DIR`, else the platform's state directory + `/vcoding`.
    pub state: PathBuf,
    /// `VCODING_CONFIG_DIR`, else the platform's configuration directory + `/vcoding`.
    pub config: PathBuf,
    /// Where a daemon listens by default.
    pub socket: PathBuf,
    /// `--socket` or `VCODING_SOCKET`: a client goes there and nowhere else.
    pub explicit_socket: Option<PathBuf>,
}

impl Places {
    /// From the process's environment.
    ///
    /// # Errors
    /// [`Kind::InvalidConfiguration`] if there is no home directory and the variables that
    /// would replace it are absent, or one of them is not absolute.
    pub fn from_env() -> Result<Self, Error> {
        Self::resolve(|name| std::env::var_os(name).filter(|v| !v.is_empty()))
    }

    fn resolve(var: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let absolute = |name: &str| match var(name).map(PathBuf::from) {
            Some(path) if path.is_relative() => Err(Error::new(
                Kind::InvalidConfiguration,
                format!("{name} is {}, which is not an absolute path", path.display()),
            )
            .hint(format!("export {name}=\"$PWD/{}\"", path.display()))),
            other => Ok(other),
        };
        let platform = directories::ProjectDirs::from("", "", "vcoding");
        let homeless = || {
            Error::new(Kind::InvalidConfiguration, "there is no home directory to keep state in")
                .hint("export VCODING_STATE_DIR=/somewhere VCODING_CONFIG_DIR=/elsewhere")
        };
        let moved = absolute("VCODING_STATE_DIR")?;
        let state = match (&moved, &platform) {
            (Some(path), _) => path.clone(),
            (None, Some(dirs)) => dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir()).to_owned(),
            (None, None) => return Err(homeless()),
        };
        let config = match (absolute("VCODING_CONFIG_DIR")?, &platform) {
            (Some(path), _) => path,
            (None, Some(dirs)) => dirs.config_dir().to_owned(),
            (None, None) => return Err(homeless()),
        };
        let runtime = absolute("XDG_RUNTIME_DIR")?;
        let wanted = match (moved, runtime) {
            (None, Some(runtime)) => runtime.join("vcoding/vcodingd.sock"),
            _ => state.join("run/vcodingd.sock"),
        };
        let socket = shortened(wanted, &var("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from));
        Ok(Self { state, config, socket, explicit_socket: absolute("VCODING_SOCKET")? })
    }

    /// `<state>/daemon.json`, where the daemon says which socket it listens on.
    pub fn daemon_file(&self) -> PathBuf {
        self.state.join("daemon.json")
    }
}

/// A path too long for a socket's address is replaced by a directory of its own in the
/// temporary directory, named by hash: every client computes the same.
fn shortened(wanted: PathBuf, temporary: &Path) -> PathBuf {
    if wanted.as_os_str().len() <= SOCKET_PATH_MAX {
        return wanted;
    }
    // The default hasher's keys are fixed (SipHash-1-3, zero keys), so the name is stable.
    let mut hasher = DefaultHasher::new();
    wanted.hash(&mut hasher);
    temporary.join(format!("vcoding-{:016x}", hasher.finish())).join("vcodingd.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(vars: &[(&str, &str)]) -> Result<Places, Error> {
        Places::resolve(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()))
    }

    #[test]
    fn the_runtime_directory_holds_the_socket_unless_the_state_was_moved() {
        let places = resolve(&[("XDG_RUNTIME_DIR", "/run/user/7"), ("VCODING_CONFIG_DIR", "/c")]).unwrap();
        assert_eq!(places.socket, Path::new("/run/user/7/vcoding/vcodingd.sock"));
        let places =
            resolve(&[("XDG_RUNTIME_DIR", "/run/user/7"), ("VCODING_STATE_DIR", "/s"), ("VCODING_CONFIG_DIR", "/c")])
                .unwrap();
        assert_eq!(places.socket, Path::new("/s/run/vcodingd.sock"));
        assert_eq!((places.state, places.config), ("/s".into(), "/c".into()));
    }

    #[test]
    fn a_path_too_long_for_a_socket_moves_to_a_short_one_that_is_always_the_same() {
        let long = format!("/{}", "x".repeat(120));
        let vars = [("VCODING_STATE_DIR", &*long), ("VCODING_CONFIG_DIR", "/c"), ("TMPDIR", "/t")];
        let socket = resolve(&vars).unwrap().socket;
        assert!(socket.as_os_str().len() <= SOCKET_PATH_MAX, "{socket:?}");
        assert!(socket.starts_with("/t"), "{socket:?}");
        assert_eq!(socket, resolve(&vars).unwrap().socket);
    }

    #[test]
    fn relative_directories_are_refused_with_the_mend() {
        let error = resolve(&[("VCODING_STATE_DIR", "here"), ("VCODING_CONFIG_DIR", "/c")]).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidConfiguration);
        assert!(error.data.hint.unwrap().contains("$PWD/here"));
    }
}
