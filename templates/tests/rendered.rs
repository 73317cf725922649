//! Every built-in template for every purpose and every way of naming dependencies, as it is rendered. `SNAPSHOTS=write cargo
//! test -p templates` writes the stored ones anew; `git diff` shows what changed.

use std::path::Path;

use templates::{LANGUAGES, PURPOSES, Project, Template, Value, given};

fn project(language: &str, purpose: &str, files: &[&str]) -> Project {
    Project {
        name: "shop".into(),
        language: language.into(),
        purpose: purpose.into(),
        agent: "claude".into(),
        files: files.iter().map(|file| (*file).to_owned()).collect(),
        ..Project::default()
    }
}

fn rendered(project: Project) -> String {
    let template = Template::built_in(&project.language).unwrap();
    let mut variables = given(project);
    for question in &template.questions {
        let answer = template.default_of(question, &variables).unwrap();
        variables.set(&question.name, Value::Text(answer));
    }
    let files = template.render(&variables).unwrap();
    files.iter().map(|file| format!("──── {}\n{}", file.path, file.text)).collect()
}

fn compare(name: &str, seen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("SNAPSHOTS").is_some_and(|v| v == "write") {
        std::fs::write(&path, seen).unwrap();
        return;
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == seen, "{} differs; SNAPSHOTS=write accepts what was seen:\n{seen}", path.display());
}

#[test]
fn every_language_for_every_purpose() {
    for language in LANGUAGES {
        for purpose in PURPOSES {
            compare(&format!("{language}-{}", purpose.replace(' ', "-")), &rendered(project(language, purpose, &[])));
        }
    }
}

#[test]
fn every_way_of_naming_dependencies() {
    let ways: &[(&str, &str, &[&str])] = &[
        ("python", "uv", &["pyproject.toml", "src", "uv.lock"]),
        ("python", "poetry", &["poetry.lock", "pyproject.toml"]),
        ("python", "pipenv", &["Pipfile", "Pipfile.lock"]),
        ("python", "requirements", &["requirements-dev.txt", "requirements.txt", "requirements; rm -rf $HOME.txt"]),
        ("python", "pyproject", &["pyproject.toml", "src"]),
        ("python", "directory", &["pyproject.toml", "requirements/docs.txt", "requirements/tests.txt", "src"]),
        ("node", "npm", &["package-lock.json", "package.json"]),
        ("node", "no-lock", &["package.json"]),
        ("node", "pnpm", &["package.json", "pnpm-lock.yaml"]),
        ("node", "yarn", &["package.json", "yarn.lock"]),
        ("go", "modules", &["go.mod", "go.sum"]),
        ("rust", "cargo", &["Cargo.lock", "Cargo.toml"]),
        ("java", "maven", &["pom.xml"]),
        ("java", "gradle", &["build.gradle.kts"]),
    ];
    for (language, way, files) in ways {
        compare(&format!("{language}-by-{way}"), &rendered(project(language, "application", files)));
    }
}

#[test]
fn what_a_manifest_says_of_its_package_manager_and_of_its_own_modules() {
    let by = |package_manager: &str, files: &[&str]| {
        let mut project = project("node", "application", files);
        project.package_manager = package_manager.into();
        rendered(project)
    };
    compare("node-by-pnpm-of-a-version", &by("pnpm@9.15.4", &["package.json", "pnpm-lock.yaml"]));
    compare("node-by-yarn-of-today", &by("yarn@4.5.3", &[".yarn/patches", ".yarnrc.yml", "package.json", "yarn.lock"]));
    compare("node-by-yarn-of-a-version", &by("yarn@1.22.22", &["package.json", "yarn.lock"]));
    let mut own = project("go", "application", &["go.mod", "go.sum"]);
    own.local_modules = vec!["./money".into()];
    compare("go-by-modules-of-its-own", &rendered(own));
}

/// A Dockerfile of ours is one: instructions only, no continuation that leads nowhere, nothing left of the template.
#[test]
fn what_is_rendered_is_a_dockerfile() {
    for language in LANGUAGES {
        for purpose in PURPOSES {
            for files in [&[][..], &["package.json", "pyproject.toml", "go.mod", "Cargo.toml", "pom.xml"]] {
                let text = rendered(project(language, purpose, files));
                let dockerfile = text.split("──── ").find_map(|file| file.strip_prefix("Dockerfile\n")).unwrap();
                assert!(!text.contains("{{") && !text.contains("{%"), "{text}");
                let mut continued = false;
                for line in dockerfile.lines() {
                    let first = line.split(' ').next().unwrap();
                    let instruction = ["FROM", "RUN", "COPY", "ENV", "WORKDIR"].contains(&first);
                    let fine = if continued {
                        line.starts_with(' ')
                    } else {
                        instruction || line.is_empty() || first.starts_with('#')
                    };
                    assert!(fine, "{language}, {purpose}: {line:?}");
                    continued = line.ends_with('\\');
                }
                assert!(!continued && dockerfile.contains("\nFROM "), "{dockerfile}");
            }
        }
    }
}
