//! What docs/scripting.md shows, run as it stands.

use std::process::{Command, Stdio};

use crate::world::{World, run};

/// The page's block in this language.
fn block(language: &str) -> String {
    let page = include_str!("../../../docs/scripting.md");
    let after = page.split_once(&format!("```{language}\n")).expect("the page has one").1;
    after.split_once("\n```").expect("it ends").0.to_owned()
}

#[test]
fn the_python_of_the_page_makes_a_guest_and_runs_a_command_in_it() {
    let Some(world) = World::with_engine("the page's Python") else { return };
    let project = world.repository("shop", &[("Dockerfile", "FROM debian:bookworm-slim\n")]);
    world.ok(&project, &["daemon", "start"]);
    let mut python = Command::new("python3");
    python
        .args(["-c", &block("python")])
        .current_dir(&project)
        .env("VCODING_STATE_DIR", world.state())
        .stdin(Stdio::null());
    let ran = run(python);
    assert!(ran.status == 0 && ran.out.starts_with("shop\nit ended with 0\n"), "{}{}", ran.out, ran.err);
    assert!(ran.out.trim_end().ends_with(" up"), "{}", ran.out);
}
