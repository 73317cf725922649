//! A template: its questions, and the files it makes.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::render::{self, Value, Variables};
use crate::{LANGUAGES, built_in};

/// The file that makes a directory a template.
const MANIFEST: &str = "template.toml";
/// A template of more files, or with a longer one, is refused.
const MAX_FILES: usize = 200;
const MAX_BYTES: u64 = 1 << 20;
/// How deep its directories may be.
const MAX_DEPTH: usize = 16;

/// What is wrong with a template.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} is no template: it has no {MANIFEST}", .path.display())]
    NoTemplate { path: PathBuf },
    #[error("there is no template {name:?}; there are {}", LANGUAGES.join(", "))]
    Unknown { name: String },
    /// The parser's message names the line.
    #[error("{file}: {why}")]
    Mistake { file: String, why: String },
    /// A name that neither a question nor the project answers.
    #[error("{file} uses the unknown variable {name}; there are {}", .known.join(", "))]
    UnknownVariable { file: String, name: String, known: Vec<String> },
    #[error("{file}: {name:?} is no path below the project")]
    BadPath { file: String, name: String },
    #[error("it is too large: at most {MAX_FILES} files of {MAX_BYTES} bytes each, {MAX_DEPTH} directories deep")]
    TooLarge,
}

/// Files with variables, and questions for those that the project does not answer.
#[derive(Debug, Clone)]
pub struct Template {
    /// As people call it.
    pub title: String,
    pub questions: Vec<Question>,
    files: Vec<File>,
}

/// A path relative to the project, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub path: String,
    pub text: String,
    pub executable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The variable that holds the answer.
    pub name: String,
    pub ask: String,
    /// If there are some, the answer is one of them, the first by default.
    #[serde(default)]
    pub choices: Vec<String>,
    /// May use variables that are answered before.
    #[serde(default)]
    pub default: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    title: String,
    #[serde(default)]
    questions: Vec<Question>,
}

impl Template {
    /// The built-in template of a language.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub fn built_in(language: &str) -> Result<Self, Error> {
        let own = built_in::files(language).ok_or_else(|| Error::Unknown { name: language.to_owned() })?;
        let all = own.iter().chain(built_in::COMMON);
        let files =
            all.map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned(), executable: false });
        Self::of(Path::new(language), files.collect())
    }

    /// A user's own, in a directory.
    ///
    /// # Errors
    /// Everything but [`Error::Unknown`]. What uses a variable that nothing answers is found here, before anybody is asked.
    pub fn read(directory: &Path) -> Result<Self, Error> {
        let mut files = Vec::new();
        collect(directory, Path::new(""), 0, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self::of(directory, files)
    }

    fn of(place: &Path, mut files: Vec<File>) -> Result<Self, Error> {
        let at = files
            .iter()
            .position(|file| file.path == MANIFEST)
            .ok_or_else(|| Error::NoTemplate { path: place.to_owned() })?;
        let manifest = files.remove(at);
        let mistake = |why: String| Error::Mistake { file: MANIFEST.to_owned(), why };
        let Manifest { title, questions } = toml::from_str(&manifest.text).map_err(|e| mistake(e.to_string()))?;
        for (n, question) in questions.iter().enumerate() {
            let name = &question.name;
            let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if !plain || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
                return Err(mistake(format!("{name:?} is not a variable's name: a-z, 0-9 and _, a letter first")));
            }
            if render::GIVEN.contains(&name.as_str()) || questions[..n].iter().any(|other| other.name == *name) {
                return Err(mistake(format!("{name} is answered already")));
            }
        }
        let template = Self { title, questions, files };
        template.check()?;
        Ok(template)
    }

    /// Every name that a file uses is known.
    fn check(&self) -> Result<(), Error> {
        let mut known: Vec<String> = render::GIVEN.iter().map(|name| (*name).to_owned()).collect();
        for question in &self.questions {
            render::check(MANIFEST, &question.default, &known)?;
            known.push(question.name.clone());
        }
        for file in &self.files {
            render::check(&file.path, &file.path, &known)?;
            render::check(&file.path, &file.text, &known)?;
        }
        Ok(())
    }

    /// What a question is answered with if nobody answers it.
    ///
    /// # Errors
    /// [`Error::Mistake`] for a default that cannot be rendered.
    pub fn default_of(&self, question: &Question, variables: &Variables) -> Result<String, Error> {
        if question.default.is_empty() {
            return Ok(question.choices.first().cloned().unwrap_or_default());
        }
        render::text(MANIFEST, &question.default, variables)
    }

    /// Its files with everything answered, sorted by path; what renders to a name that is empty is left out.
    ///
    /// # Errors
    /// [`Error::Mistake`], [`Error::BadPath`].
    pub fn render(&self, variables: &Variables) -> Result<Vec<File>, Error> {
        let mut rendered = Vec::new();
        for file in &self.files {
            let path = render::text(&file.path, &file.path, variables)?;
            if path.trim().is_empty() {
                continue;
            }
            let plain = Path::new(&path).components().all(|part| matches!(part, Component::Normal(_)));
            let of_git = path.split('/').any(|part| part.eq_ignore_ascii_case(".git"));
            if !plain || of_git || path.contains(['\0', '\n']) {
                return Err(Error::BadPath { file: file.path.clone(), name: path });
            }
            let text = tidy(&render::text(&file.path, &file.text, variables)?);
            rendered.push(File { path, text, executable: file.executable });
        }
        rendered.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(rendered)
    }
}

/// Blocks that were left out leave no more than one empty line behind.
fn tidy(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim_end) {
        if !(line.is_empty() && lines.last().is_none_or(|last| last.is_empty())) {
            lines.push(line);
        }
    }
    while lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    lines.join("\n") + "\n"
}

/// The regular files beneath `directory`; links are not followed.
fn collect(directory: &Path, below: &Path, depth: usize, files: &mut Vec<File>) -> Result<(), Error> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Unreadable { path, source }
    };
    let here = directory.join(below);
    for entry in std::fs::read_dir(&here).map_err(unreadable(&here))? {
        let entry = entry.map_err(unreadable(&here))?;
        let path = below.join(entry.file_name());
        let kind = entry.file_type().map_err(unreadable(&entry.path()))?;
        if kind.is_dir() && entry.file_name() != ".git" {
            if depth >= MAX_DEPTH {
                return Err(Error::TooLarge);
            }
            collect(directory, &path, depth + 1, files)?;
        } else if kind.is_file() {
            let mut text = String::new();
            let file = std::fs::File::open(entry.path()).map_err(unreadable(&entry.path()))?;
            file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable(&entry.path()))?;
            if text.len() as u64 > MAX_BYTES || files.len() >= MAX_FILES {
                return Err(Error::TooLarge);
            }
            let executable = entry.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o100 != 0);
            files.push(File { path: path.to_string_lossy().into_owned(), text, executable });
        }
    }
    Ok(())
}

/// What a project says of itself.
#[derive(Debug, Clone, Default)]
pub struct Project {
    /// The workspace's.
    pub name: String,
    pub language: String,
    pub purpose: String,
    pub agent: String,
    /// The names at its top, and those in `requirements/` and `.yarn/`.
    pub files: Vec<String>,
    /// `NAME@VERSION` of package.json; empty if it names none.
    pub package_manager: String,
    /// The directories below the project that go.mod has modules replaced by.
    pub local_modules: Vec<String>,
}

/// The variables that a project answers by itself.
#[must_use]
pub fn given(project: Project) -> Variables {
    let requirements = project.files.iter().filter(|file| is_requirements(file)).cloned().collect();
    let mut variables = Variables::default();
    variables.set("name", Value::Text(project.name));
    variables.set("language", Value::Text(project.language));
    variables.set("purpose", Value::Text(project.purpose));
    variables.set("agent", Value::Text(project.agent));
    variables.set("files", Value::List(project.files));
    variables.set("requirements", Value::List(requirements));
    variables.set("package_manager", Value::Text(project.package_manager));
    variables.set("local_modules", Value::List(project.local_modules));
    variables
}

/// pip's lists, at the top or in a directory of their own; those for documentation and releases are left alone.
fn is_requirements(file: &str) -> bool {
    const IN_DIRECTORY: &[&str] = &["base", "main", "requirements", "test", "tests", "testing"];
    if let Some(name) = file.strip_prefix("requirements/") {
        return name.strip_suffix(".txt").is_some_and(|name| IN_DIRECTORY.contains(&name));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    file.starts_with("requirements") && file.ends_with(".txt") && file.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PURPOSES;

    fn template(files: &[(&str, &str)]) -> Result<Template, Error> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Template::read(dir.path())
    }

    fn project() -> Variables {
        given(Project {
            name: "shop".into(),
            language: "python".into(),
            purpose: PURPOSES[0].into(),
            files: vec!["requirements.txt".into()],
            ..Project::default()
        })
    }

    #[test]
    fn names_and_contents_of_a_users_own_are_rendered() {
        let template = template(&[
            ("template.toml", "title = \"Ours\"\n[[questions]]\nname = \"team\"\nask = \"Which team?\"\ndefault = \"{{ name }}-team\"\n"),
            ("Dockerfile", "FROM debian\n{% if requirements %}RUN pip\n{% endif %}\n\n\nUSER {{ team }}\n\n"),
            ("ci/{{ team }}.yml", "on: push\n"),
            ("{% if purpose == \"data\" %}data.md{% endif %}", "data\n"),
        ])
        .unwrap();
        let mut variables = project();
        let answer = template.default_of(&template.questions[0], &variables).unwrap();
        assert_eq!(answer, "shop-team");
        variables.set("team", Value::Text(answer));
        let files = template.render(&variables).unwrap();
        let files: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect();
        assert_eq!(
            files,
            [("Dockerfile", "FROM debian\nRUN pip\n\nUSER shop-team\n"), ("ci/shop-team.yml", "on: push\n")]
        );
    }

    #[test]
    fn an_unknown_variable_is_named_with_its_file_before_anybody_is_asked() {
        let said = |files: &[(&str, &str)]| template(files).unwrap_err().to_string();
        let text = said(&[("template.toml", "title = \"x\"\n"), ("Dockerfile", "FROM {{ bass }}\n")]);
        assert!(text.starts_with("Dockerfile uses the unknown variable bass; there are name, language"), "{text}");
        let text = said(&[("template.toml", "title = \"x\"\n"), ("{{ nam }}", "")]);
        assert!(text.contains("unknown variable nam"), "{text}");
        // A default may use what is answered before it, not after.
        let text = said(&[(
            "template.toml",
            "title = \"x\"\n[[questions]]\nname = \"a\"\nask = \"?\"\ndefault = \"{{ b }}\"\n[[questions]]\nname = \"b\"\nask = \"?\"\n",
        )]);
        assert!(text.contains("unknown variable b"), "{text}");
    }

    #[test]
    fn mistakes_are_named() {
        let of = |files: &[(&str, &str)]| template(files).unwrap_err();
        assert!(matches!(of(&[("Dockerfile", "FROM x\n")]), Error::NoTemplate { .. }));
        let broken = of(&[("template.toml", "title = \"x\"\n"), ("Dockerfile", "FROM x\n{% if %}\n")]).to_string();
        assert!(broken.starts_with("Dockerfile: line 2: "), "{broken}");
        let twice = "title = \"x\"\n[[questions]]\nname = \"agent\"\nask = \"?\"\n";
        assert!(of(&[("template.toml", twice)]).to_string().contains("agent is answered already"));
        assert!(matches!(Template::built_in("cobol"), Err(Error::Unknown { .. })));
    }

    #[test]
    fn nothing_is_written_outside_of_the_project() {
        for name in ["../x", "/etc/x", "a/../../x", ".", ".git/hooks/x", "a/.GIT/config"] {
            let template = template(&[
                ("template.toml", "title = \"x\"\n[[questions]]\nname = \"at\"\nask = \"?\"\n"),
                ("{{ at }}", "text"),
            ])
            .unwrap();
            let mut variables = project();
            variables.set("at", Value::Text(name.to_owned()));
            assert!(matches!(template.render(&variables), Err(Error::BadPath { .. })), "{name}");
        }
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("template.toml"), "title = \"x\"\n").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("passwd")).unwrap();
        assert!(Template::read(dir.path()).unwrap().render(&project()).unwrap().is_empty());
    }
}
