//! What is put on top of the user's image: OpenSSH's server, where there is none.
//!
//! Built from an empty context after the image was looked into. Nothing else is added: the user,
//! its keys and the helper come with the guest.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Seek;
use std::time::Duration;

use super::Error;
use crate::provider::{BuildEvent, BuildSpec, ImageId, ImageInfo, Look, PathKind, Provider};

/// Where the helper looks for sshd too.
const SSHD: [&str; 5] =
    ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd", "/usr/lib/ssh/sshd", "/usr/libexec/sshd"];

/// Each place that a mount of ours goes through; a link at one would lead it elsewhere.
const DIRECTORIES: [&str; 15] = [
    "/work",
    "/home",
    "/home/work",
    "/run",
    "/run/vcoding",
    "/etc",
    "/etc/vcoding",
    "/opt",
    "/opt/vcoding",
    "/opt/vcoding/bin",
    "/opt/vcoding/agents",
    "/tmp",
    "/dev",
    "/proc",
    "/sys",
];
const FILES: [&str; 2] = ["/etc/passwd", "/etc/group"];

pub(super) struct Found {
    pub has_sshd: bool,
}

/// Looks at our mount points and for sshd, running nothing of the image.
pub(super) async fn look(provider: &dyn Provider, image: &ImageId) -> Result<Found, Error> {
    let paths: Vec<&str> = DIRECTORIES.into_iter().chain(FILES).chain(SSHD).collect();
    let looks: Vec<_> = paths.iter().map(|&path| Look::At(path)).collect();
    let peeked = provider.peek(image, &looks).await?;
    let mut has_sshd = false;
    for (path, peeked) in paths.iter().zip(&peeked) {
        if SSHD.contains(path) {
            has_sshd |= matches!(peeked.kind, PathKind::File | PathKind::Link);
            continue;
        }
        let wanted = if FILES.contains(path) { PathKind::File } else { PathKind::Directory };
        if peeked.kind != PathKind::Missing && peeked.kind != wanted {
            let what = match peeked.kind {
                PathKind::Link => "a link",
                PathKind::File => "a file",
                PathKind::Directory => "a directory",
                PathKind::Missing | PathKind::Other => "neither file nor directory",
            };
            return Err(Error::Unsuitable {
                why: format!("{path} is {what} in it, and a mount of the guest goes there"),
            });
        }
    }
    Ok(Found { has_sshd })
}

/// The build of the layer from `users` to `reference`.
pub(super) fn build(users: &str, reference: &str, info: &ImageInfo, limit: Duration) -> Result<BuildSpec, Error> {
    let text = dockerfile(users, info);
    let failed = |source| Error::Context { path: "OpenSSH's layer".into(), source };
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    let file = super::context::unlinked(&std::env::temp_dir()).map_err(failed)?;
    let mut archive = tar::Builder::new(file);
    archive.append_data(&mut header, "Dockerfile", text.as_bytes()).map_err(failed)?;
    let mut context = archive.into_inner().map_err(failed)?;
    context.rewind().map_err(failed)?;
    Ok(BuildSpec {
        context,
        dockerfile: "Dockerfile".to_owned(),
        target: None,
        args: BTreeMap::new(),
        tag: reference.to_owned(),
        labels: BTreeMap::new(),
        no_cache: false,
        caches: String::new(),
        limit,
    })
}

/// Each package manager's way. Host keys that a package makes are removed: a guest's come from
/// the host, and one key in many guests would be no key.
const INSTALL: &str = "\
set -e; \
if command -v apt-get >/dev/null; then \
export DEBIAN_FRONTEND=noninteractive; apt-get update; apt-get install -y --no-install-recommends openssh-server; rm -rf /var/lib/apt/lists/*; \
elif command -v apk >/dev/null; then apk add --no-cache openssh-server openssh-sftp-server; \
elif command -v dnf >/dev/null; then dnf install -y openssh-server; dnf clean all; \
elif command -v microdnf >/dev/null; then microdnf install -y openssh-server; microdnf clean all; \
elif command -v yum >/dev/null; then yum install -y openssh-server; yum clean all; \
elif command -v zypper >/dev/null; then zypper --non-interactive install openssh-server; zypper clean -a; \
elif command -v pacman >/dev/null; then pacman -Sy --noconfirm openssh; \
else echo vcoding: no package manager known here, install openssh-server in the Dockerfile >&2; exit 1; fi; \
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub";

/// What is told of the layer's build: its one real step, by a name for people.
#[derive(Debug, Default)]
pub(super) struct Told {
    run: Option<u32>,
}

impl Told {
    pub(super) fn of(&mut self, event: BuildEvent) -> Option<BuildEvent> {
        const NAME: &str = "OpenSSH, for the way in";
        match event {
            BuildEvent::Started { step, name } if name.contains("RUN ") => {
                self.run = Some(step);
                Some(BuildEvent::Started { step, name: NAME.to_owned() })
            }
            BuildEvent::Cached { step, name } if name.contains("RUN ") => {
                Some(BuildEvent::Cached { step, name: NAME.to_owned() })
            }
            BuildEvent::Log { step, .. } | BuildEvent::Done { step, .. } | BuildEvent::Failed { step, .. } => {
                (self.run == Some(step)).then_some(event)
            }
            BuildEvent::Started { .. } | BuildEvent::Cached { .. } => None,
        }
    }
}

/// Variables by which an image would steer our programs: blank for our RUN, then as they were.
fn steers(name: &str) -> bool {
    name.starts_with("LD_") || matches!(name, "BASH_ENV" | "ENV" | "SHELLOPTS" | "PERL5LIB" | "PERL5OPT" | "PYTHONPATH")
}

fn dockerfile(users: &str, info: &ImageInfo) -> String {
    let steering: Vec<_> = info
        .env
        .iter()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| is_name(name) && steers(name))
        .collect();
    let mut text = format!("FROM {users}\n");
    for (name, _) in &steering {
        let _never_fails = writeln!(text, "ENV {name}=\"\"");
    }
    // The JSON form, since an image may have set another SHELL. What a build's proxy needs stays.
    let command = format!(
        "exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
         http_proxy=\"$http_proxy\" https_proxy=\"$https_proxy\" no_proxy=\"$no_proxy\" \
         /bin/sh -c '{INSTALL}'"
    );
    let run = serde_json::Value::from(vec!["/bin/sh", "-c", &command]);
    let _never_fails = write!(text, "USER 0\nRUN {run}\n");
    for (name, value) in &steering {
        let _never_fails = writeln!(text, "ENV {name}=\"{}\"", quoted(value));
    }
    let user = info.user.as_str();
    if !user.is_empty() && user.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':')) {
        let _never_fails = writeln!(text, "USER {user}");
    }
    text
}

/// A value within double quotes of a Dockerfile: no variable is meant, no line ends.
fn quoted(value: &str) -> String {
    let mut text = String::new();
    for c in value.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\' | '$') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(env: &[&str], user: &str) -> ImageInfo {
        ImageInfo {
            id: ImageId("sha256:1".into()),
            names: Vec::new(),
            user: user.to_owned(),
            env: env.iter().map(|&e| e.to_owned()).collect(),
            working_dir: String::new(),
            volumes: Vec::new(),
            on_build: Vec::new(),
            labels: BTreeMap::new(),
            architecture: String::new(),
        }
    }

    #[test]
    fn an_images_preloads_hold_in_none_of_our_commands_and_come_back() {
        let text = dockerfile("u", &info(&["PATH=/x", "LD_PRELOAD=/evil.so \"$x\"", "LD bad=1"], "node"));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..3], ["FROM u", "ENV LD_PRELOAD=\"\"", "USER 0"]);
        assert!(lines[3].starts_with("RUN [\"/bin/sh\",\"-c\",\"exec env -i PATH="));
        assert_eq!(lines[4..], ["ENV LD_PRELOAD=\"/evil.so \\\"\\$x\\\"\"", "USER node"]);
    }

    #[test]
    fn no_user_or_value_writes_a_line_of_ours() {
        let text = dockerfile("u", &info(&["LD_X=a\nRUN evil"], "a\nRUN evil"));
        assert!(!text.lines().any(|line| line.starts_with("RUN evil")), "{text}");
        assert!(!INSTALL.contains('\''), "it stands in single quotes");
    }
}
