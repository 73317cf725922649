//! `cargo xtask images`: what `init` writes for each language, built on the published image, or, where that cannot be pulled, on
//! what can be made here.

#[path = "it/samples.rs"]
mod samples;
#[allow(dead_code, reason = "shared with the other end-to-end tests")]
#[path = "it/world.rs"]
mod world;

use samples::{Base, GO, JAVA, NODE, PLAIN, PYTHON, RUST, Sample, a_project_of};

fn built(sample: &Sample) {
    a_project_of(sample, Base::Published);
}

#[test]
fn python() {
    built(&PYTHON);
}

#[test]
fn node() {
    built(&NODE);
}

#[test]
fn go() {
    built(&GO);
}

#[test]
fn rust() {
    built(&RUST);
}

#[test]
fn java() {
    built(&JAVA);
}

#[test]
fn plain() {
    built(&PLAIN);
}
