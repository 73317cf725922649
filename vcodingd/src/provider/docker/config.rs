//! A guest's spec as an engine's container configuration, and what differs from it.
//!
//! Pure: the whole sealed container can be read here, and is held by a snapshot.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};

use super::verify::Expected;
use crate::provider::claim::is_helper_hash;
use crate::provider::{Error, GuestSpec, ImageInfo, RUN_BYTES, Result, SHM_BYTES, TMP_BYTES, VOLUME_BYTES};

/// What a guest's processes may ask of the kernel. Every call of the tables of x86_64, x86, x32
/// and aarch64 but those that need a privilege, load code into the kernel, make namespaces, or
/// cross them: AF_VSOCK, io_uring, userfaultfd, keys, bpf, perf. `socketcall` stands last, with
/// ENOSYS: an engine's library would otherwise let 32-bit code reach every socket family by it,
/// since a filter cannot look behind its pointer.
const SECCOMP: &str = include_str!("seccomp.json");

pub(super) const HELPER: &str = "/opt/vcoding/bin/vcoding-guest";

pub(super) const LABEL_ID: &str = "vcoding.id";
pub(super) const LABEL_NAME: &str = "vcoding.workspace";
pub(super) const LABEL_NONCE: &str = "vcoding.nonce";
pub(super) const LABEL_STATE_DIR: &str = "vcoding.state-dir";

/// Inodes of a tmpfs: without a bound a guest could fill the kernel's memory with empty files.
const TMPFS_INODES: u32 = 262_144;

/// Where an image may declare no VOLUME: our mounts, and what the engine mounts for the kernel.
const OUR_PLACES: [&str; 11] = [
    "/work",
    "/home/work",
    "/run/vcoding",
    "/etc/vcoding",
    "/etc/passwd",
    "/etc/group",
    "/opt/vcoding",
    "/etc/hosts",
    "/proc",
    "/sys",
    "/dev",
];

/// Why a VOLUME cannot be a tmpfs of its own, if so.
pub(crate) fn volume_in_our_way(volume: &str) -> Option<String> {
    let path = std::path::Path::new(volume);
    let plain = path.is_absolute()
        && !volume.contains([':', ',', '\0'])
        && path.components().all(|c| matches!(c, std::path::Component::RootDir | std::path::Component::Normal(_)));
    if !plain {
        return Some(format!("VOLUME {volume:?} is not a plain absolute path"));
    }
    if path.components().count() == 1 {
        return Some("VOLUME / would cover the image".to_owned());
    }
    // /run is a tmpfs of ours with our run directory in it, /tmp is one: no second is made.
    if matches!(volume.trim_end_matches('/'), "/run" | "/tmp") {
        return None;
    }
    for place in OUR_PLACES {
        if path.starts_with(place) || std::path::Path::new(place).starts_with(path) {
            return Some(format!("VOLUME {volume:?} lies in or above {place}"));
        }
    }
    None
}

/// Every tmpfs of the guest but /dev/shm: target, size, and further options.
fn tmpfs(image: &ImageInfo) -> Vec<(String, u64, &'static str)> {
    let mut all = vec![("/tmp".to_owned(), TMP_BYTES, "mode=1777"), ("/run".to_owned(), RUN_BYTES, "mode=755")];
    let mut volumes: Vec<_> = image.volumes.iter().map(|v| v.trim_end_matches('/').to_owned()).collect();
    volumes.retain(|volume| !matches!(volume.as_str(), "/run" | "/tmp"));
    volumes.sort();
    volumes.dedup();
    all.extend(volumes.into_iter().map(|volume| (volume, VOLUME_BYTES, "mode=1777")));
    all
}

/// The sealed container.
///
/// # Errors
/// [`Error::Refused`] for what would not be sealed, or is not in our form.
pub(super) fn container_config(spec: &GuestSpec, image: &ImageInfo) -> Result<ContainerCreateBody> {
    let refuse = |why: String| Error::Refused { what: format!("guest {}", spec.id), why };
    if spec.user.uid == 0 || spec.user.gid == 0 {
        return Err(refuse("it would run as root".to_owned()));
    }
    if !spec.state_dir.is_absolute() || spec.state_dir.to_str().is_none() {
        return Err(refuse(format!(
            "the state directory {} is not an absolute path in UTF-8",
            spec.state_dir.display()
        )));
    }
    if !is_helper_hash(&spec.helper) {
        return Err(refuse(format!("{:?} does not name a helper", spec.helper)));
    }
    if let Some(why) = image.volumes.iter().find_map(|volume| volume_in_our_way(volume)) {
        return Err(refuse(why));
    }
    if image.volumes.len() > 64 {
        return Err(refuse("its image has more than 64 volumes".to_owned()));
    }
    let state_dir = spec.state_dir.display().to_string();
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let memory = number(spec.limits.memory);
    let ulimit =
        |name: &str, limit: i64| ResourcesUlimits { name: Some(name.to_owned()), soft: Some(limit), hard: Some(limit) };
    let host = HostConfig {
        network_mode: Some("none".to_owned()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned(), format!("seccomp={}", seccomp())]),
        privileged: Some(false),
        readonly_rootfs: Some(true),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        init: Some(false),
        mounts: Some(spec.binds().iter().map(mount).collect()),
        tmpfs: Some(
            tmpfs(image)
                .into_iter()
                .map(|(target, size, more)| {
                    (target, format!("exec,nosuid,nodev,size={size},nr_inodes={TMPFS_INODES},{more}"))
                })
                .collect(),
        ),
        shm_size: Some(number(SHM_BYTES)),
        memory: Some(memory),
        // Memory and swap together: no swap.
        memory_swap: Some(memory),
        nano_cpus: Some(number(spec.limits.milli_cpus.saturating_mul(1_000_000))),
        pids_limit: Some(i64::from(spec.limits.pids)),
        ulimits: Some(vec![
            ulimit("nofile", i64::from(spec.limits.open_files)),
            ulimit("fsize", number(spec.limits.file_size)),
            // The kernel takes 1, unlike 0, as "no dump" for a host's piped handler as well.
            ulimit("core", 1),
        ]),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-file".to_owned(), "1".to_owned()),
                ("max-size".to_owned(), "1m".to_owned()),
            ])),
        }),
        ..HostConfig::default()
    };
    Ok(ContainerCreateBody {
        hostname: Some(spec.name.to_string()),
        user: Some(format!("{}:{}", spec.user.uid, spec.user.gid)),
        image: Some(image.id.0.clone()),
        entrypoint: Some(
            [HELPER, "init"].into_iter().map(str::to_owned).chain(spec.init_args.iter().cloned()).collect(),
        ),
        cmd: Some(Vec::new()),
        working_dir: Some("/".to_owned()),
        stop_signal: Some("TERM".to_owned()),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        labels: Some(HashMap::from([
            (LABEL_ID.to_owned(), spec.id.to_string()),
            (LABEL_NAME.to_owned(), spec.name.to_string()),
            (LABEL_NONCE.to_owned(), spec.nonce.clone()),
            (LABEL_STATE_DIR.to_owned(), state_dir),
        ])),
        tty: Some(false),
        open_stdin: Some(false),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

/// The profile without its line breaks; the engine keeps a copy in every container's record.
fn seccomp() -> String {
    SECCOMP.lines().map(str::trim_start).collect()
}

fn mount(bind: &crate::provider::Bind) -> Mount {
    // Not `binds`: there a missing source becomes an empty directory of root's.
    Mount {
        typ: Some(MountType::BIND),
        target: Some(bind.target.clone()),
        source: Some(bind.source.display().to_string()),
        read_only: Some(!bind.writable),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

/// What the kernel has to report of such a guest.
pub(super) fn expected(spec: &GuestSpec, image: &ImageInfo, container: &str) -> Expected {
    Expected {
        user: spec.user,
        binds: spec.binds(),
        tmpfs: tmpfs(image).into_iter().map(|(target, size, _)| (target, size)).collect(),
        container: container.to_owned(),
    }
}

/// Where an existing container is not what `wanted` would make, each by name.
pub(super) fn differences(wanted: &ContainerCreateBody, found: &ContainerInspectResponse) -> Vec<String> {
    let mut odd = Vec::new();
    let mut same = |what: &str, same: bool| {
        if !same {
            odd.push(what.to_owned());
        }
    };
    let (Some(want), Some(have), Some(config)) = (&wanted.host_config, &found.host_config, &found.config) else {
        return vec!["the engine does not report its configuration".to_owned()];
    };
    let set = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    same("image", wanted.image == found.image);
    same("user", wanted.user == config.user);
    same("host name", wanted.hostname == config.hostname);
    same("entrypoint", wanted.entrypoint == config.entrypoint);
    same("command", set(&config.cmd).is_empty());
    same("working directory", wanted.working_dir == config.working_dir);
    same("stop signal", wanted.stop_signal == config.stop_signal);
    same(
        "health check",
        config.healthcheck.as_ref().is_none_or(|h| h.test.as_deref() == Some(&["NONE".to_owned()][..])),
    );
    same(
        "labels",
        wanted.labels.iter().flatten().all(|(k, v)| config.labels.as_ref().and_then(|l| l.get(k)) == Some(v)),
    );
    same("network", want.network_mode == have.network_mode);
    same("dropped capabilities", want.cap_drop == have.cap_drop);
    same("added capabilities", set(&have.cap_add).is_empty());
    same("groups", set(&have.group_add).is_empty());
    same("kernel parameters", have.sysctls.as_ref().is_none_or(HashMap::is_empty));
    same("user namespace", set_mode(have.userns_mode.as_deref()));
    same("security options", want.security_opt == have.security_opt);
    same("privileged", have.privileged == Some(false));
    same("read-only root", have.readonly_rootfs == Some(true));
    same("mounts", mounts(want) == mounts(have));
    same("binds", set(&have.binds).is_empty());
    same("volumes", set(&have.volumes_from).is_empty());
    same("devices", have.devices.as_ref().is_none_or(Vec::is_empty));
    same("device requests", have.device_requests.as_ref().is_none_or(Vec::is_empty));
    same("tmpfs", want.tmpfs == have.tmpfs);
    same("shared memory", want.shm_size == have.shm_size);
    same("memory", want.memory == have.memory && have.memory_swap.is_none_or(|swap| Some(swap) == want.memory_swap));
    same("cpus", want.nano_cpus == have.nano_cpus);
    same("pids", want.pids_limit == have.pids_limit);
    same("limits", limits(want) == limits(have));
    same("log", want.log_config == have.log_config);
    same("pid namespace", set_mode(have.pid_mode.as_deref()));
    same("ipc namespace", have.ipc_mode.as_deref() == Some("private"));
    same("host names namespace", set_mode(have.uts_mode.as_deref()));
    odd
}

fn set_mode(mode: Option<&str>) -> bool {
    matches!(mode, None | Some("" | "private"))
}

fn mounts(host: &HostConfig) -> Vec<(String, String, bool)> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let all = host.mounts.iter().flatten();
    let mut all: Vec<_> = all.map(|m| (text(&m.target), text(&m.source), m.read_only.unwrap_or(false))).collect();
    all.sort();
    all
}

fn limits(host: &HostConfig) -> Vec<(String, i64, i64)> {
    let mut all: Vec<_> = host
        .ulimits
        .iter()
        .flatten()
        .map(|u| (u.name.clone().unwrap_or_default(), u.soft.unwrap_or(-1), u.hard.unwrap_or(-1)))
        .collect();
    all.sort();
    all
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::provider::{ImageId, Limits, User};

    pub(in crate::provider) fn spec() -> GuestSpec {
        GuestSpec {
            id: "01jd0000000000000000000000".parse().unwrap(),
            nonce: "n".to_owned(),
            name: "shop".parse().unwrap(),
            image: ImageId("sha256:11".to_owned()),
            user: User { uid: 231_000, gid: 231_000 },
            state_dir: "/state".into(),
            helper: "abc123".to_owned(),
            init_args: vec!["--port".to_owned(), "4100".to_owned()],
            limits: Limits { memory: 4 << 30, milli_cpus: 2000, pids: 1024, file_size: 20 << 30, open_files: 65_536 },
        }
    }

    pub(in crate::provider) fn image() -> ImageInfo {
        ImageInfo {
            id: ImageId("sha256:11".to_owned()),
            names: Vec::new(),
            user: String::new(),
            env: Vec::new(),
            working_dir: "/app".to_owned(),
            volumes: vec!["/data".to_owned(), "/var/lib/thing/".to_owned()],
            on_build: Vec::new(),
            labels: std::collections::BTreeMap::new(),
            architecture: "amd64".to_owned(),
        }
    }

    /// The container as JSON, the profile left out: it is a file of its own.
    #[test]
    fn the_sealed_container_is_the_one_in_the_snapshot() {
        let body = container_config(&spec(), &image()).unwrap();
        let mut json = serde_json::to_value(&body).unwrap();
        json["HostConfig"]["SecurityOpt"][1] = "seccomp=(seccomp.json)".into();
        let text = serde_json::to_string_pretty(&json).unwrap() + "\n";
        assert!(
            text == include_str!("container.json"),
            "the container is not as in container.json; it is now:\n{text}"
        );
    }

    #[test]
    fn the_profile_names_none_of_the_doors() {
        let profile: serde_json::Value = serde_json::from_str(&seccomp()).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let archs = profile["archMap"].to_string();
        for arch in ["X86_64", "ARCH_X86\"", "X32", "AARCH64"] {
            assert!(archs.contains(arch), "{arch}");
        }
        let mut families = Vec::new();
        for rule in profile["syscalls"].as_array().unwrap() {
            let names: Vec<_> = rule["names"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
            if rule["action"] != "SCMP_ACT_ALLOW" {
                // What is told that it is not there, and what a file system may not be able to do.
                let refused: [(&[&str], u32); 2] = [(&["clone3", "socketcall"], 38), (&["fallocate"], 95)];
                assert!(refused.iter().any(|(those, errno)| names == *those && rule["errnoRet"] == *errno), "{rule}");
                continue;
            }
            for door in [
                "fallocate",
                "io_uring_setup",
                "io_uring_enter",
                "io_uring_register",
                "userfaultfd",
                "keyctl",
                "add_key",
                "request_key",
                "bpf",
                "perf_event_open",
                "socketcall",
                "clone3",
                "mount",
                "umount2",
                "unshare",
                "setns",
                "init_module",
                "kexec_load",
                "open_by_handle_at",
                "reboot",
                "pivot_root",
                "chroot",
                "pidfd_getfd",
                "quotactl",
                "syslog",
                "fsopen",
                "open_tree",
                "move_mount",
            ] {
                assert!(!names.contains(&door), "{door} is open");
            }
            if names == ["socket"] {
                families.push(rule["args"][0]["value"].as_u64().unwrap());
            } else {
                assert!(!names.contains(&"socket"), "sockets of any family");
            }
            if names.contains(&"clone") {
                assert_eq!(rule["args"][0]["op"], "SCMP_CMP_MASKED_EQ");
            }
        }
        assert_eq!(families, [1, 2, 10, 16], "UNIX, INET, INET6, NETLINK");
    }

    #[test]
    fn volumes_in_or_above_our_places_are_refused() {
        for bad in [
            "/",
            "/work",
            "/work/cache",
            "/home",
            "/run/vcoding/x",
            "/etc",
            "/opt",
            "/opt/vcoding/bin/",
            "/tmp/../work",
            "data",
            "/a:b",
            "/a,exec",
            "/dev/x",
            "",
        ] {
            assert!(volume_in_our_way(bad).is_some(), "{bad:?}");
        }
        for good in
            ["/data", "/var/lib/postgresql/data", "/workspace", "/opt/other", "/data/", "/tmp", "/run/", "/etc/nginx"]
        {
            assert_eq!(volume_in_our_way(good), None, "{good:?}");
        }
    }

    #[test]
    fn what_would_not_be_sealed_is_refused() {
        let refused = |change: fn(&mut GuestSpec, &mut ImageInfo)| {
            let (mut spec, mut image) = (spec(), image());
            change(&mut spec, &mut image);
            matches!(container_config(&spec, &image), Err(Error::Refused { .. }))
        };
        assert!(!refused(|_, _| {}));
        assert!(refused(|s, _| s.user.uid = 0));
        assert!(refused(|s, _| s.user.gid = 0));
        assert!(refused(|s, _| s.helper = "../../x".into()));
        assert!(refused(|s, _| s.state_dir = "state".into()));
        assert!(refused(|_, i| i.volumes.push("/work".into())));
    }
}
