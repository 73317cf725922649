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
    pub language: &'static str,
    /// The packages that stand for the published image, if there are such.
    pub packages: Option<&'static str>,
    /// Lines of a Dockerfile that make them like it.
    pub lines: &'static str,
    pub files: &'static [(&'static str, &'static str)],
    pub tests: &'static [&'static str],
    /// A shell's line after which they fail, if it is the work tree that is tested and not an installed copy.
    pub breaks: &'static str,
}

pub const PYTHON: Sample = Sample {
    language: "python",
    packages: Some("python3 python3-pip python-is-python3"),
    lines: "RUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED\n",
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

pub const NODE: Sample = Sample {
    language: "node",
    packages: Some("nodejs npm"),
    lines: "",
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

/// The tools of a published image, from the distribution's packages; its name.
fn stand_in(language: &str, packages: &str, lines: &str) -> String {
    let name = format!("vcoding-dev/{language}:bookworm");
    let dockerfile = format!(
        "FROM debian:bookworm-slim\nRUN apt-get update && apt-get install -y --no-install-recommends {packages} && rm -rf /var/lib/apt/lists/*\n{lines}",
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

/// A project from `init` to its tests; `as_it_is` says whether the image that its Dockerfile names is there.
pub fn a_project_of(sample: &Sample, as_it_is: impl FnOnce(&Path) -> bool) {
    let Some(world) = World::with_engine(sample.language) else { return };
    let project = world.repository("sample", sample.files);
    let made = world.json(&project, &["init", "--yes"]);
    assert_eq!(made["answers"]["language"], sample.language, "{made}");
    if !as_it_is(&project) {
        let Some(packages) = sample.packages else {
            let _told = writeln!(
                std::io::stderr(),
                "skipped: {}: its image can be neither pulled nor made here",
                sample.language
            );
            return;
        };
        build_on(&project, &stand_in(sample.language, packages, sample.lines));
    }
    world.ok(&project, &["up"]);
    let tests = [&["exec", "--"], sample.tests].concat();
    world.ok(&project, &tests);
    // It is the work tree that is tested.
    world.ok(&project, &["exec", "--", "sh", "-c", sample.breaks]);
    let ran = world.ctl(&project, &tests);
    assert_ne!(ran.status, 0, "{}{}", ran.out, ran.err);
}
