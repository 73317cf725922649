//! A container as the daemon makes it, and ways to speak to it.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use guest::{Frame, Job, places, run};

const IMAGE: &str = "vcoding-guest-test";
const DOCKERFILE: &str = "FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends openssh-server procps \
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_*
";
const CONFIG: &str = "HostKey /etc/vcoding/host_key
AuthorizedKeysFile /etc/vcoding/authorized_keys
KexAlgorithms curve25519-sha256
Ciphers aes128-gcm@openssh.com
MACs hmac-sha2-256-etm@openssh.com
HostKeyAlgorithms ssh-ed25519
PubkeyAcceptedKeyTypes ssh-ed25519
AllowUsers work bare
AuthenticationMethods publickey
StrictModes no
UsePAM no
UseDNS no
PidFile none
LoginGraceTime 20
MaxSessions 256
AcceptEnv *
PrintMotd no
PrintLastLog no
Compression no
AllowAgentForwarding no
AllowStreamLocalForwarding no
AllowTcpForwarding remote
PermitListen 127.0.0.1:7002
Subsystem sftp internal-sftp
LogLevel ERROR
";
pub const RUN_ID: &str = "01jd0000000000000000000000";

pub struct Guest {
    directory: tempfile::TempDir,
    id: String,
    /// Whether our program is its PID 1.
    ours: bool,
}

impl Guest {
    pub fn start() -> Option<Self> {
        Self::create(true)
    }

    /// The control: another PID 1, and a user whose shell is not ours, behind the same sshd.
    pub fn bare() -> Option<Self> {
        Self::create(false)
    }

    fn create(ours: bool) -> Option<Self> {
        if !image() {
            #[expect(clippy::print_stderr, reason = "a skipped test has to be seen")]
            {
                eprintln!("SKIPPED: no container engine answers");
            }
            return None;
        }
        let directory = tempfile::Builder::new().prefix("guest").tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for name in ["etc", "run", "tree", "home", "bin", "agents"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::fs::copy(program(), at("bin/vcoding-guest")).unwrap();
        let uid = match directory.path().metadata().unwrap().uid() {
            0 => 4321,
            own => own,
        };
        for key in ["key", "etc/host_key"] {
            succeed(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key)));
        }
        std::fs::copy(at("key.pub"), at("etc/authorized_keys")).unwrap();
        let helper = places::HELPER;
        let passwd = format!(
            "root:x:0:0:root:/root:/bin/sh\nwork:x:{uid}:{uid}::/home/work:{helper}\nbare:x:{uid}:{uid}::/:/bin/sh\n\
             sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
        );
        for (name, content) in [
            ("sshd_config", CONFIG),
            ("env", "IMAGE=yes\0TWICE=image\0PATH=/usr/local/bin:/usr/bin:/bin\0"),
            ("shell", "/bin/bash\n"),
            ("passwd", &passwd),
            ("group", &format!("root:x:0:\nwork:x:{uid}:\n")),
        ] {
            std::fs::write(at("etc").join(name), content).unwrap();
        }
        for name in ["etc/host_key", "run", "tree", "home"] {
            std::os::unix::fs::chown(at(name), Some(uid), Some(uid)).unwrap();
        }
        let mut docker = Command::new("docker");
        docker.args(["run", "-d", "--network=none", "--cap-drop=ALL", "--read-only", "--pids-limit=1024"]);
        docker.args(["--security-opt=no-new-privileges", "--ulimit=core=1", "--hostname=shop", "--workdir=/"]);
        docker.args(["--tmpfs=/tmp:exec,nosuid,nodev,mode=1777", "--tmpfs=/run:exec,nosuid,nodev,mode=755"]);
        let seccomp = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vcodingd/src/provider/docker/seccomp.json");
        docker.arg(format!("--security-opt=seccomp={}", seccomp.display())).arg(format!("--user={uid}:{uid}"));
        for (source, target) in [
            ("tree", places::WORK),
            ("home", places::HOME),
            ("run", places::RUN),
            ("etc", "/etc/vcoding:ro"),
            ("etc/passwd", "/etc/passwd:ro"),
            ("etc/group", "/etc/group:ro"),
            ("bin", "/opt/vcoding/bin:ro"),
            ("agents", "/opt/vcoding/agents:ro"),
        ] {
            docker.arg(format!("--volume={}:{target}", at(source).display()));
        }
        if ours {
            docker.args(["--entrypoint", helper, IMAGE, "init", "--model-port", "7001", "--relay-port", "7002"]);
        } else {
            docker.args(["--entrypoint", "sleep", IMAGE, "infinity"]);
        }
        let id = String::from_utf8(succeed(&mut docker).stdout).unwrap().trim().to_owned();
        let guest = Self { directory, id, ours };
        if ours {
            guest.eventually("the carrier socket", || {
                guest.at("run/ssh.sock").metadata().is_ok_and(|m| m.file_type().is_socket())
            });
        }
        Some(guest)
    }

    /// A path on the host's side of the mounts.
    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn run_directory(&self) -> PathBuf {
        self.at("run/runs").join(RUN_ID)
    }

    /// `ssh`, with the user and the host already named.
    pub fn ssh(&self, options: &[&str], user: &str) -> Command {
        let mut ssh = Command::new("ssh");
        let carrier = if self.ours {
            format!("{} carrier", places::HELPER)
        } else {
            "/usr/sbin/sshd -i -f /etc/vcoding/sshd_config".to_owned()
        };
        ssh.args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        ssh.args(["-o", "LogLevel=ERROR", "-i"]).arg(self.at("key"));
        ssh.arg("-o").arg(format!("ProxyCommand=docker exec -i {} {carrier}", self.id));
        ssh.args(options).arg(format!("{user}@guest"));
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        ssh
    }

    /// A frame that the shell has taken, its standard input still open.
    pub fn send(&self, options: &[&str], frame: &Frame) -> Child {
        let mut child = self.ssh(options, places::USER).arg(guest::frame::EXEC).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(&frame.encode().unwrap()).unwrap();
        let mut word = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
        assert_eq!(word, [guest::frame::READY]);
        child
    }

    pub fn frame(&self, frame: &Frame, stdin: &[u8]) -> Output {
        let mut child = self.send(&[], frame);
        // The command may end without reading it.
        let _unread = child.stdin.take().unwrap().write_all(stdin);
        child.wait_with_output().unwrap()
    }

    /// A shell's script, in a frame.
    pub fn exec(&self, script: &str) -> Output {
        self.frame(&shell(script), b"")
    }

    /// Whether a process of the guest has this command line, or one that begins with it.
    pub fn has(&self, line: &str) -> bool {
        let top = succeed(Command::new("docker").args(["top", &self.id, "-eo", "pid,args"]));
        String::from_utf8_lossy(&top.stdout)
            .lines()
            .any(|row| row.trim_start().split_once(' ').is_some_and(|(_, args)| args.trim().starts_with(line)))
    }

    pub fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < until, "{what}: not so; {}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn logs(&self) -> String {
        let logs = Command::new("docker").args(["logs", &self.id]).output().unwrap();
        String::from_utf8_lossy(&[logs.stdout, logs.stderr].concat()).into_owned()
    }

    pub fn stop(&self) -> (Duration, String) {
        let start = Instant::now();
        succeed(Command::new("docker").args(["stop", "-t", "30", &self.id]));
        let status = succeed(Command::new("docker").args(["inspect", "-f", "{{.State.ExitCode}}", &self.id]));
        (start.elapsed(), String::from_utf8(status.stdout).unwrap().trim().to_owned())
    }

    /// The run's end, when it is there.
    pub fn end(&self) -> run::End {
        let path = self.run_directory().join(run::END);
        self.eventually("the run's end", || path.exists());
        run::End::decode(&std::fs::read(path).unwrap()).unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // What could not be removed here fails no test.
        let _left = Command::new("docker").args(["rm", "-f", "-v", &self.id]).output();
    }
}

pub fn shell(script: &str) -> Frame {
    Frame::exec(["sh", "-c", script])
}

pub fn a_run(script: &str) -> Frame {
    Frame { job: Job::Run { id: RUN_ID.to_owned(), stdin: Vec::new(), timeout_ms: 0 }, ..shell(script) }
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Makes the image; false if no engine answers.
fn image() -> bool {
    static MADE: OnceLock<bool> = OnceLock::new();
    *MADE.get_or_init(|| {
        let answers = Command::new("docker").arg("version").output().is_ok_and(|o| o.status.success());
        if answers {
            let context = tempfile::tempdir().unwrap();
            std::fs::write(context.path().join("Dockerfile"), DOCKERFILE).unwrap();
            succeed(Command::new("docker").args(["build", "-q", "-t", IMAGE]).arg(context.path()));
        }
        answers
    })
}

/// Builds the program as guests get it: static, in the release profile.
fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--locked", "--release", "-q", "-p", "guest"]);
        cargo.args(["--bin", "vcoding-guest", "--target", &target, "--target-dir"]).arg(&directory);
        for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
            cargo.env_remove(name);
        }
        succeed(&mut cargo);
        directory.join(target).join("release/vcoding-guest")
    })
}
