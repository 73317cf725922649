//! What cannot be done from inside.

use std::path::Path;

use crate::world::{SHOP, World, output};

fn inside(world: &World, project: &Path, script: &str) -> (i32, String) {
    let ran = world.ctl(project, &["exec", "--", "sh", "-c", script]);
    (ran.status, ran.out + &ran.err)
}

#[test]
fn a_guest_has_nowhere_to_go_and_nothing_to_steal() {
    let Some(mut world) = World::with_engine("walls") else { return };
    world.set("ANTHROPIC_API_KEY", "sk-not-to-be-found-1234567890");
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);
    let call = "python3 -c 'import socket; socket.create_connection((\"192.0.2.1\", 443), 3)'";
    let (status, said) = inside(&world, &project, call);
    assert!(status != 0 && said.contains("unreachable"), "{said}");
    assert_eq!(inside(&world, &project, "touch /etc/x").0, 1, "the root is read-only");
    let (_, said) = inside(&world, &project, "cat /proc/self/status");
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // Not in environment, processes, files.
    let look = "(env; cat /proc/*/environ /proc/*/cmdline; grep -rs not-to-be-found / --include='*' --exclude-dir=proc --exclude-dir=sys) 2>/dev/null | grep -ac not-to-be-found";
    let (_, found) = inside(&world, &project, look);
    // The one that looks finds its own command line; nothing else.
    let control = "grep -ac not-to-be-found /proc/self/cmdline";
    assert!(inside(&world, &project, control).1.trim() == "1");
    let count: u32 = found.trim().parse().unwrap_or(u32::MAX);
    let (_, own) = inside(&world, &project, "cat /proc/*/cmdline 2>/dev/null | grep -ac not-to-be-found");
    assert_eq!(count, own.trim().parse::<u32>().unwrap(), "{found}");
    // PID 1's memory is closed to the same uid.
    let (status, said) = inside(&world, &project, "dd if=/proc/1/mem bs=1 count=1 of=/dev/null");
    assert!(status != 0 && said.contains("denied"), "{said}");
    // Only our work folders are mounted.
    let container = world.container("shop");
    let mounts = output(std::process::Command::new("docker").args([
        "inspect",
        "-f",
        "{{range .Mounts}}{{.Source}}\n{{end}}",
        &container,
    ]));
    assert!(mounts.lines().filter(|l| !l.is_empty()).all(|l| Path::new(l).starts_with(world.state())), "{mounts}");
}

#[test]
fn everything_a_caller_started_ends_with_the_caller() {
    use std::io::Read;
    use std::process::Stdio;
    let Some(world) = World::with_engine("tree kill") else { return };
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);
    let tree = "setsid sleep 4711 & nohup sleep 4712 >/dev/null 2>&1 & (sleep 4713 &) ; echo started; sleep 4714";
    let mut child = world.command(&project, &["exec", "--", "sh", "-c", tree]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 8];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let count = "exec 2>/dev/null; for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done | grep -c '^sleep 471[1-4] $'";
    assert_eq!(inside(&world, &project, count).1.trim(), "4");
    child.kill().unwrap();
    child.wait().unwrap();
    crate::world::wait_until(|| inside(&world, &project, count).1.trim() == "0", "the tree's end");
}

#[test]
fn a_run_that_stops_its_supervisor_is_ended_all_the_same() {
    let Some(world) = World::with_engine("a stopped supervisor") else { return };
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);
    // The supervisor is the command's parent; the tree escapes it besides.
    let script = "kill -STOP $PPID; (setsid sh -c 'trap \"\" TERM INT; sleep 7201; sleep 7202' &) ; sleep 7203";
    world.ok(&project, &["run", "--detach", "--", "sh", "-c", script]);
    let processes = || inside(&world, &project, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").1;
    crate::world::wait_until(|| processes().contains("sleep 7203"), "the run's own stop");
    let ran = world.ctl(&project, &["--json", "cancel", "@"]);
    assert!(ran.out.contains("\"cancelled\""), "{}{}", ran.out, ran.err);
    let left = processes();
    assert!(!left.contains("sleep 720"), "{left}");
}

#[test]
fn a_dockerfile_that_came_home_with_the_work_is_not_built_unasked() {
    let Some(world) = World::with_engine("consent") else { return };
    let project = world.repository("shop", &[("Dockerfile", "FROM debian:bookworm-slim\n"), ("a", "1\n")]);
    world.ok(&project, &["up"]);
    world.ok(&project, &["exec", "--", "sh", "-c", "echo 'ENV EVIL=1' >> Dockerfile"]);
    world.ok(&project, &["apply"]);
    // The control: until it is merged, the user's own is built as ever.
    world.ok(&project, &["up", "--rebuild"]);
    crate::world::git(&project, &["merge", "-q", "vcoding/shop"]);
    let ran = world.ctl(&project, &["up", "--rebuild"]);
    assert_eq!(ran.status, 4, "{}", ran.err);
    assert!(
        ran.err.contains("nobody has agreed to Dockerfile") && ran.err.contains("vcodingctl consent"),
        "{}",
        ran.err
    );
    // Nor by a workspace that knows nothing of the one before.
    world.ok(&project, &["destroy", "--force", "--purge"]);
    assert_eq!(world.ctl(&project, &["up"]).status, 4);
    let ran = world.ctl(&project, &["consent"]);
    assert!(ran.status == 4 && ran.out.contains("Dockerfile") && ran.err.contains("--agree"), "{}{}", ran.out, ran.err);
    assert!(world.ok(&project, &["consent", "--agree"]).out.starts_with("agreed to Dockerfile"));
    world.ok(&project, &["up"]);
    assert_eq!(world.ok(&project, &["exec", "--", "sh", "-c", "echo $EVIL"]).out, "1\n");
    // What was agreed to is not asked again.
    world.ok(&project, &["exec", "--", "sh", "-c", "echo 2 > a"]);
    world.ok(&project, &["apply"]);
    world.ok(&project, &["up", "--rebuild"]);
}

#[test]
fn whatever_way_it_came_home_and_whatever_git_made_of_it_it_is_not_built_unasked() {
    let Some(world) = World::with_engine("consent to what came home") else { return };
    let dockerfile = "FROM debian:bookworm-slim\n";
    let project = world.repository("shop", &[("Dockerfile", dockerfile), ("a", "1\n")]);
    world.ok(&project, &["up"]);
    // The user's own edits ask nothing as long as nothing came home.
    std::fs::write(project.join("Dockerfile"), "FROM debian:bookworm-slim\nENV MINE=1\n").unwrap();
    world.ok(&project, &["up", "--rebuild"]);
    std::fs::write(project.join("Dockerfile"), dockerfile).unwrap();
    world.ok(&project, &["exec", "--", "sh", "-c", "echo 'ENV EVIL=1' >> Dockerfile; echo secrets > .dockerignore"]);
    let patch = world.ok(&project, &["diff"]).out;
    world.ok(&project, &["up", "--rebuild"]);
    std::fs::write(project.join("../work.patch"), patch).unwrap();
    crate::world::git(&project, &["apply", "../work.patch"]);
    // As a checkout with other line ends has it: no content that ever was in the guest.
    std::fs::write(project.join("Dockerfile"), "FROM debian:bookworm-slim\r\nENV EVIL=1\r\n").unwrap();
    let ran = world.ctl(&project, &["up", "--rebuild"]);
    assert!(ran.status == 4 && ran.err.contains(".dockerignore and Dockerfile as it is now"), "{}", ran.err);
    // So does a file that was collected.
    crate::world::git(&project, &["checkout", "-q", "."]);
    std::fs::remove_file(project.join(".dockerignore")).unwrap();
    world.ok(&project, &["up", "--rebuild"]);
    world.ok(&project, &["collect", "--force", "Dockerfile"]);
    assert_eq!(world.ctl(&project, &["up", "--rebuild"]).status, 4);
    world.ok(&project, &["consent", "--agree"]);
    world.ok(&project, &["up", "--rebuild"]);
}

#[test]
fn a_repository_lets_no_secret_in_by_itself() {
    let Some(world) = World::with_engine("included secrets") else { return };
    let files = [("Dockerfile", "FROM debian:bookworm-slim\n"), (".vcodinginclude", ".env\n*.pem\n")];
    let project = world.repository("shop", &files);
    std::fs::write(project.join(".env"), "KEY=x\n").unwrap();
    let ran = world.ctl(&project, &["up"]);
    assert!(ran.status == 4 && ran.err.contains("looks like a secret: .env"), "{}", ran.err);
    let asked = world.ctl(&project, &["consent"]);
    assert!(asked.status == 4 && asked.out.contains(".env"), "{}{}", asked.out, asked.err);
    world.ok(&project, &["consent", "--agree"]);
    world.ok(&project, &["up"]);
    assert_eq!(world.ok(&project, &["exec", "--", "cat", ".env"]).out, "KEY=x\n");
}

#[test]
fn what_a_repository_wishes_beyond_the_defaults_holds_only_after_consent() {
    let Some(world) = World::with_engine("wishes") else { return };
    let wishes = |memory: &str| {
        format!(
            "[workspace]\nbuild_args = {{ WORD = \"built\" }}\n[limits]\nmemory = {memory:?}\n[run]\nenv = {{ MOOD = \"calm\" }}\n"
        )
    };
    let dockerfile = "FROM debian:bookworm-slim\nARG WORD=plain\nRUN echo $WORD > /word\n";
    let project = world.repository("shop", &[("Dockerfile", dockerfile), ("vcoding.toml", &wishes("5g"))]);
    let ran = world.ctl(&project, &["up"]);
    assert_eq!(ran.status, 4, "{}", ran.err);
    assert!(ran.err.contains("[limits] memory = 5g") && ran.err.contains("vcodingctl consent"), "{}", ran.err);
    world.ok(&project, &["consent", "--agree"]);
    world.ok(&project, &["up"]);
    assert_eq!(world.ok(&project, &["exec", "--", "cat", "/word"]).out, "built\n");
    let memory = || {
        let container = world.container("shop");
        let inspect = ["inspect", "--format", "{{.HostConfig.Memory}}", &container];
        crate::world::output(std::process::Command::new("docker").args(inspect))
    };
    assert_eq!(memory(), "5368709120\n");
    assert!(world.ok(&project, &["run", "--", "sh", "-c", "echo $MOOD"]).out.contains("calm"));
    // More than was agreed to is asked anew, and the guest stays as it is.
    std::fs::write(project.join("vcoding.toml"), wishes("6g")).unwrap();
    assert_eq!(world.ctl(&project, &["up", "--rebuild"]).status, 4);
    assert_eq!(memory(), "5368709120\n");
}

#[test]
fn a_sweep_of_every_process_leaves_a_guest_that_answers() {
    let Some(world) = World::with_engine("kill -9 -1") else { return };
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);
    inside(&world, &project, "kill -9 -1");
    world.ok(&project, &["exec", "--", "echo", "still here"]);
}
