//! What one leans on when something is wrong: the doctor, the audit, state that was lost; and what is taken out by its name.

use crate::world::{SHOP, World, wait_until};

const DOCKERFILE: &str = "FROM debian:bookworm-slim\n";

#[test]
fn the_doctor_finds_a_whole_installation_fine_and_names_what_is_broken() {
    let Some(world) = World::with_engine("the doctor") else { return };
    let project = world.repository("shop", &[("Dockerfile", DOCKERFILE)]);
    world.ok(&project, &["up"]);
    let findings = |status| {
        let ran = world.ctl(&project, &["--json", "doctor"]);
        assert_eq!(ran.status, status, "{}{}", ran.out, ran.err);
        let found: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        found["findings"].as_array().unwrap().clone()
    };
    let found = findings(0);
    for area in ["host", "engine", "daemon", "keys", "store", "workspaces", "disk"] {
        assert!(found.iter().any(|finding| finding["area"] == area), "{area}: {found:?}");
    }
    // A project that is gone, and a guest that cannot come back.
    std::fs::remove_dir_all(world.own_directory().join("host/history.git")).unwrap();
    assert_ne!(world.ctl(&project, &["up"]).status, 0);
    let broken = findings(1);
    let broken = broken.iter().find(|finding| finding["severity"] == "error").unwrap();
    assert!(broken["message"].as_str().unwrap().contains("history of workspace shop is gone"), "{broken}");
    assert_eq!(broken["fix"], "vcodingctl -w shop up");
}

#[test]
fn a_doctor_without_a_daemon_says_why_there_is_none() {
    let mut world = World::new();
    let here = world.project("p", &[]);
    world.set("VCODING_DAEMON", "/nowhere/vcodingd");
    let ran = world.ctl(&here, &["doctor"]);
    assert!(
        ran.status == 1 && ran.out.contains("/nowhere/vcodingd") && ran.out.contains("→"),
        "{}{}",
        ran.out,
        ran.err
    );
}

#[test]
fn who_did_what_is_found_again_without_a_prompt_or_a_key() {
    let Some(world) = World::with_engine("the audit") else { return };
    let project = world.repository("shop", &[("Dockerfile", DOCKERFILE)]);
    world.ok(&project, &["up"]);
    world.ok(&project, &["run", "--", "echo", "a-word-that-is-nobody's-business"]);
    assert_ne!(world.ctl(&project, &["rollback", "nowhere"]).status, 0);
    let entries = |args: &[&str]| {
        let found = world.json(&project, &[&["-w", "shop", "audit"], args].concat());
        let of = |entry: &serde_json::Value| format!("{} {}", entry["method"], entry["outcome"]).replace('"', "");
        found["entries"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(entries(&[]), ["workspace.up ok", "run.start ok", "checkpoint.rollback checkpoint-not-found"]);
    assert_eq!(entries(&["--failed"]), ["checkpoint.rollback checkpoint-not-found"]);
    assert_eq!(entries(&["--method", "run", "--since", "1h"]), ["run.start ok"]);
    for kept in [world.state().join("audit"), world.state().join("log")] {
        for file in std::fs::read_dir(&kept).unwrap().flatten() {
            let text = std::fs::read_to_string(file.path()).unwrap();
            assert!(!text.is_empty() && !text.contains("nobody's-business"), "{}: {text}", file.path().display());
        }
    }
}

#[test]
fn a_store_that_was_damaged_comes_back_and_the_next_command_says_so() {
    let Some(world) = World::with_engine("a damaged store") else { return };
    let project = world.repository("shop", &[("Dockerfile", DOCKERFILE)]);
    world.ok(&project, &["up"]);
    world.ok(&project, &["run", "--", "sh", "-c", "echo kept > new.txt"]);
    let container = world.container("shop");
    let db = world.state().join("db");
    for (how, damage) in [
        ("a configuration that is none", ("conf", Some("no configuration of a store"))),
        ("an empty log", ("db", Some(""))),
        ("no log", ("db", None)),
    ] {
        world.ctl(&project, &["daemon", "stop"]);
        wait_until(|| world.ctl(&project, &["daemon", "status"]).status != 0, "the daemon's end");
        match damage {
            (name, Some(text)) => std::fs::write(db.join(name), text).unwrap(),
            (name, None) => std::fs::remove_file(db.join(name)).unwrap(),
        }
        let ran = world.ok(&project, &["ls"]);
        assert!(ran.err.contains("came back") && ran.out.contains("shop"), "{how}: {}{}", ran.out, ran.err);
        assert_eq!(world.ok(&project, &["exec", "--", "cat", "new.txt"]).out, "kept\n", "{how}");
        assert_eq!(world.container("shop"), container, "{how}: the guest that was there");
        assert_eq!(world.json(&project, &["runs"])["runs"][0]["state"], "succeeded", "{how}");
        assert!(!world.ok(&project, &["ls"]).err.contains("came back"), "{how}: said once");
        assert!(world.ok(&project, &["daemon", "status"]).err.contains("came back"), "{how}: and whenever it is asked");
    }
}

#[test]
fn a_daemon_that_died_while_it_opened_its_store_is_followed_by_one_that_looks_first() {
    let Some(world) = World::with_engine("a store that ends its reader") else { return };
    let project = world.repository("shop", &[("Dockerfile", DOCKERFILE)]);
    world.ok(&project, &["up"]);
    world.kill_daemon();
    std::fs::write(world.state().join("db.opening"), "").unwrap();
    let ran = world.ok(&project, &["ls"]);
    assert!(!ran.err.contains("set aside") && ran.out.contains("shop"), "a whole store is taken: {}", ran.err);
    assert!(!world.state().join("db.opening").exists());
    // And one that is damaged is set aside.
    world.kill_daemon();
    std::fs::write(world.state().join("db.opening"), "").unwrap();
    std::fs::write(world.state().join("db/conf"), "no configuration of a store").unwrap();
    let ran = world.ok(&project, &["ls"]);
    assert!(ran.err.contains("set aside as") && ran.out.contains("shop"), "{}", ran.err);
    world.ok(&project, &["exec", "--", "true"]);
    assert!(world.ok(&project, &["doctor"]).out.contains("db.unreadable-"));
}

#[test]
fn files_are_collected_whole_and_nothing_of_the_users_is_replaced_unasked() {
    let Some(world) = World::with_engine("collect") else { return };
    let project = world.repository("shop", &[("Dockerfile", DOCKERFILE), (".gitignore", "dist/\n")]);
    world.ok(&project, &["up"]);
    let make = "mkdir -p dist && echo built > dist/shop.whl && ln -s /etc/passwd dist/link && head -c 3000000 /dev/urandom > dist/big \
                && chmod 4755 dist/shop.whl && sha256sum dist/big";
    let made = world.ok(&project, &["exec", "--", "sh", "-c", make]).out;
    let ran = world.ok(&project, &["collect", "dist"]);
    assert!(ran.out.contains("dist/shop.whl") && ran.err.contains("dist/link (is a link)"), "{}{}", ran.out, ran.err);
    let sum = crate::world::output(std::process::Command::new("sha256sum").arg("dist/big").current_dir(&project));
    assert_eq!(sum, made);
    assert!(!project.join("dist/link").exists());
    assert_eq!(world.ok(&project, &["collect", "dist/shop.whl"]).out.lines().count(), 1, "it is there already");
    std::fs::write(project.join("dist/shop.whl"), "mine\n").unwrap();
    assert_eq!(world.ctl(&project, &["collect", "dist/shop.whl"]).status, 5);
    assert_eq!(std::fs::read_to_string(project.join("dist/shop.whl")).unwrap(), "mine\n");
    world.ok(&project, &["collect", "--force", "/work/dist/shop.whl"]);
    assert_eq!(std::fs::read_to_string(project.join("dist/shop.whl")).unwrap(), "built\n");
    let none = world.ctl(&project, &["collect", "*.zip"]);
    assert!(none.status == 3 && none.err.contains("*.zip") && none.err.contains("hint:"), "{}", none.err);
    // Of a stopped guest as well.
    world.ok(&project, &["stop"]);
    let elsewhere = world.path("elsewhere");
    world.ok(&project, &["collect", "--to", elsewhere.to_str().unwrap(), "dist/*.whl"]);
    assert!(elsewhere.join("dist/shop.whl").is_file());
}

#[test]
fn a_build_leaves_no_connection_to_the_engine_open() {
    let Some(world) = World::with_engine("connections of builds") else { return };
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);
    let sockets = || {
        let held = std::fs::read_dir(format!("/proc/{}/fd", world.daemon_pid().unwrap())).unwrap().flatten();
        held.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")))
            .count()
    };
    let before = sockets();
    for _ in 0..4 {
        world.ok(&project, &["up", "--rebuild"]);
    }
    // Two more connections into the guest may have been made ready meanwhile.
    wait_until(|| sockets() <= before + 2, "the end of the builds' connections");
}
