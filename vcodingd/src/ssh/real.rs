//! A real guest on the real engine, with the real helper and the distribution's sshd; for tests.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{GuestFiles, Keys, ModelPorts, Pool, Target, write_guest_files};
use crate::provider::docker::tests::{BASE, World, skip, world};
use crate::provider::{BuildSpec, Limits, Provider, docker::Docker};

/// The base with OpenSSH's server. Kept, as the next test wants it, too.
const IMAGE: &str = "vcoding-test/openssh:1";
const PORTS: ModelPorts = ModelPorts { model: 7001, relay: 7002 };

pub(crate) struct RealGuest {
    pub pool: Pool,
    // Removes the guest.
    _world: World,
}

impl RealGuest {
    /// None, said aloud, where there is no engine.
    pub(crate) async fn start() -> Option<Self> {
        let mut world = world().await?;
        if !rustix::process::geteuid().is_root() {
            skip("the test's guest has a uid of its own, which only root can give it");
            return None;
        }
        world.spec.image = image(&world).await;
        world.spec.limits =
            Limits { memory: 1 << 30, milli_cpus: 2000, pids: 1024, file_size: 20 << 30, open_files: 4096 };
        world.spec.init_args = ["--model-port", "7001", "--relay-port", "7002"].map(str::to_owned).to_vec();
        let spec = &world.spec;
        let own = spec.state_dir.join("workspaces").join(spec.id.as_str());
        let bin = spec.state_dir.join("store/guest").join(&spec.helper);
        std::fs::copy(env!("VCODING_GUEST"), bin.join("vcoding-guest")).unwrap();
        for dir in ["tree", "home", "run"] {
            std::os::unix::fs::chown(own.join(dir), Some(spec.user.uid), Some(spec.user.gid)).unwrap();
        }
        let keys = Arc::new(Keys::generate().unwrap());
        keys.store(&own.join("host/keys")).unwrap();
        let files = GuestFiles {
            user: spec.user,
            env: vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned(), "FROM_IMAGE=yes".to_owned()],
            shell: "/bin/bash".to_owned(),
            directory: "/work".to_owned(),
            passwd: "root:x:0:0::/root:/bin/sh\nwork:x:4321:4321::/home/work:/opt/vcoding/bin/vcoding-guest\n"
                .to_owned(),
            group: "root:x:0:\nwork:x:4321:\n".to_owned(),
            ports: PORTS,
        };
        write_guest_files(&own.join("etc"), &keys, &files).unwrap();
        world.docker.create(spec).await.unwrap();
        let walls = world.docker.start(spec).await.unwrap();
        let (id, user, run_dir) = (spec.id.clone(), spec.user, own.join("run"));
        let target = Target { id, run_dir, user, init: walls.init, keys, warming: super::Warming::default() };
        let docker = Arc::new(Docker::from_environment(&world.spec.state_dir).unwrap());
        let pool = Pool::open(docker, target).await.unwrap();
        Some(Self { pool, _world: world })
    }
}

async fn image(world: &World) -> crate::provider::ImageId {
    if let Ok(image) = world.docker.image(IMAGE).await {
        return image.id;
    }
    let mut archive = tar::Builder::new(tempfile::tempfile().unwrap());
    let text = format!(
        "FROM {BASE}\nRUN apt-get update && apt-get install -y --no-install-recommends openssh-server && rm -rf /var/lib/apt/lists/*\n"
    );
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "Dockerfile", text.as_bytes()).unwrap();
    let build = BuildSpec {
        context: archive.into_inner().unwrap(),
        dockerfile: "Dockerfile".to_owned(),
        target: None,
        args: Default::default(),
        tag: IMAGE.to_owned(),
        labels: Default::default(),
        no_cache: false,
        caches: String::new(),
        limit: std::time::Duration::from_secs(600),
    };
    let (progress, unheard) = mpsc::channel(1);
    drop(unheard);
    world.docker.build(build, progress).await.unwrap()
}
