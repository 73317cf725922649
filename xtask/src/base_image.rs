//! Base images where no registry answers.
//!
//! A Dockerfile names its base; normally the engine pulls it. Where no registry can be reached and the tag is absent, the
//! same release is bootstrapped from the distribution's own mirror and imported under the tag the Dockerfile names, with
//! a label that says so. An image that exists is never replaced, and a registry that answers (even with "no such tag") is
//! never impersonated. `cargo xtask clean-bases` removes what was made here.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::engine::{self, Engine};
use crate::{packages, program, say};

/// A base that can be made here.
#[derive(Debug, Clone, Copy)]
pub struct Base {
    /// The tag that Dockerfiles name.
    pub tag: &'static str,
    suite: &'static str,
}

/// What the demo's and the tests' Dockerfiles build on.
pub const DEBIAN: Base = Base { tag: "debian:bookworm-slim", suite: "bookworm" };

/// Every base that can be made here.
pub const ALL: [Base; 1] = [DEBIAN];

/// On every image made here. Not below `vcoding.`: the daemon refuses that prefix in images of users.
pub const LABEL: &str = "org.vcoding-dev.base";
/// Changes when the recipe does, so that an older cached tarball is not used.
const RECIPE: &str = "2";
/// The consent of those who have no terminal.
const CONSENT: &str = "VCODING_MAKE_BASE";
/// Where an administrator puts certificate authorities on Debian and Ubuntu, and where they go in the image.
const AUTHORITIES: &str = "usr/local/share/ca-certificates";
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PULL: Duration = Duration::from_secs(15 * 60);

/// The tag exists afterwards: it was there, was pulled, or was made here.
///
/// # Errors
/// A registry that answered with something else, a `no` at the terminal, or a bootstrap that failed.
pub fn ensure(_engine: &Engine, base: Base) -> Result<()> {
    if exists(base.tag)? {
        return Ok(());
    }
    say::step(format_args!("{} is not here: asking its registry", base.tag));
    let pull = program::capture(engine::docker().args(["pull", "--quiet", base.tag]), PULL)?;
    if pull.ok {
        return Ok(());
    }
    if !(pull.timed_out || is_unreachable(&pull.err)) {
        bail!("the registry answered, but {} did not come: {}", base.tag, pull.err.trim());
    }
    consent(base, pull.err.trim())?;
    let tarball = tarball(base)?;
    import(base, &tarball)
}

/// Removes the images that were made here, and their cached tarballs.
pub fn clean() -> Result<()> {
    for base in ALL {
        if exists(base.tag)? && label(base.tag)? == base.tag {
            program::run(engine::docker().args(["image", "rm", base.tag]))?;
            say::line(format_args!("removed {}", base.tag));
        }
    }
    let cache = cache()?;
    match fs::remove_dir_all(&cache) {
        Ok(()) => say::line(format_args!("removed {}", cache.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("cannot remove {}", cache.display())),
    }
    Ok(())
}

fn exists(tag: &str) -> Result<bool> {
    let found = program::read(engine::docker().args(["image", "ls", "--quiet", tag]))?;
    Ok(!found.is_empty())
}

/// The value of our label, empty where it is not ours. Images built on ours inherit the label, so its value names the tag.
fn label(tag: &str) -> Result<String> {
    let format = format!("{{{{index .Config.Labels \"{LABEL}\"}}}}");
    program::read(engine::docker().args(["image", "inspect", "--format", &format, tag]))
}

/// The engine reports a failed pull as text only. These are the ways of saying that nobody was reached; anything else
/// (no such tag, access denied, too many requests) is an answer.
fn is_unreachable(said: &str) -> bool {
    [
        "no such host",
        "connection refused",
        "connection reset",
        "i/o timeout",
        "deadline exceeded",
        "Client.Timeout",
        "network is unreachable",
        "no route to host",
        "server misbehaving",
        "Temporary failure in name resolution",
        "TLS handshake timeout",
        "certificate signed by unknown authority",
    ]
    .iter()
    .any(|way| said.contains(way))
}

fn consent(base: Base, said: &str) -> Result<()> {
    let last = said.lines().last().unwrap_or("no answer");
    say::line(format_args!("    no registry answers: {last}"));
    let what = format!(
        "{} bootstrapped from the distribution's mirror, with this machine's extra certificate authorities, imported under that tag \
         and labelled {LABEL}",
        base.tag
    );
    let asked = std::env::var_os(CONSENT).is_some_and(|value| value == "1");
    if asked || !std::io::stdin().is_terminal() {
        say::step(format_args!("making the base image: {what} (`cargo xtask clean-bases` removes it)"));
        return Ok(());
    }
    say::line(format_args!("    It can be made here: {what}."));
    write!(std::io::stderr(), "    Type yes to make it: ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    bail!("{} is needed: pull or load it, or say yes here (or set {CONSENT}=1)", base.tag);
}

/// `$XDG_CACHE_HOME/vcoding/base`, or below `~/.cache`.
fn cache() -> Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let root = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(home)
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(root.join("vcoding/base"))
}

fn tarball(base: Base) -> Result<PathBuf> {
    let host = Host::look(base)?;
    let cache = cache()?;
    let name = base.tag.replace([':', '/'], "-");
    let tarball = cache.join(format!("{name}-{:016x}.tar.gz", host.fingerprint()));
    if tarball.exists() {
        say::line(format_args!("    from the cache: {}", tarball.display()));
        return Ok(tarball);
    }
    if !program::is_root() {
        bail!(
            "making {} needs root once: type `sudo env {CONSENT}=1 PATH=\"$PATH\" HOME=\"$HOME\" cargo xtask setup`, then run this again",
            base.tag
        );
    }
    packages::install(&["debootstrap"], "no debootstrap here")?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let scratch = Scratch::new(cache.join(format!("{name}.{}", std::process::id())))?;
    let root = scratch.0.join("root");
    bootstrap(base, &host, &root)?;
    host.furnish(&root)?;
    let partial = scratch.0.join("image.tar.gz");
    pack(&root, &partial)?;
    fs::rename(&partial, &tarball).with_context(|| format!("cannot put {} in place", tarball.display()))?;
    Ok(tarball)
}

/// A directory that goes away with its owner, whatever happened.
struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // debootstrap leaves these behind when it fails; removing the directory through a live /proc would go wrong.
        for mount in ["root/proc", "root/sys"] {
            let _ = Command::new("umount").arg("-q").arg(self.0.join(mount)).output();
        }
        if let Err(e) = fs::remove_dir_all(&self.0) {
            say::line(format_args!("    {} is left over: {e}", self.0.display()));
        }
    }
}

/// What of this machine goes into the image, so that `apt-get`, `pip` and `npm` work in Dockerfiles as they do here.
#[derive(Debug, Hash)]
struct Host {
    /// Name and text of every extra certificate authority.
    authorities: Vec<(String, Vec<u8>)>,
    /// Lines of apt's configuration: proxies and date checks.
    apt: Vec<String>,
    /// The mirror this machine uses for the same release; debootstrap has its own default.
    mirror: Option<String>,
}

impl Host {
    fn look(base: Base) -> Result<Self> {
        let dir = Path::new("/").join(AUTHORITIES);
        let mut authorities = Vec::new();
        if dir.exists() {
            for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "crt") {
                    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    authorities.push((name, text));
                }
            }
        }
        authorities.sort();
        Ok(Self { authorities, apt: apt_lines(&ask("apt-config", &["dump", "Acquire"])), mirror: mirror(base) })
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (RECIPE, self).hash(&mut hasher);
        hasher.finish()
    }

    /// Everything between a bare bootstrap and an image that builds things.
    fn furnish(&self, root: &Path) -> Result<()> {
        let place = |path: &str, text: &[u8]| {
            let file = root.join(path);
            let dir = file.parent().context("a file has a directory")?;
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        for (name, text) in &self.authorities {
            place(&format!("{AUTHORITIES}/{name}"), text)?;
        }
        if !self.authorities.is_empty() {
            program::run(Command::new("chroot").arg(root).arg("update-ca-certificates"))?;
        }
        if !self.apt.is_empty() {
            place("etc/apt/apt.conf.d/90host", (self.apt.join("\n") + "\n").as_bytes())?;
        }
        place("etc/apt/apt.conf.d/80image", APT)?;
        place("etc/dpkg/dpkg.cfg.d/image", DPKG)?;
        // No service is started by a package's installation in a build.
        place("usr/sbin/policy-rc.d", b"#!/bin/sh\nexit 101\n")?;
        program::run(Command::new("chmod").arg("755").arg(root.join("usr/sbin/policy-rc.d")))?;
        for file in ["etc/hostname", "etc/resolv.conf", "etc/machine-id"] {
            place(file, b"")?;
        }
        empty(&root.join("var/lib/apt/lists"))?;
        empty(&root.join("var/cache/apt/archives"))?;
        empty(&root.join("var/log"))
    }

    /// The environment of the image, as `docker import --change` wants it.
    fn environment(&self) -> Vec<String> {
        let mut lines = vec![format!("ENV PATH={PATH}")];
        if !self.authorities.is_empty() {
            // Those that bring their own bundle and do not read the system's.
            for name in ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"] {
                lines.push(format!("ENV {name}={BUNDLE}"));
            }
        }
        lines
    }
}

/// No translations, no package archives kept, as in the published images.
const APT: &[u8] = b"Acquire::Languages \"none\";\nAcquire::GzipIndexes \"true\";\nAPT::Install-Recommends \"true\";\n\
    DPkg::Post-Invoke { \"rm -f /var/cache/apt/archives/*.deb || true\"; };\n";
/// Slim: no manuals; and no sync per file, since a build that dies is thrown away.
const DPKG: &[u8] = b"force-unsafe-io\npath-exclude /usr/share/doc/*\npath-include /usr/share/doc/*/copyright\n\
    path-exclude /usr/share/man/*\npath-exclude /usr/share/info/*\npath-exclude /usr/share/locale/*\n";

/// What a program printed, empty where it is absent or failed.
fn ask(name: &str, args: &[&str]) -> String {
    program::read(Command::new(name).args(args)).unwrap_or_default()
}

/// Of `apt-config dump`, what decides whether a mirror is reached and believed from this network.
fn apt_lines(dump: &str) -> Vec<String> {
    let wanted = |line: &&str| {
        let lower = line.to_ascii_lowercase();
        (lower.contains("::proxy") && !lower.contains("detect") && !lower.contains("\"\""))
            || lower.starts_with("acquire::check-valid-until ")
            || lower.starts_with("acquire::check-date ")
    };
    dump.lines().filter(wanted).map(str::to_owned).collect()
}

/// The mirror this machine uses for this release, where it runs the same distribution.
fn mirror(base: Base) -> Option<String> {
    let codename = format!("Codename: {}", base.suite);
    let targets = ask(
        "apt-get",
        &["indextargets", "--format", "$(REPO_URI)", &codename, "Origin: Debian", "Created-By: Packages"],
    );
    let first = targets.lines().find(|uri| uri.starts_with("http"))?;
    Some(first.trim_end_matches('/').to_owned())
}

fn bootstrap(base: Base, host: &Host, root: &Path) -> Result<()> {
    say::step(format_args!("bootstrapping {} (about a minute)", base.suite));
    let log = root.with_extension("log");
    let out = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(program::find("debootstrap").context("debootstrap is not installed")?);
    command
        .args(["--variant=minbase", "--include=ca-certificates", base.suite])
        .arg(root)
        .args(&host.mirror)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // It works through sbin programs that an ordinary PATH lacks.
        .env("PATH", format!("{}:{PATH}", std::env::var("PATH").unwrap_or_default()))
        .stdout(out.try_clone()?)
        .stderr(out);
    program::run(&mut command).with_context(|| {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("its last words:\n{}", lines[lines.len().saturating_sub(12)..].join("\n"))
    })
}

fn empty(dir: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let gone = if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn pack(root: &Path, tarball: &Path) -> Result<()> {
    program::run(
        Command::new("tar")
            .args(["--create", "--use-compress-program=gzip -1", "--numeric-owner", "--one-file-system", "--sort=name"])
            // The engine makes its own devices.
            .args(["--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*", "--exclude=./debootstrap"])
            .arg("--file")
            .arg(tarball)
            .arg("--directory")
            .arg(root)
            .arg("."),
    )
}

fn import(base: Base, tarball: &Path) -> Result<()> {
    let host = Host::look(base)?;
    let mut command = engine::docker();
    command.arg("import");
    for change in host.environment() {
        command.arg("--change").arg(change);
    }
    command
        .args(["--change", "CMD [\"bash\"]", "--change"])
        .arg(format!("LABEL {LABEL}={}", base.tag))
        .arg("--message")
        .arg("made here by cargo xtask: no registry answered")
        .arg(tarball)
        .arg(base.tag)
        .stdout(std::process::Stdio::null());
    // Someone may have pulled it while we worked; an image that exists is never replaced.
    if exists(base.tag)? {
        return Ok(());
    }
    program::run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_answers_is_never_impersonated() {
        for answer in [
            "Error response from daemon: manifest for debian:bookworm-slim not found: manifest unknown",
            "Error response from daemon: pull access denied for debian, repository does not exist",
            "toomanyrequests: You have reached your pull rate limit",
            "unauthorized: authentication required",
            "no space left on device",
        ] {
            assert!(!is_unreachable(answer), "{answer}");
        }
    }

    #[test]
    fn a_registry_that_nobody_can_reach_is_told_apart() {
        for silence in [
            "dial tcp: lookup registry.example on 10.0.0.1:53: no such host",
            "net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)",
            "dial tcp 192.0.2.1:443: connect: connection refused",
        ] {
            assert!(is_unreachable(silence), "{silence}");
        }
    }

    #[test]
    fn only_proxies_and_date_checks_of_apt_go_into_the_image() {
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://127.0.0.1:3142\";\nAcquire::https::Proxy \"\";\n\
            Acquire::http::Proxy-Auto-Detect \"/usr/bin/detect\";\nAcquire::Languages \"none\";\nAcquire::Check-Date \"false\";";
        assert_eq!(
            apt_lines(dump),
            ["Acquire::http::Proxy \"http://127.0.0.1:3142\";", "Acquire::Check-Date \"false\";"]
        );
    }

    #[test]
    fn another_certificate_authority_makes_another_image() {
        let host =
            |text: &[u8]| Host { authorities: vec![("a.crt".into(), text.to_vec())], apt: Vec::new(), mirror: None };
        assert_eq!(host(b"one").fingerprint(), host(b"one").fingerprint());
        assert_ne!(host(b"one").fingerprint(), host(b"two").fingerprint());
    }

    #[test]
    fn programs_learn_of_the_bundle_only_where_there_are_extra_authorities() {
        let mut host = Host { authorities: Vec::new(), apt: Vec::new(), mirror: None };
        assert_eq!(host.environment(), [format!("ENV PATH={PATH}")]);
        host.authorities.push(("a.crt".into(), Vec::new()));
        assert!(host.environment().contains(&format!("ENV PIP_CERT={BUNDLE}")));
    }
}
