//! `cargo xtask images`: what `init` writes for each language, built on the published image, or, where that cannot be pulled, on
//! what can be made here.

#[path = "it/samples.rs"]
mod samples;
#[allow(dead_code, reason = "shared with the other end-to-end tests")]
#[path = "it/world.rs"]
mod world;

use std::path::Path;
use std::process::Command;

use samples::{NODE, PYTHON, Sample, a_project_of};

const GO: Sample = Sample {
    language: "go",
    packages: Some("ca-certificates golang-go"),
    finish: "true",
    files: &[
        ("go.mod", "module example.org/clock\n\ngo 1.19\n"),
        ("clock.go", "package clock\n\nfunc Minutes(hours int) int { return hours * 60 }\n"),
        (
            "clock_test.go",
            "package clock\n\nimport \"testing\"\n\nfunc TestAnHourHasSixty(t *testing.T) {\n\tif Minutes(1) != 60 {\n\t\tt.Fatal(Minutes(1))\n\t}\n}\n",
        ),
    ],
    tests: &["go", "test", "./..."],
    breaks: "sed -i 's/60/61/' clock.go",
};

const RUST: Sample = Sample {
    language: "rust",
    // The distribution has no rustup.
    packages: None,
    finish: "true",
    files: &[
        (
            "Cargo.toml",
            "[package]\nname = \"clock\"\nversion = \"1.0.0\"\nedition = \"2021\"\n\n[dependencies]\nitoa = \"1\"\n",
        ),
        (
            "src/lib.rs",
            "pub fn minutes(hours: u32) -> String {\n    itoa::Buffer::new().format(hours * 60).to_owned()\n}\n\n\
             #[test]\nfn an_hour_has_sixty() {\n    assert_eq!(minutes(1), \"60\");\n}\n",
        ),
    ],
    tests: &["cargo", "test"],
    breaks: "sed -i 's/ 60/ 61/' src/lib.rs",
};

const JAVA: Sample = Sample {
    language: "java",
    // The distribution's own Maven fetches from its own repository only.
    packages: None,
    finish: "true",
    files: &[
        (
            "pom.xml",
            "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n  <modelVersion>4.0.0</modelVersion>\n  <groupId>org.example</groupId>\n  \
             <artifactId>clock</artifactId>\n  <version>1</version>\n  <properties>\n    <maven.compiler.release>17</maven.compiler.release>\n    \
             <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>\n  </properties>\n  <dependencies>\n    <dependency>\n      \
             <groupId>junit</groupId>\n      <artifactId>junit</artifactId>\n      <version>4.13.2</version>\n      <scope>test</scope>\n    \
             </dependency>\n  </dependencies>\n</project>\n",
        ),
        (
            "src/main/java/Clock.java",
            "public class Clock {\n  static int minutes(int hours) { return hours * 60; }\n}\n",
        ),
        (
            "src/test/java/ClockTest.java",
            "public class ClockTest {\n  @org.junit.Test\n  public void anHourHasSixty() { org.junit.Assert.assertEquals(60, Clock.minutes(1)); }\n}\n",
        ),
    ],
    tests: &["mvn", "test"],
    breaks: "sed -i 's/60/61/' src/main/java/Clock.java",
};

const PLAIN: Sample = Sample {
    language: "plain",
    packages: Some("ca-certificates"),
    finish: "true",
    files: &[("Makefile", "test:\n\ttest $$((1 * 60)) = 60\n")],
    tests: &["make", "test"],
    breaks: "sed -i 's/1 \\* 60/1 * 61/' Makefile",
};

/// The published image that the Dockerfile names, where it is here or can be pulled.
fn published(project: &Path) -> bool {
    let text = std::fs::read_to_string(project.join("Dockerfile")).unwrap();
    let from = text.lines().find_map(|line| line.strip_prefix("FROM ")).unwrap();
    let succeeds = |args: &[&str]| Command::new("docker").args(args).output().is_ok_and(|done| done.status.success());
    succeeds(&["image", "inspect", from]) || succeeds(&["pull", "-q", from])
}

fn built(sample: &Sample) {
    a_project_of(sample, published);
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
