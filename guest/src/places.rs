//! Where things lie in a guest.

/// The work tree.
pub const WORK: &str = "/work";
/// The home directory.
pub const HOME: &str = "/home/work";
/// The run directory: writable for guest and host.
pub const RUN: &str = "/run/vcoding";
/// The carrier socket's name in the run directory.
pub const CARRIER: &str = "ssh.sock";
/// The directory of runs in the run directory.
pub const RUNS: &str = "runs";
/// Read-only: what the host wrote for this guest.
pub const ETC: &str = "/etc/vcoding";
/// In [`ETC`]: sshd's configuration.
pub const SSHD_CONFIG: &str = "sshd_config";
/// In [`ETC`]: the host key, mode 0600, owned by the guest's uid.
pub const HOST_KEY: &str = "host_key";
/// In [`ETC`]: the one authorized key.
pub const AUTHORIZED_KEYS: &str = "authorized_keys";
/// In [`ETC`]: the image's environment, `NAME=value` each ended by a NUL, without HOME, USER,
/// SHELL, LOGNAME.
pub const ENVIRONMENT: &str = "env";
/// In [`ETC`]: the path of the user's real shell, a line.
pub const SHELL: &str = "shell";
/// In [`ETC`]: the directory where commands begin, a line; `/work` where it is absent.
pub const DIRECTORY: &str = "directory";
/// This program.
pub const HELPER: &str = "/opt/vcoding/bin/vcoding-guest";
/// The agents' shared store.
pub const AGENTS: &str = "/opt/vcoding/agents";
/// The one login name.
pub const USER: &str = "work";

/// Where sshd may be, in the order of asking.
pub const SSHD: [&str; 5] =
    ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd", "/usr/lib/ssh/sshd", "/usr/libexec/sshd"];
