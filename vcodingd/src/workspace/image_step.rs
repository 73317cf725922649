//! The user's Dockerfile as an image, and what of it the guest is made with.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use protocol::Error;
use protocol::workspace::StepState;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::actor::Actor;
use super::points::{BUILDING, BUILT, Side};
use super::record::{self, ImageRecord};
use super::steps::{Told, blocking};
use super::{Say, consent, failure};
use crate::config;
use crate::image::{self, ImageRequest};
use crate::provider::BuildEvent;

/// Of a longer Dockerfile only the beginning is compared.
const MAX_DOCKERFILE: u64 = 4 << 20;
/// A longer ENV is not taken: it has to fit into a guest's environment.
const MAX_ENV: usize = 256 << 10;

impl Actor {
    /// The image of the record, made if it is not there. Once it is, only `rebuild` looks at the
    /// project again: a resident guest does not change because a file of the project did.
    pub(super) async fn image(
        &mut self,
        rebuild: bool,
        no_cache: bool,
        say: &Say,
        told: &mut Told,
    ) -> Result<Option<String>, Error> {
        if !rebuild
            && let Some(image) = &self.record.image
            && self.shared.provider.image(&image.reference).await.is_ok()
        {
            return Ok(Some("cached".into()));
        }
        let (state_dir, root) = (self.shared.state_dir.clone(), self.record.project.clone());
        let project = blocking(move || consent::settings(&state_dir, &root)).await?;
        let source = source_of(&self.record.project, &project);
        let request = ImageRequest {
            project: self.record.project.clone(),
            dockerfile: project.dockerfile.clone(),
            context: project.context.clone(),
            target: project.target.clone(),
            args: project.build_args.clone(),
            name: self.record.name.clone(),
            workspace: self.record.id.clone(),
            rebuild,
            no_cache,
        };
        let scratch = self.places.host();
        let asked = request.clone();
        let prepared = blocking(move || {
            let secret = |path: &Path, head: &[u8]| history::rules::secret(path.as_os_str().as_bytes(), head);
            image::prepare(&asked, &secret, &scratch).map_err(|e| failure::of_image(&e))
        })
        .await?;
        told.notes.extend(left_out_of_image(&prepared.left_out));
        // Written before it is made, and with the record of what was made: whoever comes after a kill knows what to remove.
        self.supersede(image::reference(&request, &prepared)).await?;
        let (events, mut heard) = mpsc::channel(256);
        let provider = self.shared.provider.clone();
        let ensuring = image::ensure(&*provider, &request, prepared, events);
        let points = self.shared.points.clone();
        let telling = async {
            let mut names = BTreeMap::new();
            while let Some(event) = heard.recv().await {
                points.pass("up", BUILDING, Side::After).await;
                tell_build(say, &mut names, event).await;
            }
        };
        let (built, ()) = tokio::join!(ensuring, telling);
        let built = built.map_err(|e| failure::of_image(&e))?;
        points.pass("up", BUILT, Side::After).await;
        let accounts = image::accounts(&*provider, &built.image).await.map_err(|e| failure::of_provider(&e))?;
        self.keep_accounts(&accounts, &built, &project, source, told).await?;
        Ok((!built.built).then(|| "cached".to_owned()))
    }

    /// An image that goes unless it becomes the workspace's own.
    async fn supersede(&mut self, reference: String) -> Result<(), Error> {
        let own = self.record.image.as_ref().is_some_and(|image| image.reference == reference);
        if own || self.record.superseded.contains(&reference) {
            return Ok(());
        }
        self.record.superseded.push(reference);
        self.save().await
    }

    /// The image's accounts and settings, as the guest gets them.
    async fn keep_accounts(
        &mut self,
        accounts: &image::Accounts,
        built: &image::Built,
        project: &config::Project,
        source: String,
        told: &mut Told,
    ) -> Result<(), Error> {
        let user = self.record.user();
        let passwd = accounts.passwd(user, guest::places::HELPER);
        let group = accounts.group(user);
        let host = self.places.host();
        blocking(move || {
            for (name, text) in [("passwd", passwd), ("group", group)] {
                let path = host.join(name);
                record::write_synced(&path, 0o600, text.as_bytes()).map_err(|e| failure::of_file(&path, &e))?;
            }
            Ok(())
        })
        .await?;
        let mut env: Vec<String> = built.info.env.iter().filter(|line| is_plain_variable(line)).cloned().collect();
        if env.iter().map(String::len).sum::<usize>() > MAX_ENV {
            told.notes.push("the image's ENV is longer than 256 KiB and was left out".into());
            env.clear();
        }
        let inside = Path::new(&built.info.working_dir).starts_with("/work");
        if !inside && !matches!(built.info.working_dir.as_str(), "" | "/") {
            told.notes.push(format!(
                "commands begin in /work, where the project is; the image's WORKDIR {} holds its own copy",
                built.info.working_dir
            ));
        }
        if let Some(name) = project.name.as_deref().filter(|name| *name != self.record.name.as_str()) {
            told.notes.push(format!("vcoding.toml calls it {name}; a workspace keeps the name that it was made with"));
        }
        let shell = project.shell.clone().or_else(|| shell_of(accounts, &built.info.user)).unwrap_or("/bin/sh".into());
        if let Some(before) = self.record.image.take() {
            let same = before.reference == built.reference;
            // Made anew under its old name, the one before has no name any more.
            let name = if same && before.id != built.image.0 { before.id } else { before.reference };
            self.record.superseded.push(name);
        }
        self.record.superseded.sort();
        self.record.superseded.dedup();
        self.record.superseded.retain(|name| *name != built.reference && *name != built.image.0);
        let volumes = volumes_of(&built.info);
        if !volumes.is_empty() {
            told.notes.push(format!(
                "the image's VOLUME {} lies in memory: what is written there ends with the guest (stop, up --rebuild)",
                volumes.join(", ")
            ));
        }
        self.record.image = Some(ImageRecord {
            id: built.image.0.clone(),
            reference: built.reference.clone(),
            source,
            env,
            volumes: volumes.clone(),
            directory: if inside { built.info.working_dir.clone() } else { guest::places::WORK.to_owned() },
            shell,
            musl: super::agent::libc_of(&self.shared, &built.image.0).await == crate::agents::Libc::Musl,
        });
        let most = most_open_files();
        let asked = project.limits.open_files;
        if asked > most && asked != config::Limits::default().open_files {
            told.notes.push(format!(
                "[limits] open_files = {asked} is more than this computer lets a process have: guests get {most} (ulimit -Hn)"
            ));
        }
        self.record.limits = record::LimitsRecord {
            memory: project.limits.memory,
            milli_cpus: millis(project.limits.cpus),
            pids: project.limits.pids,
            disk: project.limits.disk,
            open_files: asked.min(most),
            open_files_asked: (asked > most).then_some(asked),
        };
        self.record.max_file = project.max_file;
        self.record.default_agent.clone_from(&project.default_agent);
        self.record.models.clone_from(&project.models);
        self.record.run.clone_from(&project.run);
        self.save().await
    }
}

/// What the image was made from: the texts of Dockerfile and vcoding.toml. A change of either is
/// said at the next `up`; a file that the Dockerfile copies is not looked at.
pub(super) fn source_of(root: &Path, project: &config::Project) -> String {
    use std::fmt::Write;
    let mut hash = Sha256::new();
    let mut dockerfile = Vec::new();
    let opened = fs::Root::open(root).and_then(|root| root.open_file(&project.dockerfile));
    // One that cannot be read is said by the build.
    let _read = opened.is_ok_and(|file| file.take(MAX_DOCKERFILE).read_to_end(&mut dockerfile).is_ok());
    hash.update(dockerfile);
    hash.update([0]);
    hash.update(project.hash.as_bytes());
    hash.finalize()[..16].iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

fn left_out_of_image(left_out: &[image::LeftOut]) -> Option<String> {
    let named: Vec<String> = left_out
        .iter()
        .filter(|l| l.path.file_name() != Some(std::ffi::OsStr::new(".git")))
        .take(5)
        .map(|l| format!("{} ({})", l.path.display(), l.why))
        .collect();
    (!named.is_empty()).then(|| format!("kept out of the image's build: {}", named.join(", ")))
}

/// `names` of the steps by number.
async fn tell_build(say: &Say, names: &mut BTreeMap<u32, String>, event: BuildEvent) {
    let named = |names: &BTreeMap<u32, String>, step| names.get(&step).cloned().unwrap_or_else(|| "image".to_owned());
    match event {
        // The builder's own errands; if one fails, the image's step says it.
        BuildEvent::Started { name, .. } | BuildEvent::Cached { name, .. } if is_errand(&name) => {}
        BuildEvent::Started { step, name } => {
            say.say(&name, StepState::Started, None, None).await;
            names.insert(step, name);
        }
        BuildEvent::Cached { name, .. } => say.say(&name, StepState::Cached, None, None).await,
        BuildEvent::Log { step, line } => say.output(&named(names, step), line),
        BuildEvent::Done { step, elapsed_ms } => {
            if let Some(name) = names.get(&step) {
                say.say(name, StepState::Done, None, Some(elapsed_ms)).await;
            }
        }
        BuildEvent::Failed { step, .. } => {
            if let Some(name) = names.get(&step) {
                say.say(name, StepState::Failed, None, None).await;
            }
        }
    }
}

/// No instruction of the Dockerfile.
fn is_errand(name: &str) -> bool {
    name.starts_with("[internal]") || name.starts_with("copy /context") || name.starts_with("exporting ")
}

/// `NAME=value` that every shell takes, and that is not ours to set.
fn is_plain_variable(line: &str) -> bool {
    let Some((name, value)) = line.split_once('=') else { return false };
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    !name.is_empty() && plain && !value.contains('\0') && !matches!(name, "HOME" | "USER" | "SHELL" | "LOGNAME")
}

/// The shell of the image's own user, where the image says one.
fn shell_of(accounts: &image::Accounts, user: &str) -> Option<String> {
    let name = user.split(':').next().unwrap_or_default();
    let wanted = if name.is_empty() { "root" } else { name };
    let found = accounts.accounts.iter().find(|a| a.name == wanted || a.uid.to_string() == wanted)?;
    let usable = found.shell.starts_with('/') && !found.shell.ends_with("nologin") && !found.shell.ends_with("false");
    usable.then(|| found.shell.clone())
}

/// The image's VOLUMEs, bounded: they are somebody's text, and lie in the record.
fn volumes_of(info: &crate::provider::ImageInfo) -> Vec<String> {
    info.volumes.iter().take(64).map(|volume| volume.chars().take(256).collect()).collect()
}

/// What this machine lets a process open at most: an engine that was started under the same limit
/// refuses a guest with more.
fn most_open_files() -> u32 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u32::MAX, |(_, hard)| u32::try_from(hard).unwrap_or(u32::MAX))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
pub(super) fn millis(cpus: f64) -> u64 {
    (cpus.clamp(0.01, 1024.0) * 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_are_ours_or_no_variables_stay_out_of_the_guests_environment() {
        for good in ["PATH=/bin", "A_1=", "lang=x=y"] {
            assert!(is_plain_variable(good), "{good}");
        }
        for bad in ["HOME=/root", "USER=root", "=x", "A", "A B=c", "A=\0"] {
            assert!(!is_plain_variable(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_users_shell_is_the_images_users_and_no_lock_out() {
        let accounts = image::Accounts::parse(
            "root:x:0:0::/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/zsh\nd:x:2:2::/:/usr/sbin/nologin\n",
            "",
        );
        assert_eq!(shell_of(&accounts, "").as_deref(), Some("/bin/bash"));
        assert_eq!(shell_of(&accounts, "1000:1000").as_deref(), Some("/bin/zsh"));
        assert_eq!(shell_of(&accounts, "d"), None);
        assert_eq!(shell_of(&accounts, "nobody"), None);
    }
}
