//! What `init` writes, built and used: a small project of each language, its dependencies from their registry, its own tests.
//!
//! The Dockerfiles name the languages' published images. A test must not hang on a registry of images, so it builds on one of the
//! same tools that is made here of the distribution's packages, and puts its name into the `FROM` line; nothing else is changed.
//!
//! Two languages are always built. `cargo xtask images` builds all six, on the published images where these can be pulled.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::world::World;

/// A project as somebody has it who has just heard of vcoding.
pub struct Sample {
    language: &'static str,
    /// The packages that stand for the published image, if there are such.
    packages: Option<&'static str>,
    /// What makes them like it.
    finish: &'static str,
    files: &'static [(&'static str, &'static str)],
    tests: &'static [&'static str],
    /// A shell's line after which they fail, if it is the work tree that is tested and not an installed copy.
    breaks: &'static str,
}

#[allow(dead_code, reason = "one of the two programs that share this has it")]
pub const PYTHON: Sample = Sample {
    language: "python",
    packages: Some("python3 python3-pip python-is-python3"),
    finish: "rm -f /usr/lib/python3*/EXTERNALLY-MANAGED",
    files: &[
        (
            "pyproject.toml",
            "[build-system]\nrequires = [\"hatchling\"]\nbuild-backend = \"hatchling.build\"\n\n[project]\nname = \"seal\"\nversion = \"1\"\n\
             dependencies = [\"itsdangerous>=2\"]\n",
        ),
        (
            "src/seal/__init__.py",
            "from itsdangerous import Signer\n\n\ndef seal(text):\n    return Signer('key').sign(text).decode()\n",
        ),
        (
            "tests/test_seal.py",
            "from itsdangerous import Signer\nfrom seal import seal\n\n\ndef test_a_seal_holds():\n    assert Signer('key').unsign(seal('x')) == b'x'\n",
        ),
    ],
    tests: &["python3", "-m", "pytest", "-q"],
    breaks: "sed -i 's/.key./\"other\"/' src/seal/__init__.py",
};

#[allow(dead_code, reason = "one of the two programs that share this has it")]
pub const NODE: Sample = Sample {
    language: "node",
    packages: Some("nodejs npm"),
    finish: "true",
    files: &[
        (
            "package.json",
            "{\n  \"name\": \"clock\", \"version\": \"1.0.0\", \"private\": true,\n  \"scripts\": { \"test\": \"node --test\", \"prepare\": \"exit 1\" },\n  \
             \"dependencies\": { \"ms\": \"2.1.3\" }\n}\n",
        ),
        ("clock.js", "const ms = require('ms');\nexports.minutes = (text) => ms(text) / 60000;\n"),
        (
            "clock.test.js",
            "const test = require('node:test');\nconst assert = require('node:assert');\nconst { minutes } = require('./clock');\n\
             test('an hour has sixty', () => assert.equal(minutes('1h'), 60));\n",
        ),
    ],
    tests: &["npm", "test"],
    breaks: "sed -i 's/60000/1000/' clock.js",
};

#[allow(dead_code, reason = "one of the two programs that share this has it")]
pub const GO: Sample = Sample {
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

#[allow(dead_code, reason = "one of the two programs that share this has it")]
pub const RUST: Sample = Sample {
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

#[allow(dead_code, reason = "one of the two programs that share this has it")]
pub const JAVA: Sample = Sample {
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

#[allow(dead_code, reason = "one of the two programs that share this has it")]
pub const PLAIN: Sample = Sample {
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

/// The tools of a published image, from the distribution's packages; its name.
fn stand_in(language: &str, packages: &str, finish: &str) -> String {
    let name = format!("vcoding-dev/{language}:bookworm");
    let dockerfile = format!(
        "FROM debian:bookworm-slim\nRUN apt-get update && apt-get install -y --no-install-recommends {packages} && {finish} && rm -rf /var/lib/apt/lists/*\n",
    );
    let mut build = Command::new("docker");
    build.args(["build", "-q", "-t", &name, "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = build.spawn().unwrap();
    child.stdin.take().unwrap().write_all(dockerfile.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    name
}

fn build_on(project: &Path, base: &str) {
    let path = project.join("Dockerfile");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines =
        text.lines().map(|line| if line.starts_with("FROM ") { format!("FROM {base}") } else { line.to_owned() });
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
}

/// Which images a project is built on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// What can be made here.
    Made,
    /// The published image, where it is here or can be pulled.
    #[allow(dead_code, reason = "one of the two programs that share this has it")]
    Published,
}

pub fn a_project_of(sample: &Sample, base: Base) {
    let Some(world) = World::with_engine(sample.language) else { return };
    let project = world.repository("sample", sample.files);
    let made = world.json(&project, &["init", "--yes"]);
    assert_eq!(made["answers"]["language"], sample.language, "{made}");
    if base == Base::Made || !published(&project) {
        let Some(packages) = sample.packages else {
            let _told = writeln!(
                std::io::stderr(),
                "skipped: {}: its image can be neither pulled nor made here",
                sample.language
            );
            return;
        };
        build_on(&project, &stand_in(sample.language, packages, sample.finish));
    }
    world.ok(&project, &["up"]);
    let tests = [&["exec", "--"], sample.tests].concat();
    world.ok(&project, &tests);
    // It is the work tree that is tested.
    world.ok(&project, &["exec", "--", "sh", "-c", sample.breaks]);
    let ran = world.ctl(&project, &tests);
    assert_ne!(ran.status, 0, "{}{}", ran.out, ran.err);
}
