//! What is wrong with host, engine, keys, store, workspaces and disk, and the command that mends it. Only looks.

use std::path::Path;
use std::time::Duration;

use protocol::doctor::{Finding, Severity};
use protocol::workspace::{Phase, WorkspaceView};
use protocol::{Timestamp, WorkspaceId};

use super::handle::word;
use super::record::Places;
use super::registry::Registry;
use super::{Shared, failure};
use crate::provider::Engine;
use crate::{agents, config, store};

/// openat2, by which a guest's paths are walked, came with Linux 5.6.
const KERNEL: (u32, u32) = (5, 6);
/// Less than this is too little for an image or a checkpoint of a large tree.
const LITTLE_SPACE: u64 = 2 << 30;
/// Whatever is looked at answers within this.
const PATIENCE: Duration = Duration::from_secs(20);
/// An image may take its minutes; everything else is there in seconds.
const LONG_WAIT_MS: i64 = 30_000;
/// In percent.
const FEW_INODES: u64 = 3;

impl Registry {
    /// Everything that can be seen from here.
    pub async fn doctor(&self, notices: &[String]) -> Vec<Finding> {
        let shared = self.shared();
        let (engine, there) = engine(shared).await;
        let views = self.list();
        let strangers = if there { strangers(shared).await } else { Vec::new() };
        let (shared, notices) = (self.shared.clone(), notices.to_vec());
        // A project may lie on a disk that does not answer.
        let looked = tokio::task::spawn_blocking(move || {
            let mut findings = vec![host()];
            findings.extend(engine);
            findings.extend(configuration(&shared));
            for notice in notices {
                findings.push(Finding::new("store", Severity::Warning, notice).fix("vcodingctl ls"));
            }
            findings.extend(of_store(&shared));
            findings.extend(views.iter().map(workspace));
            if views.is_empty() {
                findings.push(Finding::new("workspaces", Severity::Fine, "there is none yet"));
            }
            findings.extend(strangers);
            findings.extend(space(&shared.state_dir));
            findings
        });
        match tokio::time::timeout(PATIENCE, looked).await {
            Ok(Ok(findings)) => findings,
            Ok(Err(_)) | Err(_) => {
                let what = "a disk or a project's directory does not answer";
                vec![Finding::new("host", Severity::Error, what).fix("vcodingctl ls; df -h")]
            }
        }
    }
}

fn host() -> Finding {
    let release =
        nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < KERNEL {
        return Finding::new(
            "host",
            Severity::Error,
            format!("Linux {release} is older than {}.{}", KERNEL.0, KERNEL.1),
        )
        .fix("upgrade the kernel");
    }
    Finding::new("host", Severity::Fine, format!("Linux {release}"))
}

async fn engine(shared: &Shared) -> (Vec<Finding>, bool) {
    match shared.provider.probe().await {
        Err(error) => {
            let error = failure::of_provider(&error);
            let finding = Finding::new("engine", Severity::Error, error.message);
            (vec![finding.fix(error.data.hint.unwrap_or_else(|| "docker info".into()))], false)
        }
        Ok(engine) => (engine_findings(&engine), true),
    }
}

fn engine_findings(engine: &Engine) -> Vec<Finding> {
    let Engine { name, version, storage_driver, cgroup_version, .. } = engine;
    let text = format!("{name} {version}, {storage_driver}, cgroups {cgroup_version}");
    let mut findings = vec![Finding::new("engine", Severity::Fine, text)];
    let lacks = [
        (engine.seccomp, Severity::Error, "it filters no system calls (seccomp)"),
        (engine.memory_limit, Severity::Warning, "it keeps no limit on memory"),
        (engine.pids_limit, Severity::Warning, "it keeps no limit on processes"),
    ];
    for (has, severity, what) in lacks {
        if !has {
            findings.push(Finding::new("engine", severity, what).fix("docker info"));
        }
    }
    findings
}

fn configuration(shared: &Shared) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = config::User::load(&shared.config_dir) {
        let file = shared.config_dir.join("config.toml");
        findings
            .push(Finding::new("daemon", Severity::Error, error.to_string()).fix(format!("mend {}", file.display())));
    }
    match agents::manifests(Some(&shared.config_dir.join("agents"))) {
        Err(error) => findings.push(Finding::new("daemon", Severity::Error, error.to_string()).fix("mend that file")),
        Ok(manifests) => {
            for (name, manifest) in manifests {
                let key = &manifest.endpoint.key;
                findings.push(match shared.secrets.get(key) {
                    Ok(Some(_)) => Finding::new("keys", Severity::Fine, format!("{key}, for {name}")),
                    Ok(None) => Finding::new("keys", Severity::Note, format!("there is no {key}, which {name} needs"))
                        .fix(format!("vcodingctl secret set {key}")),
                    Err(error) => Finding::new("keys", Severity::Error, failure::chain(&error))
                        .fix(format!("ls -l {}", shared.state_dir.join("secrets").display())),
                });
            }
        }
    }
    findings
}

fn of_store(shared: &Shared) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut unreadable = |what: &str, records: Result<Vec<Option<store::Error>>, store::Error>| match records {
        Err(error) => findings.push(
            Finding::new("store", Severity::Error, failure::chain(&error)).fix("vcodingctl daemon stop; vcodingctl ls"),
        ),
        Ok(records) => {
            for error in records.into_iter().flatten() {
                let finding = Finding::new("store", Severity::Error, format!("{what}: {}", failure::chain(&error)));
                findings.push(finding.fix("use the vcodingd that wrote it, or vcodingctl daemon stop; vcodingctl ls"));
            }
        }
    };
    unreadable("a workspace", shared.workspaces.list().map(|all| all.into_iter().map(Result::err).collect()));
    unreadable("a run", shared.runs.list().map(|all| all.into_iter().map(Result::err).collect()));
    for entry in std::fs::read_dir(&shared.state_dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("db.unreadable-") {
            let path = entry.path();
            let what = format!("a store that could not be read lies in {}", path.display());
            findings.push(Finding::new("store", Severity::Note, what).fix(format!("rm -r {}", path.display())));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::new("store", Severity::Fine, "every record can be read"));
    }
    findings
}

fn workspace(view: &WorkspaceView) -> Finding {
    let name = &view.name;
    let finding = |severity, what: String| Finding::new("workspaces", severity, format!("{name}: {what}"));
    if let (Phase::Broken, Some(problem)) = (view.phase, &view.problem) {
        return finding(Severity::Error, problem.clone()).fix(format!("vcodingctl -w {name} up"));
    }
    if !view.project.exists() {
        return finding(Severity::Warning, format!("its project {} is gone", view.project.display())).fix(format!(
            "if it was moved: ln -s NEW-PLACE {}; else vcodingctl -w {name} destroy",
            view.project.display()
        ));
    }
    if let Some(waiting) = &view.waiting {
        let for_ms = Timestamp::now().unix_ms().saturating_sub(waiting.since.unix_ms());
        let what = format!("{}, waits for {} since {}", word(view.phase), waiting.what, waiting.since);
        return if for_ms > LONG_WAIT_MS {
            finding(Severity::Warning, what).fix("vcodingctl daemon logs")
        } else {
            finding(Severity::Fine, what)
        };
    }
    finding(Severity::Fine, word(view.phase))
}

/// Guests of this state directory that no workspace owns.
async fn strangers(shared: &Shared) -> Vec<Finding> {
    // A record that only a newer daemon can read is an owner as well.
    let owned = |id: &WorkspaceId| {
        shared.workspaces.contains(id.as_str()).unwrap_or(true) || Places::of(&shared.state_dir, id).own.exists()
    };
    match shared.provider.list().await {
        Err(error) => {
            let error = failure::of_provider(&error);
            vec![Finding::new("engine", Severity::Error, error.message).fix("docker info")]
        }
        Ok(guests) => guests
            .iter()
            .filter(|guest| !owned(&guest.id))
            .map(|guest| {
                let what = format!("the container vcoding-{} belongs to no workspace", guest.id);
                Finding::new("workspaces", Severity::Warning, what).fix(format!("docker rm -f vcoding-{}", guest.id))
            })
            .collect(),
    }
}

fn space(state_dir: &Path) -> Vec<Finding> {
    let Ok(stat) = nix::sys::statvfs::statvfs(state_dir) else { return Vec::new() };
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let inodes = stat.files_available().saturating_mul(100).checked_div(stat.files()).unwrap_or(100);
    let place = state_dir.display();
    let size = if free >> 30 == 0 { format!("{} MiB", free >> 20) } else { format!("{} GiB", free >> 30) };
    let text = format!("{size} free where {place} is");
    let total = stat.blocks().saturating_mul(stat.fragment_size());
    let finding = if free < LITTLE_SPACE.max(super::disk::reserve(total)) {
        Finding::new("disk", Severity::Warning, text).fix("docker system df; docker image prune; vcodingctl ls")
    } else if inodes < FEW_INODES {
        Finding::new("disk", Severity::Warning, format!("{inodes} % of the inodes are free where {place} is"))
            .fix("df -i")
    } else {
        Finding::new("disk", Severity::Fine, text)
    };
    let trash = std::fs::read_dir(state_dir.join("trash")).map_or(0, |entries| entries.flatten().count());
    let mut findings = vec![finding];
    if trash > 0 {
        let what = format!(
            "the trash holds {trash} destroyed {}, each for 30 days",
            if trash == 1 { "workspace" } else { "workspaces" }
        );
        findings.push(Finding::new("disk", Severity::Note, what).fix("vcodingctl ls --trash"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_fine_and_so_is_its_disk() {
        assert_eq!(host().severity, Severity::Fine);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(space(dir.path())[0].area, "disk");
        std::fs::create_dir_all(dir.path().join("trash/a")).unwrap();
        assert!(space(dir.path())[1].message.contains("1 destroyed workspace,"));
    }

    #[test]
    fn an_engine_that_cannot_seal_is_an_error() {
        let engine = Engine {
            name: "docker".into(),
            version: "1".into(),
            storage_driver: "x".into(),
            rootless: false,
            seccomp: false,
            pids_limit: false,
            memory_limit: true,
            cgroup_version: 2,
        };
        let found = engine_findings(&engine);
        let severities: Vec<_> = found.iter().map(|f| f.severity).collect();
        assert_eq!(severities, [Severity::Fine, Severity::Error, Severity::Warning]);
        assert!(found[1..].iter().all(|f| f.fix.is_some()));
    }
}
