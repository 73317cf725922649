//! Nobody loses work, and nobody is told what is not so.

use crate::world::{World, git};

const DOCKERFILE: &str = "FROM debian:bookworm-slim\n";

#[test]
fn what_no_checkpoint_can_hold_is_said_and_not_destroyed_unasked() {
    let Some(world) = World::with_engine("what is left out") else { return };
    let small = "[history]\nmax_file = \"1m\"\n";
    let project = world.repository("shop", &[("Dockerfile", DOCKERFILE), ("vcoding.toml", small), ("a", "1\n")]);
    world.ok(&project, &["up"]);
    world.ok(&project, &["exec", "--", "sh", "-c", "head -c 2000000 /dev/zero > big"]);
    for args in [&["apply"][..], &["diff"], &["rollback", "base"]] {
        let ran = world.ok(&project, args);
        assert!(ran.err.contains("left out: big: larger than"), "{args:?}: {}", ran.err);
    }
    let ran = world.ctl(&project, &["destroy"]);
    assert!(ran.status == 4 && ran.err.contains("big: larger than"), "{}", ran.err);
    world.ok(&project, &["exec", "--", "rm", "big"]);
    // The control.
    world.ok(&project, &["destroy"]);
}

#[test]
fn what_is_made_in_a_guest_is_work_unless_it_is_a_cache() {
    let Some(world) = World::with_engine("what is work") else { return };
    let project = world.repository("shop", &[("Dockerfile", DOCKERFILE), (".gitignore", "*.secret\n"), ("a", "1\n")]);
    world.ok(&project, &["up"]);
    let make = "mkdir dist; echo a >dist/a.js; echo b >data.zip; echo t >x.tmp; echo s >x.secret; \
        mkdir -p node_modules/m; echo m >node_modules/m/i.js";
    world.ok(&project, &["exec", "--", "sh", "-c", make]);
    let shown = world.ok(&project, &["diff", "--stat"]);
    for work in ["dist/a.js", "data.zip", "x.tmp"] {
        assert!(shown.out.contains(work), "{work}: {}", shown.out);
    }
    assert!(!shown.err.contains("left out"), "{}", shown.err);
    let verbose = world.ok(&project, &["-v", "diff", "--stat"]).err;
    assert!(
        verbose.contains("1 cache: node_modules") && verbose.contains("1 name that the project's own rules"),
        "{verbose}"
    );
    assert_eq!(world.ctl(&project, &["destroy"]).status, 4, "it was not taken home");
    world.ok(&project, &["apply"]);
    assert_eq!(git(&project, &["show", "vcoding/shop:data.zip"]).trim(), "b");
    world.ok(&project, &["destroy"]);
}

#[test]
fn what_a_rollback_leaves_is_said_and_clean_moves_it_away() {
    let Some(world) = World::with_engine("what a rollback leaves") else { return };
    let files = [("Dockerfile", DOCKERFILE), (".gitignore", "*.o\n"), ("src/a", "1\n")];
    let project = world.repository("shop", &files);
    std::fs::set_permissions(project.join("src"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    world.ok(&project, &["up"]);
    let modes = || world.ok(&project, &["exec", "--", "stat", "-c", "%a", "src", "src/a"]).out;
    assert_eq!(modes(), "755\n644\n");
    let make =
        "mkdir -p made/part; for n in $(seq 30); do echo x >made/part/$n.o; done; echo w >made/part/w; rm -r src";
    world.ok(&project, &["exec", "--", "sh", "-c", make]);
    let back = world.ok(&project, &["rollback", "base"]);
    assert!(back.err.contains("30 names (30 files) in no checkpoint") && back.err.contains("--clean"), "{}", back.err);
    assert_eq!(modes(), "755\n644\n");
    let back = world.ok(&project, &["rollback", "base", "--clean"]);
    assert!(back.err.contains("moved to") && !back.err.contains("left as it was"), "{}", back.err);
    assert_eq!(world.ok(&project, &["exec", "--", "ls"]).out, "Dockerfile\nsrc\n");
}

#[test]
fn a_rebuild_that_is_refused_leaves_the_guest_as_it_was() {
    let Some(world) = World::with_engine("a refused rebuild") else { return };
    let project = world.repository("shop", &[("Dockerfile", DOCKERFILE), ("a", "1\n")]);
    world.ok(&project, &["up"]);
    std::fs::write(project.join("Dockerfile"), "FROM debian:bookworm-slim\nRUN false\n").unwrap();
    let ran = world.ctl(&project, &["up", "--rebuild"]);
    assert!(ran.status == 6 && ran.err.contains("then: vcodingctl up --rebuild"), "{}", ran.err);
    assert_eq!(world.json(&project, &["ls"])["workspaces"][0]["phase"], "ready");
    world.ok(&project, &["exec", "--", "true"]);
    assert!(!world.ok(&project, &["ls"]).err.contains("warning"));
}

#[test]
fn an_apply_says_what_has_to_be_committed_first_and_then_the_merge_works() {
    let Some(world) = World::with_engine("a merge") else { return };
    let project = world.repository("shop", &[("a", "1\n")]);
    // Written and not committed, as by `init`.
    std::fs::write(project.join("Dockerfile"), DOCKERFILE).unwrap();
    world.ok(&project, &["up"]);
    world.ok(&project, &["exec", "--", "sh", "-c", "echo 2 >> a; echo 'KEY=x' > .env; echo y > b"]);
    let applied = world.json(&project, &["apply"]);
    assert_eq!(applied["in_the_way"], serde_json::json!(["Dockerfile"]), "{applied}");
    assert!(applied["flagged"].to_string().contains(".env"), "{applied}");
    git(&project, &["add", "-A"]);
    git(&project, &["commit", "-q", "-m", "mine"]);
    let applied = world.json(&project, &["apply"]);
    assert_eq!(applied.get("in_the_way"), None, "{applied}");
    git(&project, &["merge", "-q", "vcoding/shop"]);
    assert_eq!(std::fs::read_to_string(project.join("a")).unwrap(), "1\n2\n");
}

#[test]
fn a_branch_that_git_would_have_made_otherwise_is_refused_and_a_patch_is_the_way_out() {
    let Some(world) = World::with_engine("a sparse checkout") else { return };
    let project = world.repository("shop", &[("Dockerfile", DOCKERFILE), ("in/a", "1\n"), ("out/b", "2\n")]);
    git(&project, &["sparse-checkout", "set", "in"]);
    world.ok(&project, &["up"]);
    world.ok(&project, &["exec", "--", "sh", "-c", "echo 2 >> in/a"]);
    let ran = world.ctl(&project, &["apply"]);
    assert!(ran.status == 4 && ran.err.contains("out/b is outside of the sparse checkout"), "{}", ran.err);
    assert!(ran.err.contains("hint: vcodingctl diff > work.patch"), "{}", ran.err);
    let patch = world.ok(&project, &["diff"]).out;
    std::fs::write(project.join("../work.patch"), patch).unwrap();
    git(&project, &["apply", "../work.patch"]);
    git(&project, &["commit", "-qam", "work"]);
    assert_eq!(git(&project, &["show", "--format=", "--name-only"]).trim(), "in/a");
}

#[test]
fn a_project_that_had_no_commit_is_told_how_to_take_the_branch_in() {
    let Some(world) = World::with_engine("no commit") else { return };
    let project = world.project("shop", &[("Dockerfile", DOCKERFILE), ("a", "1\n")]);
    world.ok(&project, &["up"]);
    world.ok(&project, &["exec", "--", "sh", "-c", "echo 2 >> a"]);
    assert_eq!(world.json(&project, &["apply"])["unborn"], true);
    git(&project, &["add", "-A"]);
    git(&project, &["commit", "-q", "-m", "mine"]);
    let applied = world.json(&project, &["apply"]);
    assert_eq!((&applied["unborn"], applied.get("parent")), (&false.into(), None), "{applied}");
}

#[test]
fn a_workspace_is_brought_up_by_its_name_from_anywhere() {
    let Some(world) = World::with_engine("up by name") else { return };
    let project = world.repository("shop", &[("Dockerfile", DOCKERFILE)]);
    world.ok(&project, &["up"]);
    world.ok(&project, &["stop"]);
    let elsewhere = world.project("elsewhere", &[]);
    world.ok(&elsewhere, &["-w", "shop", "up"]);
    assert_eq!(world.ctl(&elsewhere, &["-w", "shopp", "up"]).status, 2);
}
