//! What a guest finds in /etc/vcoding: written by the host, read-only there.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use guest::places;

use super::{Error, Keys, Result};
use crate::provider::User;

/// The two ports of a guest's loopback by which agents reach their model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelPorts {
    /// Where PID 1 listens for the guest's life.
    pub model: u16,
    /// Where it relays to: the remote forward that ends in the daemon.
    pub relay: u16,
}

/// Everything of a guest that is not a key.
#[derive(Debug, Clone)]
pub struct GuestFiles {
    pub user: User,
    /// The image's, `NAME=value`.
    pub env: Vec<String>,
    /// The user's real shell.
    pub shell: String,
    /// Where commands begin.
    pub directory: String,
    /// The image's accounts with ours.
    pub passwd: String,
    pub group: String,
    pub ports: ModelPorts,
}

/// A session sets these itself.
const OWN: [&str; 4] = ["HOME", "USER", "SHELL", "LOGNAME"];

/// Writes them all. A file that is right already is not touched: a running guest has it mounted.
///
/// # Errors
/// [`Error::File`].
pub fn write_guest_files(etc: &Path, keys: &Keys, files: &GuestFiles) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(etc).map_err(Error::file(etc))?;
    // Whatever the umask: the guest's user reads it through its mount.
    std::fs::set_permissions(etc, Permissions::from_mode(0o755)).map_err(Error::file(etc))?;
    let public: [(&str, Vec<u8>); 7] = [
        (places::SSHD_CONFIG, sshd_config(files.ports).into_bytes()),
        (places::AUTHORIZED_KEYS, keys.authorized_line()?.into_bytes()),
        (places::ENVIRONMENT, environment(&files.env)),
        (places::SHELL, line(&files.shell)),
        (places::DIRECTORY, line(&files.directory)),
        ("passwd", files.passwd.clone().into_bytes()),
        ("group", files.group.clone().into_bytes()),
    ];
    for (name, content) in public {
        put(etc, name, &content, 0o644, None)?;
    }
    // sshd takes a key only if it is its user's own and nobody else's; so the guest can read it,
    // and be nobody but itself by it.
    put(etc, places::HOST_KEY, keys.host_private_text()?.as_bytes(), 0o600, Some(files.user))?;
    File::open(etc).and_then(|d| d.sync_all()).map_err(Error::file(etc))
}

fn line(text: &str) -> Vec<u8> {
    format!("{text}\n").into_bytes()
}

/// A guest has no network: what would ask a registry for minutes is told so, and fails at once. The image's own words stay.
const OFFLINE: [&str; 8] = [
    "npm_config_offline=true",
    "YARN_ENABLE_NETWORK=0",
    "PIP_NO_INDEX=1",
    "PIP_DISABLE_PIP_VERSION_CHECK=1",
    "UV_OFFLINE=1",
    "CARGO_NET_OFFLINE=true",
    "GOPROXY=off",
    "GOTOOLCHAIN=local",
];

/// `NAME=value`, each ended by a NUL. What is not of that form is dropped.
fn environment(env: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    let name = |entry: &str| entry.split_once('=').map(|(name, _)| name.to_owned());
    let sets = |wanted: &str| env.iter().any(|entry| name(entry) == name(wanted));
    let offline = OFFLINE.iter().filter(|entry| !sets(entry)).map(|entry| (*entry).to_owned());
    for entry in env.iter().cloned().chain(offline) {
        match entry.split_once('=') {
            Some((name, _)) if !name.is_empty() && !OWN.contains(&name) && !entry.contains('\0') => {
                out.extend_from_slice(entry.as_bytes());
                out.push(0);
            }
            _ => {}
        }
    }
    out
}

/// As found to work without root, PAM and capabilities. One algorithm of each sort, the same as
/// ours; OpenSSH 8.0 and later have them.
fn sshd_config(ports: ModelPorts) -> String {
    let etc = places::ETC;
    let [host_key, authorized_keys] = [places::HOST_KEY, places::AUTHORIZED_KEYS].map(|name| format!("{etc}/{name}"));
    format!(
        "\
# Written by vcodingd.
HostKey {host_key}
AuthorizedKeysFile {authorized_keys}
KexAlgorithms curve25519-sha256
Ciphers aes128-gcm@openssh.com
MACs hmac-sha2-256-etm@openssh.com
HostKeyAlgorithms ssh-ed25519
PubkeyAcceptedKeyTypes ssh-ed25519
AllowUsers {user}
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
StrictModes no
UsePAM no
UseDNS no
PidFile none
LoginGraceTime 20
MaxSessions 256
PermitUserEnvironment no
PermitUserRC no
AcceptEnv *
PrintMotd no
PrintLastLog no
Compression no
TCPKeepAlive no
ClientAliveInterval 0
X11Forwarding no
AllowAgentForwarding no
AllowStreamLocalForwarding no
AllowTcpForwarding remote
PermitListen 127.0.0.1:{relay}
GatewayPorts no
PermitTunnel no
Subsystem sftp internal-sftp
LogLevel ERROR
",
        user = places::USER,
        relay = ports.relay,
    )
}

fn put(etc: &Path, name: &str, content: &[u8], mode: u32, owner: Option<User>) -> Result<()> {
    let path = etc.join(name);
    if is_already(&path, content, mode, owner) {
        return Ok(());
    }
    let temporary = etc.join(format!(".{name}.new"));
    let write = || -> std::io::Result<()> {
        // Left by a kill, perhaps, and then of the guest's uid.
        match std::fs::remove_file(&temporary) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        if let Some(user) = owner {
            std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid))?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)
    };
    write().map_err(Error::file(path.clone()))
}

fn is_already(path: &Path, content: &[u8], mode: u32, owner: Option<User>) -> bool {
    let same = |meta: &std::fs::Metadata| {
        meta.is_file()
            && meta.len() == content.len() as u64
            && meta.mode() & 0o7777 == mode
            && owner.is_none_or(|user| (meta.uid(), meta.gid()) == (user.uid, user.gid))
    };
    std::fs::symlink_metadata(path).is_ok_and(|meta| same(&meta)) && std::fs::read(path).is_ok_and(|old| old == content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> GuestFiles {
        let [uid, gid] = [rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()];
        GuestFiles {
            user: User { uid, gid },
            env: ["PATH=/bin", "HOME=/root", "SHELL=x", "nonsense", "=x", "EMPTY="].map(str::to_owned).to_vec(),
            shell: "/bin/bash".to_owned(),
            directory: "/work".to_owned(),
            passwd: "work:x:1:1::/home/work:/bin/sh\n".to_owned(),
            group: "work:x:1:\n".to_owned(),
            ports: ModelPorts { model: 7001, relay: 7002 },
        }
    }

    #[test]
    fn every_file_is_there_with_the_mode_that_its_reader_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::generate().unwrap();
        write_guest_files(dir.path(), &keys, &files()).unwrap();
        for name in ["sshd_config", "authorized_keys", "env", "shell", "directory", "passwd", "group"] {
            let mode = std::fs::metadata(dir.path().join(name)).unwrap().mode();
            assert_eq!(mode & 0o7777, 0o644, "{name}");
        }
        assert_eq!(std::fs::metadata(dir.path().join("host_key")).unwrap().mode() & 0o7777, 0o600);
        let env = std::fs::read_to_string(dir.path().join("env")).unwrap();
        assert!(env.starts_with("PATH=/bin\0EMPTY=\0npm_config_offline=true\0") && env.ends_with('\0'), "{env:?}");
        let config = std::fs::read_to_string(dir.path().join("sshd_config")).unwrap();
        assert!(config.contains("\nPermitListen 127.0.0.1:7002\n") && config.contains("\nAllowUsers work\n"));
    }

    #[test]
    fn tools_are_told_that_there_is_no_network_unless_the_image_says_otherwise() {
        let env = ["GOPROXY=https://mirror.example", "PIP_NO_INDEX="].map(str::to_owned);
        let text = String::from_utf8(environment(&env)).unwrap();
        let lines: Vec<&str> = text.split_terminator('\0').collect();
        assert_eq!(lines[..2], ["GOPROXY=https://mirror.example", "PIP_NO_INDEX="]);
        assert!(lines.contains(&"CARGO_NET_OFFLINE=true"), "{lines:?}");
        let names: std::collections::BTreeSet<_> = lines.iter().map(|line| line.split_once('=').unwrap().0).collect();
        assert_eq!(names.len(), lines.len(), "each is there once: {lines:?}");
    }

    #[test]
    fn what_is_right_is_left_alone_and_what_is_not_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::generate().unwrap();
        let inode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().ino();
        write_guest_files(dir.path(), &keys, &files()).unwrap();
        let before = (inode("passwd"), inode("group"));
        let other = GuestFiles { group: "work:x:2:\n".to_owned(), ..files() };
        write_guest_files(dir.path(), &keys, &other).unwrap();
        assert_eq!(inode("passwd"), before.0);
        assert_ne!(inode("group"), before.1);
        assert_eq!(std::fs::read_to_string(dir.path().join("group")).unwrap(), other.group);
    }
}
