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
    /// The names at its top, in `requirements/` and in `.yarn/`, sorted.
    pub files: Vec<String>,
    pub language: &'static str,
    pub purpose: &'static str,
    /// What that was seen by.
    pub signs: Vec<String>,
    /// How its tests are run, if it has some.
    pub tests: Option<&'static str>,
    /// `NAME@VERSION` as package.json has it; empty if it has none.
    pub package_manager: String,
    /// The directories of the project that go.mod has modules replaced by.
    pub local_modules: Vec<String>,
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
    look.files.extend(names(&directory.join(".yarn")).into_iter().map(|name| format!(".yarn/{name}")));
    look.files.sort();
    look.package_manager = package_manager(&text_of(&directory.join("package.json"))).unwrap_or_default();
    look.local_modules = local_modules(&text_of(&directory.join("go.mod")));
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
    let tests = tests(language, &files, all, manifest);
    Look { tests, files, language, purpose, signs: seen, ..Look::default() }
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
    let there = TOLD.iter().filter(|name| files.iter().any(|file| file == **name));
    there.map(|name| text_of(&directory.join(name)) + "\n").collect()
}

/// Of a regular file; empty for anything else.
fn text_of(path: &Path) -> String {
    // A fifo would never end.
    let plain = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
    let mut bytes = Vec::new();
    if plain && let Ok(file) = std::fs::File::open(path) {
        let _what_could_be_read = file.take(MAX_MANIFEST).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `packageManager` of package.json without its checksum, if it can stand in a Dockerfile as it is.
fn package_manager(manifest: &str) -> Option<String> {
    let manifest: serde_json::Value = serde_json::from_str(manifest).ok()?;
    let named = manifest.get("packageManager")?.as_str()?;
    let (name, version) = named.split('+').next()?.split_once('@')?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    (plain(name) && plain(version) && version.starts_with(|c: char| c.is_ascii_digit()))
        .then(|| format!("{name}@{version}"))
}

/// What go.mod has behind `=>` that is a directory here. What lies outside is in no copy of the project.
fn local_modules(manifest: &str) -> Vec<String> {
    let replaced = manifest.lines().filter_map(|line| line.split("//").next()?.split_once("=>"));
    replaced
        .map(|(_, by)| by.trim())
        .filter(|by| by.starts_with("./") && !by.split('/').any(|part| part == ".."))
        .map(str::to_owned)
        .collect()
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
    fn a_package_manager_is_taken_with_its_version_where_a_dockerfile_can_have_it() {
        let of = |named: &str| package_manager(&format!("{{\"packageManager\": {named}}}"));
        assert_eq!(of("\"pnpm@9.15.4+sha512.abc\""), Some("pnpm@9.15.4".into()));
        assert_eq!(of("\"yarn@4.5.3\""), Some("yarn@4.5.3".into()));
        for other in ["\"pnpm\"", "\"pnpm@\"", "\"pnpm@latest\"", "\"pnpm@9; rm -rf ~\"", "\"@9\"", "9", "{}"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(package_manager("no json"), None);
    }

    #[test]
    fn modules_that_lie_in_the_project_are_told_from_those_elsewhere() {
        let manifest = "module x\n\nreplace example.org/a => ./a\nreplace (\n\texample.org/b v1 => ./lib/b // ours\n\
                        \texample.org/c => ../c\n\texample.org/g => ./../g\n\texample.org/d => example.org/e v1.0.0\n)\n// replace f => ./f\n";
        assert_eq!(local_modules(manifest), ["./a", "./lib/b"]);
    }

    #[test]
    fn a_manifest_that_never_ends_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("package.json"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(at(dir.path()).language, "node");
    }
}
