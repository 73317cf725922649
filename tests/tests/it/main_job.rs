//! The main job without an agent: up, exec, log, diff, rollback, apply, stop, start, destroy.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use crate::world::{Ran, SHOP, World, executable, git, run};

/// A command in the guest by the shell.
fn sh(world: &World, project: &std::path::Path, script: &str) -> Ran {
    world.ctl(project, &["exec", "--", "sh", "-c", script])
}

/// What a command prints that is given these bytes.
fn fed(command: &mut std::process::Command, bytes: &[u8]) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn the_main_job_from_up_to_destroy() {
    let Some(world) = World::with_engine("the main job") else { return };
    let project = world.repository("shop", &SHOP);
    let before = git(&project, &["status", "--porcelain"]);

    let up = world.json(&project, &["up"]);
    assert_eq!(up["created"], true);
    assert_eq!(up["workspace"]["phase"], "ready");
    assert_eq!(up["wall"]["interfaces"], serde_json::json!(["lo"]));
    assert_eq!(up["wall"]["capabilities"], "0");
    assert_eq!(up["wall"]["read_only_root"], true);
    assert_eq!(world.json(&project, &["up"])["created"], false, "the second up only looks");

    // Attached; the exit status is the command's.
    let tests = world.ctl(&project, &["exec", "--", "python3", "-m", "pytest", "-q"]);
    assert_eq!(tests.status, 1, "{}{}", tests.out, tests.err);
    assert!(tests.out.contains("test_ten_percent_off"), "{}", tests.out);
    assert_eq!(sh(&world, &project, "exit 7").status, 7);
    assert_eq!(sh(&world, &project, "kill -9 $$").status, 137);
    assert_eq!(world.ctl(&project, &["exec", "--", "no-such-command"]).status, 127);

    // Standard input reaches the command, to its end.
    let sent = vec![b'x'; 3 << 20];
    let mut sum = world.command(&project, &["exec", "--", "sha256sum"]);
    assert_eq!(fed(&mut sum, &sent), fed(&mut std::process::Command::new("sha256sum"), &sent));

    // A change, seen, undone, and undone again.
    world.ok(&project, &["exec", "--", "sed", "-i", "s|discount // 10$|discount // 100|", "shop/cart.py"]);
    world.ok(&project, &["checkpoint", "-m", "fixed"]);
    let diff = world.json(&project, &["diff", "base", "@"]);
    assert_eq!(diff["files"][0]["path"], "shop/cart.py");
    assert_eq!((&diff["files"][0]["added"], &diff["files"][0]["deleted"]), (&1.into(), &1.into()));
    assert!(diff["patch"].as_str().unwrap().contains("+    return whole - whole * discount // 100"));
    let pytest = ["exec", "--", "python3", "-m", "pytest", "-q"];
    world.ok(&project, &pytest);
    world.ok(&project, &["rollback", "base"]);
    assert_eq!(world.ctl(&project, &pytest).status, 1);
    world.ok(&project, &["rollback", "@~1"]);
    world.ok(&project, &pytest);
    world.ok(&project, &["rollback", "fixed"]);

    // Home as a branch; index and work tree are as they were.
    let index = std::fs::read(project.join(".git/index")).unwrap();
    let applied = world.json(&project, &["apply"]);
    assert_eq!(applied["branch"], "vcoding/shop");
    assert_eq!(std::fs::read(project.join(".git/index")).unwrap(), index);
    assert_eq!(git(&project, &["status", "--porcelain"]), before);
    let home = git(&project, &["diff", "--stat", "main", "vcoding/shop"]);
    assert!(home.contains("shop/cart.py") && home.contains("1 file changed"), "{home}");
    assert_eq!(git(&project, &["rev-parse", "vcoding/shop^"]), git(&project, &["rev-parse", "main"]));
    git(&project, &["fsck", "--strict"]);

    // Sleep and wake: the files stay.
    world.ok(&project, &["stop"]);
    let stopped = world.ctl(&project, &["exec", "--", "true"]);
    assert_eq!(stopped.status, 125, "{}", stopped.err);
    assert!(stopped.err.contains("hint: vcodingctl start"), "{}", stopped.err);
    world.ok(&project, &["start"]);
    world.ok(&project, &pytest);

    // Gone without a trace.
    let container = world.container("shop");
    world.ok(&project, &["destroy", "--purge"]);
    let inspected = std::process::Command::new("docker").args(["inspect", &container]).output().unwrap();
    assert!(!inspected.status.success());
    assert_eq!(std::fs::read_dir(world.state().join("workspaces")).unwrap().count(), 0);
    assert_eq!(world.ctl(&project, &["exec", "--", "true"]).status, 125);
}

#[test]
fn rollback_is_exact_and_leaves_ignored_files_alone() {
    let Some(world) = World::with_engine("rollback") else { return };
    let mut files = SHOP.to_vec();
    files.push(("run.sh", "#!/bin/sh\n"));
    files.push(("deep/er/file", "1"));
    let project = world.repository("shop", &files);
    executable(&project.join("run.sh"));
    std::os::unix::fs::symlink("README.md", project.join("link")).unwrap();
    std::fs::create_dir(project.join("empty")).unwrap();
    std::fs::write(project.join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff")), b"\x00\xff").unwrap();
    world.ok(&project, &["up"]);

    let list = "find . -name .git -prune -o -name __pycache__ -prune -o -printf '%y %m %p %l\\n' -o -name x | sort; \
                find . -type f -not -path './.git/*' -not -name '*.log' | sort | xargs -d '\\n' sha256sum";
    let first = sh(&world, &project, list);
    assert!(first.out.contains("l 777 ./link README.md"), "{}{}", first.out, first.err);
    let mess = "echo changed > README.md; rm -r deep; mv shop/cart.py shop/basket.py; chmod -x run.sh; ln -sfn run.sh link; \
                rmdir empty; rm not-utf8*; mkdir new; echo n > new/file; echo kept > debug.log; mkdir -p node_modules/m; echo m > node_modules/m/i.js";
    world.ok(&project, &["exec", "--", "sh", "-ec", mess]);
    world.ok(&project, &["rollback", "base"]);
    let ignored = sh(&world, &project, "cat node_modules/m/i.js; rm -r node_modules; rm -f debug.log");
    assert_eq!(ignored.out, "m\n", "what history does not hold, rollback does not touch");
    let after = sh(&world, &project, list);
    assert_eq!(after.out, first.out);
    // And forward again.
    world.ok(&project, &["rollback", "@~1"]);
    assert_eq!(sh(&world, &project, "cat README.md new/file; test ! -e deep").status, 0);
}

#[test]
fn secrets_of_the_project_stay_at_home_and_it_is_said() {
    let Some(world) = World::with_engine("secrets") else { return };
    let mut files = SHOP.to_vec();
    files.push((".env", "TOKEN=abcdef\n"));
    files.push(("id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"));
    let project = world.repository("shop", &files);
    let up = world.json(&project, &["up"]);
    let left_out = up["left_out"].to_string();
    assert!(left_out.contains(".env") && left_out.contains("id_ed25519"), "{left_out}");
    let inside = sh(&world, &project, "ls -a; grep -r abcdef . ; grep -r 'PRIVATE KEY' .");
    assert!(!inside.out.contains(".env") && !inside.out.contains("id_ed25519"), "{}", inside.out);
    // They were tracked: the branch that goes home still has them.
    world.ok(&project, &["exec", "--", "sh", "-c", "echo x > new.txt"]);
    world.ok(&project, &["apply"]);
    let home = git(&project, &["diff", "--name-status", "main", "vcoding/shop"]);
    assert_eq!(home, "A\tnew.txt\n");
}

#[test]
fn a_directory_without_git_becomes_a_repository_and_its_work_goes_home_too() {
    let Some(world) = World::with_engine("no repository") else { return };
    let project = world.project("shop", &SHOP);
    world.ok(&project, &["up"]);
    assert!(project.join(".git/HEAD").is_file());
    world.ok(&project, &["exec", "--", "sh", "-c", "echo x > new.txt"]);
    let refused = world.ctl(&project, &["destroy"]);
    assert_eq!(refused.status, 4, "{}", refused.err);
    assert!(refused.err.contains("never applied"), "{}", refused.err);
    world.ok(&project, &["apply"]);
    assert_eq!(git(&project, &["show", "vcoding/shop:new.txt"]), "x\n");
    world.ok(&project, &["destroy"]);
    let trash = std::fs::read_dir(world.state().join("trash")).unwrap().count();
    assert_eq!(trash, 1, "record and history are kept for a while");
}

#[test]
fn many_commands_at_once_each_get_their_own_answer() {
    let Some(world) = World::with_engine("many commands") else { return };
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);
    let commands: Vec<_> = (0..24)
        .map(|n| world.command(&project, &["exec", "--", "sh", "-c", &format!("echo nonce-{n}; exit {n}")]))
        .collect();
    let threads: Vec<_> = commands.into_iter().map(|command| std::thread::spawn(move || run(command))).collect();
    for (n, thread) in threads.into_iter().enumerate() {
        let ran = thread.join().unwrap();
        assert_eq!((ran.status, ran.out), (i32::try_from(n).unwrap(), format!("nonce-{n}\n")), "{}", ran.err);
    }
}
