//! The walls on a real engine, each with a control in which it is taken away.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType};

use super::*;
use crate::provider::{Limits, User};

/// The base that this project's tests may count on.
pub(crate) const BASE: &str = "debian:bookworm-slim";

/// An engine with the base image, and a state directory with one workspace's directories.
pub(crate) struct World {
    pub docker: Docker,
    pub spec: GuestSpec,
    _state: tempfile::TempDir,
}

pub(crate) fn skip(why: &str) {
    let _told = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Builds the placeholder once. None, said aloud, where its target is not installed.
fn placeholder() -> Option<&'static PathBuf> {
    static BUILT: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("placeholder.rs");
        std::fs::write(&source, include_str!("testdata/placeholder.rs")).unwrap();
        let program = dir.path().join("vcoding-guest");
        let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let status = Command::new(rustc)
            .args(["--edition=2024", "-Copt-level=1", "-Ctarget-feature=+crt-static", "--target", &target, "-o"])
            .arg(&program)
            .arg(&source)
            .status();
        status.is_ok_and(|status| status.success()).then_some((dir, program))
    });
    built.as_ref().map(|(_, program)| program)
}

pub(crate) async fn world() -> Option<World> {
    if !cfg!(target_arch = "x86_64") {
        skip("the placeholder's system calls are those of x86_64");
        return None;
    }
    let state = tempfile::tempdir().unwrap();
    let state_dir = state.path().canonicalize().unwrap();
    let docker = Docker::from_environment(&state_dir).unwrap();
    if let Err(error) = docker.probe().await {
        skip(&format!("no engine: {error}"));
        return None;
    }
    let image = match docker.image(BASE).await {
        Ok(image) => image,
        Err(error) => {
            skip(&format!("no base image: {error}"));
            return None;
        }
    };
    let Some(program) = placeholder() else {
        skip("the placeholder cannot be built; `rustup target add` its musl target");
        return None;
    };
    let id: WorkspaceId = ulid::Ulid::new().to_string().to_lowercase().parse().unwrap();
    let own = state_dir.join("workspaces").join(id.as_str());
    for dir in ["tree", "home", "run", "etc"] {
        std::fs::create_dir_all(own.join(dir)).unwrap();
    }
    std::fs::create_dir(own.join("host")).unwrap();
    std::fs::write(own.join("host/record.json"), r#"{"nonce": "a nonce"}"#).unwrap();
    std::fs::write(own.join("etc/passwd"), "work:x:4321:4321::/home/work:/bin/sh\n").unwrap();
    std::fs::write(own.join("etc/group"), "work:x:4321:\n").unwrap();
    let bin = state_dir.join("store/guest/test");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir_all(state_dir.join("store/agents")).unwrap();
    std::fs::copy(program, bin.join("vcoding-guest")).unwrap();
    // The engine's runtime passes through the directories as the guest's user.
    for dir in [state.path(), &bin] {
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let spec = GuestSpec {
        id,
        nonce: "a nonce".to_owned(),
        name: "provider-test".parse().unwrap(),
        image: image.id,
        user: User { uid: 4321, gid: 4321 },
        state_dir,
        helper: "test".to_owned(),
        init_args: Vec::new(),
        limits: Limits { memory: 256 << 20, milli_cpus: 1000, pids: 64, file_size: 20 << 30, open_files: 1024 },
    };
    Some(World { docker, spec, _state: state })
}

impl Drop for World {
    /// Also after a failed test, so that no guest outlives it.
    fn drop(&mut self) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(self.clear());
            });
        });
    }
}

impl World {
    /// Removes whatever has the guest's name, ours by its claim or not.
    pub async fn clear(&self) {
        let client = self.docker.client().unwrap();
        let options = query::RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let _missing_is_fine = client.remove_container(&container_name(&self.spec.id), Some(options)).await;
    }

    async fn config(&self) -> ContainerCreateBody {
        config::container_config(&self.spec, &self.docker.image(&self.spec.image.0).await.unwrap()).unwrap()
    }

    /// A container of the guest's name with a changed configuration, running.
    async fn start_changed(&self, change: impl FnOnce(&mut ContainerCreateBody, &mut HostConfig)) {
        self.clear().await;
        let mut body = self.config().await;
        let mut host = body.host_config.take().unwrap();
        change(&mut body, &mut host);
        body.host_config = Some(host);
        let client = self.docker.client().unwrap();
        let name = container_name(&self.spec.id);
        let options = query::CreateContainerOptionsBuilder::default().name(&name).build();
        client.create_container(Some(options), body).await.unwrap();
        client.start_container(&name, None).await.unwrap();
    }

    /// The helper's output once it ends with `done`.
    async fn knocked(&self) -> String {
        let client = self.docker.client().unwrap();
        let options = query::LogsOptionsBuilder::default().stdout(true).follow(true).build();
        let mut lines = client.logs(&container_name(&self.spec.id), Some(options));
        let mut text = String::new();
        let all = async {
            while let Some(piece) = lines.next().await {
                text.push_str(&piece.unwrap().to_string());
                if text.ends_with("done\n") {
                    break;
                }
            }
        };
        tokio::time::timeout(ASK, all).await.unwrap();
        text
    }
}

#[tokio::test]
async fn a_guest_is_sealed_as_the_kernel_says() {
    let Some(world) = world().await else { return };
    world.docker.create(&world.spec).await.unwrap();
    let walls = world.docker.start(&world.spec).await.unwrap();
    assert_eq!(walls.report.interfaces, ["lo"]);
    assert_eq!((walls.report.capabilities, walls.report.no_new_privileges), (0, true));
    assert!(walls.report.read_only_root && walls.report.seccomp_filters >= 1);
    assert_eq!(walls.report.shared.len(), 8);
    assert_eq!(walls.report.memory, ["/dev/shm 256m", "/run 16m", "/tmp 1024m"]);
    let [first, second] = walls.report.lines();
    assert_eq!(first, "sealed: no network, uid 4321, no capabilities, no new privileges, 1 seccomp filter");
    assert_eq!(second, "read-only root; writable from here: /home/work, /run/vcoding, /work");
}

#[tokio::test]
async fn a_guest_that_is_less_sealed_is_found_out_by_the_kernels_word() {
    let Some(world) = world().await else { return };
    type Change = fn(&mut ContainerCreateBody, &mut HostConfig);
    let changes: [(&str, Change); 11] = [
        ("/: a mount that does not belong", |_, host| host.readonly_rootfs = Some(false)),
        ("CapBnd: 00000000a80425fb", |_, host| host.cap_drop = None),
        ("Seccomp: 0", |_, host| {
            host.security_opt = Some(vec!["no-new-privileges".into(), "seccomp=unconfined".into()]);
        }),
        ("NoNewPrivs: 0", |_, host| {
            host.security_opt.as_mut().unwrap().remove(0);
        }),
        ("network interfaces: ", |_, host| host.network_mode = Some("bridge".into())),
        ("Uid: 0", |body, _| body.user = Some("0:0".into())),
        ("Groups: ", |_, host| host.group_add = Some(vec!["999".into()])),
        ("/run: rw,size=32768k", |_, host| {
            host.tmpfs.as_mut().unwrap().insert("/run".into(), "nosuid,nodev,size=32m,mode=755".into());
        }),
        ("/tmp: no tmpfs", |_, host| {
            host.tmpfs.as_mut().unwrap().remove("/tmp");
        }),
        ("/dev/shm: rw,size=65536k", |_, host| host.shm_size = Some(64 << 20)),
        ("NSpid: ", |_, host| host.pid_mode = Some("host".into())),
    ];
    let image = world.docker.image(&world.spec.image.0).await.unwrap();
    world.start_changed(|_, _| {}).await;
    world.docker.verified(&world.spec, &image).await.expect("unchanged, it is as it should be");
    for (difference, change) in changes {
        world.start_changed(change).await;
        // By the kernel alone, as if the engine had said nothing of the change.
        let verdict = world.docker.verified(&world.spec, &image).await;
        let Err(Error::Breached { differences, .. }) = verdict else { panic!("{difference}: {verdict:?}") };
        assert!(differences.contains(difference), "{difference}: {differences}");
        // And by the engine's word, before it would be started.
        assert!(matches!(world.docker.start(&world.spec).await, Err(Error::Conflict { .. })), "{difference}");
    }
}

#[tokio::test]
async fn a_mount_more_makes_a_container_a_strangers() {
    let Some(world) = world().await else { return };
    world
        .start_changed(|_, host| {
            host.mounts.as_mut().unwrap().push(Mount {
                typ: Some(MountType::BIND),
                source: Some("/etc".into()),
                target: Some("/mnt".into()),
                read_only: Some(true),
                ..Mount::default()
            });
        })
        .await;
    assert!(matches!(world.docker.stop(&world.spec.id, Duration::ZERO).await, Err(Error::Refused { .. })));
    assert!(matches!(world.docker.remove(&world.spec.id).await, Err(Error::Refused { .. })));
    assert!(matches!(world.docker.start(&world.spec).await, Err(Error::Refused { .. })));
    assert_eq!(world.docker.list().await.unwrap(), []);
}

#[tokio::test]
async fn the_profile_shuts_the_doors_that_the_engines_own_leaves_open() {
    let Some(mut world) = world().await else { return };
    world.spec.init_args = vec!["--knock".to_owned()];
    world.docker.create(&world.spec).await.unwrap();
    world.docker.start(&world.spec).await.unwrap();
    let ours = world.knocked().await;
    for line in [
        "unix open",
        "inet open",
        "vsock shut",
        "vsock-x32 shut",
        "vsock-i386 shut",
        "vsock-socketcall shut",
        "io_uring shut",
        "namespace shut",
    ] {
        assert!(ours.contains(line), "{line}: {ours}");
    }
    // The control knocks without any profile: the engine's own may change with its version.
    world
        .start_changed(|_, host| {
            host.security_opt = Some(vec!["no-new-privileges".into(), "seccomp=unconfined".into()]);
        })
        .await;
    let theirs = world.knocked().await;
    for line in ["io_uring open", "namespace open"] {
        assert!(theirs.contains(line), "{line}: {theirs}");
    }
    if theirs.contains("vsock open") {
        assert!(theirs.contains("vsock-socketcall open"), "{theirs}");
    } else {
        skip("the control of vsock: this kernel has no AF_VSOCK");
    }
}

#[tokio::test]
async fn a_helper_that_ends_at_once_is_a_failed_start_with_its_last_words() {
    let Some(mut world) = world().await else { return };
    world.spec.init_args = vec!["--fail".to_owned()];
    world.docker.create(&world.spec).await.unwrap();
    let verdict = world.docker.start(&world.spec).await;
    let Err(Error::StartFailed { message, .. }) = verdict else { panic!("{verdict:?}") };
    assert!(message.contains("status 7") && message.contains("told to fail"), "{message}");
}

#[tokio::test]
async fn the_carrier_passes_bytes_both_ways() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Some(world) = world().await else { return };
    world.docker.create(&world.spec).await.unwrap();
    world.docker.start(&world.spec).await.unwrap();
    let stream = world.docker.carrier_stream(&world.spec.id).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let writer = {
        let sent = sent.clone();
        tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.flush().await.unwrap();
            write
        })
    };
    let mut back = vec![0; sent.len()];
    tokio::time::timeout(ASK, read.read_exact(&mut back)).await.unwrap().unwrap();
    assert!(back == sent);
    drop(writer.await.unwrap());
}

#[tokio::test]
async fn volumes_of_the_image_are_bounded_memory() {
    let Some(mut world) = world().await else { return };
    let text = format!("FROM {BASE}\nVOLUME /data /tmp\nLABEL a=b\n");
    let tag = format!("vcoding-test/volumes:{}", world.spec.id);
    let build = BuildSpec { no_cache: false, ..build_of(&text, &tag, "", Duration::from_secs(300)) };
    let (events, mut said) = mpsc::channel(1000);
    world.spec.image = world.docker.build(build, events).await.unwrap();
    assert!(matches!(said.recv().await, Some(BuildEvent::Started { .. } | BuildEvent::Cached { .. })));
    world.docker.create(&world.spec).await.unwrap();
    let walls = world.docker.start(&world.spec).await.unwrap();
    assert!(walls.report.memory.contains(&"/data 1024m".to_owned()), "{:?}", walls.report.memory);
    world.clear().await;
    world.docker.remove_image(&tag).await.unwrap();
    world.docker.remove_image(&tag).await.expect("a missing one is fine");
}

/// A build of this Dockerfile, each step of it.
fn build_of(text: &str, tag: &str, caches: &str, limit: Duration) -> BuildSpec {
    let mut archive = tar::Builder::new(tempfile::tempfile().unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "Dockerfile", text.as_bytes()).unwrap();
    BuildSpec {
        context: archive.into_inner().unwrap(),
        dockerfile: "Dockerfile".to_owned(),
        target: None,
        args: Default::default(),
        tag: tag.to_owned(),
        labels: Default::default(),
        no_cache: true,
        caches: caches.to_owned(),
        limit,
    }
}

#[tokio::test]
async fn cache_mounts_are_one_projects() {
    let Some(world) = world().await else { return };
    let tag = format!("vcoding-test/caches:{}", world.spec.id);
    let found = async |caches: &str, named: &str| {
        let text = format!(
            "FROM {BASE}\nRUN --mount=type=cache,target=/c{named} echo \"found $(ls /c | wc -l)\"; \
             touch /c/file; test -z \"$BUILDKIT_CACHE_MOUNT_NS\"; : {}\n",
            ulid::Ulid::new()
        );
        let (events, mut said) = mpsc::channel(1000);
        // Whoever builds without the cache is given an empty mount as well.
        let build = BuildSpec { no_cache: false, ..build_of(&text, &tag, caches, Duration::from_secs(300)) };
        world.docker.build(build, events).await.unwrap();
        let mut lines = Vec::new();
        while let Some(event) = said.recv().await {
            if let BuildEvent::Log { line, .. } = event {
                lines.push(line);
            }
        }
        lines.iter().find_map(|line| line.trim().strip_prefix("found ").map(str::to_owned)).unwrap()
    };
    let (one, other) = (format!("vcoding-{}-1", world.spec.id), format!("vcoding-{}-2", world.spec.id));
    for named in ["", ",id=shared"] {
        assert_eq!((found(&one, named).await.as_str(), found(&one, named).await.as_str()), ("0", "1"), "{named}");
        assert_eq!(found(&other, named).await, "0", "{named}: another project's");
    }
    assert_eq!(found(&other, &format!(",id=../{one}/c")).await, "0", "the names are no paths");
    // The control: another word is all that keeps them apart.
    assert_eq!(found(&one, "").await, "1");
    world.docker.remove_image(&tag).await.unwrap();
}

#[tokio::test]
async fn a_build_that_takes_too_long_is_ended_at_the_engine_too() {
    let Some(world) = world().await else { return };
    // Known again by what no other process has.
    let mark = format!("sleep 86399.{}", std::process::id());
    let runs = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        lines.any(|line| String::from_utf8_lossy(&line).replace('\0', " ").trim() == mark)
    };
    let text = format!("FROM {BASE}\nRUN {mark}\n");
    let tag = format!("vcoding-test/slow:{}", world.spec.id);
    let limit = Duration::from_secs(15);
    let becomes = async |wanted: bool| {
        let changed = async {
            while runs() != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), changed).await.expect("it begins, and the engine ends it");
    };
    let (events, _said) = mpsc::channel(1000);
    let (built, ()) = tokio::join!(world.docker.build(build_of(&text, &tag, "", limit), events), becomes(true));
    let refused = built.unwrap_err();
    assert!(matches!(refused, Error::BuildTooLong { after } if after == limit), "{refused}");
    assert_eq!(refused.to_string(), "the image's build took longer than 15 s and was ended");
    becomes(false).await;
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Docker::new(dir.path().join("none.sock"), dir.path());
    assert!(matches!(missing.probe().await, Err(Error::EngineUnreachable { .. })));
    let socket = dir.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let dead = Docker::new(socket, dir.path());
    assert!(matches!(dead.probe().await, Err(Error::EngineUnreachable { .. })));
}
