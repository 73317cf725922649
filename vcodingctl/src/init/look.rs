//! What a directory looks like, from the names in it and from its manifests: the wizard's defaults.

use std::io::Read;
use std::path::Path;

/// More names than this are not looked at.
const MAX_NAMES: usize = 2000;
/// Of a longer manifest this much is read.
const MAX_MANIFEST: u64 = 256 * 1024;

/// What is in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The names at its top and in `requirements/`, sorted.
    pub files: Vec<String>,
    pub language: &'static str,
    pub purpose: &'static str,
    /// What that was seen by.
    pub signs: Vec<String>,
    /// How its tests are run, if it has some.
    pub tests: Option<&'static str>,
}

/// A language, by the names that speak for it: manifests and lock files, and the endings of sources.
struct Signs {
    language: &'static str,
    manifests: &'static [&'static str],
    endings: &'static [&'static str],
}

const LANGUAGES: &[Signs] = &[
    Signs {
        language: "python",
        manifests: &[
            "pyproject.toml",
            "setup.py",
            "requirements.txt",
            "uv.lock",
            "poetry.lock",
            "Pipfile",
            "setup.cfg",
        ],
        endings: &[".py", ".ipynb"],
    },
    Signs {
        language: "node",
        manifests: &["package.json", "package-lock.json", "pnpm-lock.yaml", "yarn.lock", "tsconfig.json"],
        endings: &[".js", ".mjs", ".cjs", ".ts", ".tsx", ".jsx"],
    },
    Signs { language: "go", manifests: &["go.mod", "go.sum"], endings: &[".go"] },
    Signs { language: "rust", manifests: &["Cargo.toml", "Cargo.lock"], endings: &[".rs"] },
    Signs {
        language: "java",
        manifests: &["pom.xml", "build.gradle", "build.gradle.kts", "settings.gradle"],
        endings: &[".java", ".kt"],
    },
];
/// One manifest says more than any number of sources.
const MANIFEST_WEIGHT: usize = 10_000;

/// Directories that hold others' code.
const FOREIGN: &[&str] = &["node_modules", "target", "vendor", "venv", "dist", "build", "__pycache__"];

/// Words in a manifest that make a project a service, or one about data.
const SERVICES: &[&str] = &[
    "flask",
    "django",
    "fastapi",
    "starlette",
    "aiohttp",
    "express",
    "fastify",
    "koa",
    "next",
    "nuxt",
    "nestjs",
    "hono",
    "axum",
    "actix-web",
    "rocket",
    "warp",
    "gin-gonic",
    "echo",
    "fiber",
    "spring-boot",
    "quarkus",
    "micronaut",
];
const DATA: &[&str] =
    &["pandas", "numpy", "scikit-learn", "torch", "tensorflow", "jupyter", "jupyterlab", "polars", "pyspark", "dvc"];

/// Looks at a directory; what cannot be read is as if it were not there.
pub fn at(directory: &Path) -> Look {
    let files = names(directory);
    let mut all = files.clone();
    for name in &files {
        if !name.starts_with('.') && !FOREIGN.contains(&name.as_str()) && is_directory(&directory.join(name)) {
            all.extend(names(&directory.join(name)).into_iter().map(|below| format!("{name}/{below}")));
        }
        if all.len() > MAX_NAMES {
            break;
        }
    }
    let manifest = manifests(directory, &files);
    let mut look = of(files, &all, &manifest);
    look.files.extend(all.into_iter().filter(|name| name.starts_with("requirements/")));
    look.files.sort();
    look
}

fn of(files: Vec<String>, all: &[String], manifest: &str) -> Look {
    let has = |name: &str| files.iter().any(|file| file == name);
    let weight = |signs: &Signs| {
        let manifests = signs.manifests.iter().filter(|name| has(name)).count();
        let sources = all.iter().filter(|name| signs.endings.iter().any(|ending| name.ends_with(ending))).count();
        manifests * MANIFEST_WEIGHT + sources
    };
    // The first of several that weigh the same.
    let mut best: Option<(&Signs, usize)> = None;
    for signs in LANGUAGES {
        let weight = weight(signs);
        if weight > best.map_or(0, |(_, most)| most) {
            best = Some((signs, weight));
        }
    }
    let language = best.map_or("plain", |(signs, _)| signs.language);
    let mut seen: Vec<String> = Vec::new();
    if let Some((signs, _)) = best {
        seen.extend(signs.manifests.iter().filter(|name| has(name)).map(|name| (*name).to_owned()));
        if seen.is_empty() {
            let source = |name: &&String| signs.endings.iter().any(|ending| name.ends_with(ending));
            seen.extend(all.iter().find(source).cloned());
        }
    }
    let (purpose, sign) = purpose(&files, all, manifest, language);
    seen.extend(sign);
    Look { tests: tests(language, &files, all, manifest), files, language, purpose, signs: seen }
}

/// What it is for, and what else that was seen by.
fn purpose(files: &[String], all: &[String], manifest: &str, language: &str) -> (&'static str, Option<String>) {
    let has = |name: &str| files.iter().any(|file| file == name) || all.iter().any(|file| file == name);
    let word = |words: &[&'static str]| words.iter().copied().find(|word| mentions(manifest, word));
    if let Some(word) = word(DATA) {
        return ("data", Some(word.to_owned()));
    }
    if let Some(notebook) = all.iter().find(|name| name.ends_with(".ipynb")) {
        return ("data", Some(notebook.clone()));
    }
    if let Some(word) = word(SERVICES) {
        return ("web service", Some(word.to_owned()));
    }
    let library = match language {
        "rust" => has("src/lib.rs") && !has("src/main.rs") && !manifest.contains("[[bin]]"),
        "python" => has("pyproject.toml") && manifest.contains("build-system") && !manifest.contains("scripts]"),
        "node" => (manifest.contains("\"exports\"") || manifest.contains("\"main\"")) && !manifest.contains("\"bin\""),
        "go" => !has("main.go") && !has("cmd"),
        _ => false,
    };
    let named = |name: &str| library && has(name);
    let sign = ["src/lib.rs"].into_iter().find(|name| named(name)).map(str::to_owned);
    (if library { "library" } else { "application" }, sign)
}

/// Whether a manifest names this dependency: as a word of its own.
fn mentions(manifest: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let lower = manifest.to_ascii_lowercase();
    lower.match_indices(word).any(|(at, _)| {
        let before = lower[..at].chars().next_back().is_none_or(|c| !part(c));
        let after = lower[at + word.len()..].chars().next().is_none_or(|c| !part(c));
        before && after
    })
}

/// How its tests are run.
fn tests(language: &str, files: &[String], all: &[String], manifest: &str) -> Option<&'static str> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let any = |fits: &dyn Fn(&str) -> bool| all.iter().any(|name| fits(name.rsplit('/').next().unwrap_or(name)));
    match language {
        "python" => {
            let there = has("tests") || has("test") || any(&|name| name.starts_with("test_") && name.ends_with(".py"));
            there.then_some("python3 -m pytest")
        }
        "node" => manifest.contains("\"test\"").then_some("npm test"),
        "go" => any(&|name| name.ends_with("_test.go")).then_some("go test ./..."),
        "rust" => has("Cargo.toml").then_some("cargo test"),
        "java" if has("pom.xml") => Some("mvn test"),
        "java" if has("build.gradle") || has("build.gradle.kts") => Some("gradle test"),
        _ => None,
    }
}

/// The manifests' texts, one after the other.
fn manifests(directory: &Path, files: &[String]) -> String {
    const TOLD: &[&str] = &[
        "pyproject.toml",
        "requirements.txt",
        "setup.py",
        "Pipfile",
        "package.json",
        "go.mod",
        "Cargo.toml",
        "pom.xml",
        "build.gradle",
        "build.gradle.kts",
    ];
    let mut text = String::new();
    for name in TOLD.iter().filter(|name| files.iter().any(|file| file == **name)) {
        let mut bytes = Vec::new();
        let path = directory.join(name);
        // A fifo would never end.
        let plain = std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file());
        if plain
            && let Ok(file) = std::fs::File::open(&path)
            && file.take(MAX_MANIFEST).read_to_end(&mut bytes).is_ok()
        {
            text.push_str(&String::from_utf8_lossy(&bytes));
            text.push('\n');
        }
    }
    text
}

/// Without what is not UTF-8: no template can use that.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().take(MAX_NAMES);
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn is_directory(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(names: &[&str], manifest: &str) -> Look {
        let all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut top: Vec<String> = all.iter().map(|name| name.split('/').next().unwrap().to_owned()).collect();
        top.dedup();
        of(top, &all, manifest)
    }

    fn seen(names: &[&str], manifest: &str) -> (&'static str, &'static str, Option<&'static str>) {
        let look = look(names, manifest);
        (look.language, look.purpose, look.tests)
    }

    #[test]
    fn projects_are_known_by_their_manifests_and_sources() {
        let node = r#"{"scripts": {"test": "node --test"}, "dependencies": {"express": "^4"}}"#;
        let cases = [
            (
                seen(&["pyproject.toml", "src/a.py", "tests/test_a.py"], "[build-system]\n"),
                ("python", "library", Some("python3 -m pytest")),
            ),
            (seen(&["package.json", "server.js", "tools/x.py"], node), ("node", "web service", Some("npm test"))),
            (seen(&["Cargo.toml", "src/main.rs"], "[package]\n"), ("rust", "application", Some("cargo test"))),
            (seen(&["Cargo.toml", "src/lib.rs"], "[package]\n"), ("rust", "library", Some("cargo test"))),
            (seen(&["go.mod", "main.go", "main_test.go"], "module x\n"), ("go", "application", Some("go test ./..."))),
            (seen(&["build.gradle.kts"], ""), ("java", "application", Some("gradle test"))),
            (seen(&["a.ipynb", "requirements.txt"], "pandas==2\n"), ("python", "data", None)),
            (seen(&["Makefile", "main.c"], ""), ("plain", "application", None)),
            (seen(&[], ""), ("plain", "application", None)),
        ];
        for (seen, expected) in cases {
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_manifest_weighs_more_than_any_number_of_sources() {
        let scripts: Vec<String> = (0..100).map(|n| format!("tools/{n}.py")).collect();
        let mut names: Vec<&str> = scripts.iter().map(String::as_str).collect();
        names.push("go.mod");
        assert_eq!(look(&names, "").language, "go");
    }

    #[test]
    fn a_dependency_is_a_word_of_its_own() {
        assert!(mentions("flask==3\n", "flask") && mentions("\"next\": \"15\"", "next"));
        assert!(!mentions("flask-login-extras", "flask") && !mentions("context", "next"));
    }

    #[test]
    fn a_manifest_that_never_ends_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("package.json"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(at(dir.path()).language, "node");
    }
}
