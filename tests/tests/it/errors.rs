//! What a newcomer meets first: each with its message, the next command to type, and its status.

use crate::world::{SHOP, World};

#[test]
fn a_directory_that_is_no_project_says_so() {
    let world = World::new();
    let here = world.project("nothing", &[("a.txt", "")]);
    let ran = world.ctl(&here, &["up"]);
    assert_eq!(ran.status, 2, "{}", ran.err);
    assert!(
        ran.err.starts_with("error: ") && ran.err.contains("is no project") && ran.err.contains("\nhint: "),
        "{}",
        ran.err
    );
}

#[test]
fn a_project_without_a_dockerfile_is_told_how_to_begin_one() {
    let world = World::new();
    let project = world.repository("p", &[("a.txt", "x")]);
    let ran = world.ctl(&project, &["up"]);
    assert_eq!(ran.status, 2, "{}", ran.err);
    assert!(ran.err.contains("has no Dockerfile") && ran.err.contains("hint: vcodingctl init"), "{}", ran.err);
}

#[test]
fn the_home_directory_is_no_project() {
    let world = World::new();
    let home = world.project("home", &[("Dockerfile", "FROM debian:bookworm-slim\n")]);
    let ran = world.ctl(&home, &["up"]);
    assert_eq!(ran.status, 2, "{}", ran.err);
    assert!(ran.err.contains("home directory"), "{}", ran.err);
}

#[test]
fn every_mistake_of_vcoding_toml_names_its_line() {
    let world = World::new();
    let project = world.repository("p", &[("Dockerfile", "FROM x\n"), ("vcoding.toml", "[workspace]\nnam = \"x\"\n")]);
    let ran = world.ctl(&project, &["up"]);
    assert_eq!(ran.status, 2, "{}", ran.err);
    assert!(ran.err.contains("line 2") && ran.err.contains("nam"), "{}", ran.err);
    std::fs::write(project.join("vcoding.toml"), "[limits]\ncpuz = 1\npids = \"many\"\n[limit]\n").unwrap();
    let ran = world.ctl(&project, &["up"]);
    for part in
        ["line 2: unknown key cpuz; did you mean cpus?", "line 3: a whole number", "line 4: unknown key limit", "hint:"]
    {
        assert!(ran.status == 2 && ran.err.contains(part), "{part}: {}", ran.err);
    }
    std::fs::write(project.join("vcoding.toml"), "[limits]\nmemory = \"900g\"\n").unwrap();
    let ran = world.ctl(&project, &["up"]);
    assert_eq!(ran.status, 4, "{}", ran.err);
    assert!(ran.err.contains("memory"), "{}", ran.err);
}

#[test]
fn an_engine_that_is_not_there_is_said_with_what_to_type() {
    let world = World::new();
    world.configure(&format!("[engine]\nsocket = \"{}\"\n", world.path("none.sock").display()));
    let project = world.repository("p", &[("Dockerfile", "FROM debian:bookworm-slim\n")]);
    let ran = world.ctl(&project, &["up"]);
    assert_eq!(ran.status, 6, "{}", ran.err);
    assert!(ran.err.contains("none.sock") && ran.err.contains("hint: docker info"), "{}", ran.err);
    // It is listed as it is, and has a way out.
    let listed = world.json(&project, &["ls"]);
    assert_eq!(listed["workspaces"][0]["phase"], "broken");
}

#[test]
fn whoever_may_not_use_the_engine_is_told_how_to() {
    let Some(world) = World::of_ordinary_user("no permission for the engine") else { return };
    let world = world.out_of_the_group();
    let project = world.repository("p", &[("Dockerfile", "FROM debian:bookworm-slim\n")]);
    world.give(&project);
    let ran = world.ctl(&project, &["up"]);
    assert_eq!(ran.status, 6, "{}", ran.err);
    assert!(ran.err.contains("hint: sudo usermod -aG docker"), "{}", ran.err);
}

#[test]
fn a_repository_of_another_user_is_refused_before_any_work_is_done_there() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let Some(world) = World::with_engine("a repository of another user") else { return };
    let project = world.repository("shop", &SHOP);
    crate::world::output(std::process::Command::new("chown").args(["-R", "54321:54321"]).arg(&project));
    let ran = world.ctl(&project, &["up"]);
    assert_eq!(ran.status, 2, "{}", ran.err);
    assert!(!ran.err.contains("image") && ran.err.contains("of another user"), "{}", ran.err);
    let hint = format!("git config --global --add safe.directory {}", project.display());
    assert!(ran.err.contains(&hint), "{}", ran.err);
    std::fs::write(world.path("home/.gitconfig"), format!("[safe]\n\tdirectory = {}\n", project.display())).unwrap();
    world.ok(&project, &["up"]);
}

#[test]
fn a_project_inside_a_repository_is_refused_before_any_work_is_done_there() {
    let world = World::new();
    let outer = world.repository("mono", &[("services/api/Dockerfile", "FROM debian:bookworm-slim\n")]);
    let inner = outer.join("services/api");
    let ran = world.ctl(&inner, &["--project", ".", "up"]);
    assert_eq!(ran.status, 2, "{}", ran.err);
    assert!(ran.err.contains("inside the git repository") && ran.err.contains("--project"), "{}", ran.err);
    assert_eq!(world.json(&outer, &["ls"])["workspaces"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_guest_or_an_image_that_is_gone_is_said_and_mended_by_up() {
    let Some(world) = World::with_engine("a guest that is gone") else { return };
    let project = world.repository("shop", &[("Dockerfile", "FROM debian:bookworm-slim\nENV GONE=1\n"), ("a", "1\n")]);
    world.ok(&project, &["up"]);
    let docker = |args: &[&str]| crate::world::output(std::process::Command::new("docker").args(args));
    docker(&["kill", &world.container("shop")]);
    let listed = world.json(&project, &["ls"])["workspaces"][0].clone();
    assert_eq!((listed["phase"].as_str(), listed["problem"].as_str()), (Some("broken"), Some("its guest has ended")));
    assert_eq!(world.json(&project, &["show"])["wall"], serde_json::Value::Null);
    let doctor = world.ctl(&project, &["doctor"]).out;
    assert!(doctor.contains("✗ shop: its guest has ended") && doctor.contains("→ vcodingctl -w shop up"), "{doctor}");
    world.ok(&project, &["up"]);
    assert_eq!(world.json(&project, &["ls"])["workspaces"][0]["phase"], "ready");
    docker(&["rm", "-f", &world.container("shop")]);
    let ran = world.ctl(&project, &["exec", "--", "true"]);
    assert_eq!(ran.status, 125, "{}", ran.err);
    assert!(ran.err.contains("does not answer") && ran.err.contains("hint: vcodingctl up"), "{}", ran.err);
    world.ok(&project, &["up"]);
    assert_eq!(world.ok(&project, &["exec", "--", "cat", "a"]).out, "1\n");
    // The same with its image.
    world.ok(&project, &["stop"]);
    let image = world.json(&project, &["show"])["workspace"]["image"].as_str().unwrap().to_owned();
    docker(&["rm", "-f", &world.container("shop")]);
    docker(&["rmi", "-f", &image]);
    world.ok(&project, &["up"]);
    assert_eq!(world.ok(&project, &["exec", "--", "sh", "-c", "echo $GONE; cat a"]).out, "1\n1\n");
}

#[test]
fn paths_are_relative_to_where_they_are_typed_and_one_that_is_nowhere_is_refused() {
    let Some(world) = World::with_engine("paths") else { return };
    let project = world.repository("shop", &[SHOP[0], ("sub/a", "first\n"), ("b", "first\n")]);
    world.ok(&project, &["up"]);
    world.ok(&project, &["exec", "--", "sh", "-c", "echo second > sub/a; echo second > b"]);
    let sub = project.join("sub");
    let shown = world.ok(&sub, &["diff", "--", "a"]).out;
    assert!(shown.contains("sub/a") && !shown.contains("a/b"), "{shown}");
    let ran = world.ctl(&sub, &["rollback", "base", "--", "no-such"]);
    assert_eq!(ran.status, 3, "{}", ran.err);
    assert!(ran.err.contains("sub/no-such"), "{}", ran.err);
    world.ok(&sub, &["rollback", "base", "--", "a"]);
    assert_eq!(world.ok(&project, &["exec", "--", "cat", "sub/a", "b"]).out, "first\nsecond\n");
    world.ok(&sub, &["rollback", "base", "--", "../b"]);
    assert_eq!(world.ok(&project, &["exec", "--", "cat", "b"]).out, "first\n");
}

#[test]
fn a_build_that_fails_shows_the_step_and_its_output() {
    let Some(world) = World::with_engine("a failing build") else { return };
    let project =
        world.repository("p", &[("Dockerfile", "FROM debian:bookworm-slim\nRUN echo about-to-fail && exit 3\n")]);
    let ran = world.ctl(&project, &["up"]);
    assert_eq!(ran.status, 6, "{}", ran.err);
    assert!(ran.err.contains("about-to-fail") && ran.err.contains("exit 3"), "{}", ran.err);
    // Mended, the same command goes on.
    std::fs::write(project.join("Dockerfile"), SHOP[0].1).unwrap();
    world.ok(&project, &["up"]);
    world.ok(&project, &["exec", "--", "true"]);
}

#[test]
fn unknown_names_are_answered_with_what_there_is() {
    let world = World::new();
    let project = world.repository("p", &[("Dockerfile", "FROM x\n")]);
    let ran = world.ctl(&project, &["exec", "--", "true"]);
    assert_eq!(ran.status, 125, "{}", ran.err);
    assert!(ran.err.contains("hint: vcodingctl up"), "{}", ran.err);
    let ran = world.ctl(&project, &["-w", "nope", "show"]);
    assert_eq!(ran.status, 3, "{}", ran.err);
    assert!(ran.err.contains("nope") && ran.err.contains("vcodingctl ls"), "{}", ran.err);
    let ran = world.ctl(&project, &["chekpoint"]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("checkpoint"), "{}", ran.err);
}

#[test]
fn unknown_checkpoints_runs_and_agents_are_not_found() {
    let Some(world) = World::with_engine("unknown checkpoints") else { return };
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);
    for (args, word) in [
        (&["rollback", "no-such"][..], "no-such"),
        (&["diff", "deadbeef"][..], "deadbeef"),
        (&["logs", "01jd0000000000000000000000"][..], "01jd"),
        (&["run", "no-such-agent", "hello"][..], "no-such-agent"),
    ] {
        let ran = world.ctl(&project, args);
        assert_eq!(ran.status, 3, "{args:?}: {}", ran.err);
        assert!(ran.err.contains(word) && ran.err.contains("hint: "), "{args:?}: {}", ran.err);
    }
    // Without a key no agent is started.
    let ran = world.ctl(&project, &["run", "claude", "hello"]);
    assert_eq!(ran.status, 6, "{}", ran.err);
    assert!(ran.err.contains("ANTHROPIC_API_KEY") && ran.err.contains("vcodingctl secret set"), "{}", ran.err);
}

#[test]
fn a_branch_that_is_not_ours_is_left_alone() {
    let Some(world) = World::with_engine("a taken branch") else { return };
    let project = world.repository("shop", &SHOP);
    crate::world::git(&project, &["branch", "vcoding/shop"]);
    let theirs = crate::world::git(&project, &["rev-parse", "vcoding/shop"]);
    world.ok(&project, &["up"]);
    world.ok(&project, &["exec", "--", "sh", "-c", "echo x > new.txt"]);
    let ran = world.ctl(&project, &["apply"]);
    assert_eq!(ran.status, 5, "{}", ran.err);
    assert!(ran.err.contains("--branch"), "{}", ran.err);
    assert_eq!(crate::world::git(&project, &["rev-parse", "vcoding/shop"]), theirs);
    world.ok(&project, &["apply", "--branch", "mine"]);
}
