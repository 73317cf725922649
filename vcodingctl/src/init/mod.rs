//! The wizard: looks at a directory, asks what it cannot know, writes what is missing.

mod look;
mod write;

use std::path::{Path, PathBuf};

use client::Places;
use protocol::{Error, Kind, WorkspaceName};
use serde::Serialize;
use templates::{LANGUAGES, PURPOSES, Project, Question, Template, Value, Variables};

use crate::args::Init;
use crate::ask;
use crate::command::{Outcome, Session};
use crate::printer::Printer;
use crate::render::ink::Style;
use crate::render::text::{counted, one_line, width};
use write::{Plan, State};

/// How often a question is asked before its default is taken.
const TRIES: usize = 3;

pub fn run(args: &Init, session: &Session, printer: &Printer) -> Outcome {
    let made = make(args, session, printer)?;
    if printer.json {
        printer.document(&made);
        return Ok(0);
    }
    if made.files.iter().all(|plan| plan.state == State::Kept) {
        printer.line("nothing to write: all of it is there");
    }
    let tests = made.tests.map(|command| format!("vcodingctl exec -- {command}"));
    let mut next = Vec::new();
    if made.files.iter().any(|plan| plan.state != State::Kept) {
        next.push(("git add -A && git commit -m \"for vcoding\"", "git merges only over what is committed"));
    }
    next.push(("vcodingctl up", "make the guest"));
    if let Some(tests) = &tests {
        next.push((tests, "run the tests in it"));
    }
    printer.next_of(&next);
    Ok(0)
}

fn make(args: &Init, session: &Session, printer: &Printer) -> Result<Made, Error> {
    let wizard = Wizard { args, printer, asks: !args.yes && ask::possible(printer) };
    wizard.make(&directory(session)?, &session.places)
}

/// Where a command lacks what this writes: says so, and does it if it may. False where nobody is asked, or said no.
pub fn offered(lacking: &Error, session: &Session, printer: &Printer) -> Result<bool, Error> {
    if !ask::possible(printer) || directory(session).is_err() {
        return Ok(false);
    }
    printer.say(&one_line(&lacking.message));
    if !ask::yes_by_default(printer, "Have it written now, as `vcodingctl init` does?")? {
        return Ok(false);
    }
    make(&Init::default(), session, printer).map(|_| true)
}

/// Where a project has, or would have, its files.
fn directory(session: &Session) -> Result<PathBuf, Error> {
    let found = session.project();
    let directory = match found {
        Ok(found) => found,
        // No project yet is what this command is for.
        Err(error) if error.kind() == Kind::NoProject && !session.names_project() => {
            std::env::current_dir().and_then(|here| here.canonicalize()).map_err(|e| {
                Error::new(Kind::NoProject, format!("the current directory: {e}")).hint("cd to your project")
            })?
        }
        Err(error) => return Err(error),
    };
    let home = std::env::var_os("HOME").map(PathBuf::from).and_then(|home| home.canonicalize().ok());
    if directory == Path::new("/") || Some(&directory) == home.as_ref() {
        let why = format!("{} is no project's directory", directory.display());
        return Err(Error::new(Kind::UnsuitableProject, why).hint("mkdir NAME && cd NAME && vcodingctl init"));
    }
    Ok(directory)
}

/// What was made, for programs.
#[derive(Debug, Serialize)]
struct Made {
    project: PathBuf,
    answers: Variables,
    files: Vec<Plan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tests: Option<&'static str>,
}

struct Wizard<'a> {
    args: &'a Init,
    printer: &'a Printer,
    /// Somebody is there to answer.
    asks: bool,
}

impl Wizard<'_> {
    fn make(&self, directory: &Path, places: &Places) -> Result<Made, Error> {
        let look = look::at(directory);
        if self.asks {
            self.say_what_it_looks_like(&look);
        }
        let own = self.args.template.as_ref().map(|named| users_template(named, places)).transpose()?;
        // A user's own template says itself what it asks.
        let asks = self.asks && own.is_none();
        let one_of = |choices: &[&str]| choices.iter().map(|choice| (*choice).to_owned()).collect::<Vec<_>>();
        let language =
            self.choose(asks, "What is it written in?", &one_of(LANGUAGES), look.language, &self.args.language)?;
        let purpose = self.choose(asks, "What is it for?", &one_of(PURPOSES), look.purpose, &self.args.purpose)?;
        let agents: Vec<String> = templates::AGENTS.iter().map(|(name, _)| (*name).to_owned()).collect();
        let first = agents.first().cloned().unwrap_or_default();
        let agent =
            self.choose(asks && agents.len() > 1, "Which agent works in it?", &agents, &first, &self.args.agent)?;
        let template = match own {
            Some(template) => template,
            None => Template::built_in(&language).map_err(|e| unusable(&e))?,
        };
        let name = WorkspaceName::suggested_by(&directory.file_name().unwrap_or_default().to_string_lossy());
        let mut answers = templates::given(Project {
            name: name.as_str().to_owned(),
            language,
            purpose,
            agent,
            files: look.files,
            package_manager: look.package_manager,
            local_modules: look.local_modules,
        });
        self.check_set(&template)?;
        for question in &template.questions {
            let answer = self.answer(question, &template, &answers)?;
            answers.set(&question.name, Value::Text(answer));
        }
        let files = template.render(&answers).map_err(|e| unusable(&e))?;
        let mut plans = write::plan(directory, files)?;
        let changes = plans.iter().any(|plan| plan.state != State::Kept);
        if !self.printer.json {
            self.list(&plans);
        }
        if self.asks && changes && !ask::yes_by_default(self.printer, "Write this?")? {
            return Err(Error::new(Kind::Interrupted, "nothing was written"));
        }
        write::write(directory, &mut plans)?;
        Ok(Made { project: directory.to_owned(), answers, files: plans, tests: look.tests })
    }

    fn say_what_it_looks_like(&self, look: &look::Look) {
        let what = match look.purpose {
            "library" => "a library",
            "web service" => "a web service",
            "data" => "work with data",
            _ => "an application",
        };
        let language = Template::built_in(look.language).map_or_else(|_| look.language.to_owned(), |t| t.title);
        let signs: Vec<String> = look.signs.iter().take(4).map(|sign| one_line(sign)).collect();
        self.printer.say(&match signs.is_empty() {
            true => "There is nothing here that says what it is written in.".to_owned(),
            false => format!("This looks like {what} in {language}: {}.", signs.join(", ")),
        });
        self.printer.say("Enter takes what is in brackets; a choice may be shortened.");
    }

    /// One of `choices`: as typed on the command line, as asked, or `default`.
    fn choose(
        &self,
        asks: bool,
        question: &str,
        choices: &[String],
        default: &str,
        typed: &Option<String>,
    ) -> Result<String, Error> {
        if let Some(typed) = typed {
            return picked(typed, choices).ok_or_else(|| {
                let why = format!("{typed:?} is none of {}", choices.join(", "));
                Error::new(Kind::Usage, why).hint("vcodingctl init --help")
            });
        }
        if !asks {
            return Ok(default.to_owned());
        }
        self.ask(question, choices, default)
    }

    fn ask(&self, question: &str, choices: &[String], default: &str) -> Result<String, Error> {
        let shown = if choices.is_empty() { String::new() } else { format!(" {}", choices.join(", ")) };
        let text = format!("{} {}{shown} [{default}] ", self.printer.talk(Style::Cyan, "?"), one_line(question));
        for _ in 0..TRIES {
            let Some(answer) = ask::line(self.printer, &text)? else { break };
            if answer.is_empty() {
                break;
            }
            if choices.is_empty() {
                return Ok(answer);
            }
            match picked(&answer, choices) {
                Some(choice) => return Ok(choice),
                None => self.printer.say(&format!("  one of {}", choices.join(", "))),
            }
        }
        Ok(default.to_owned())
    }

    /// A template's own question.
    fn answer(&self, question: &Question, template: &Template, answers: &Variables) -> Result<String, Error> {
        let default = template.default_of(question, answers).map_err(|e| unusable(&e))?;
        let typed = self.args.set.iter().find_map(|(name, value)| (*name == question.name).then(|| value.clone()));
        if !question.choices.is_empty() {
            return self.choose(self.asks, &question.ask, &question.choices, &default, &typed);
        }
        match typed {
            Some(typed) => Ok(typed),
            None if self.asks => self.ask(&question.ask, &[], &default),
            None if default.is_empty() => {
                let why = format!("the template asks {:?}, and nobody is there to answer", question.ask);
                Err(Error::new(Kind::Usage, why).hint(format!("vcodingctl init --set {}=ANSWER", question.name)))
            }
            None => Ok(default),
        }
    }

    fn check_set(&self, template: &Template) -> Result<(), Error> {
        let unknown = self.args.set.iter().find(|(name, _)| !template.questions.iter().any(|q| q.name == *name));
        let Some((name, _)) = unknown else { return Ok(()) };
        let names: Vec<&str> = template.questions.iter().map(|q| q.name.as_str()).collect();
        let there =
            if names.is_empty() { "it asks nothing".to_owned() } else { format!("it asks {}", names.join(", ")) };
        Err(Error::new(Kind::Usage, format!("the template {:?} has no question {name:?}; {there}", template.title))
            .hint("vcodingctl init --help"))
    }

    fn list(&self, plans: &[Plan]) {
        let widest = plans.iter().map(|plan| width(&one_line(&plan.path))).max().unwrap_or(0);
        for plan in plans {
            let path = one_line(&plan.path);
            let pad = " ".repeat(widest - width(&path));
            let (style, what) = match &plan.state {
                State::New => (Style::Green, "new".to_owned()),
                State::Merged(lines) => (Style::Green, format!("{} more", counted(*lines as u64, "line"))),
                State::Kept => (Style::Dim, "stays as it is".to_owned()),
            };
            self.printer.line(&format!("  {path}{pad}  {}", self.printer.data(style, &what)));
        }
    }
}

/// The choice that is meant: itself, or the only one that begins so.
fn picked(typed: &str, choices: &[String]) -> Option<String> {
    let typed = typed.trim().to_lowercase();
    if let Some(exact) = choices.iter().find(|choice| choice.to_lowercase() == typed) {
        return Some(exact.clone());
    }
    let mut begun = choices.iter().filter(|choice| !typed.is_empty() && choice.to_lowercase().starts_with(&typed));
    let first = begun.next()?;
    begun.next().is_none().then(|| first.clone())
}

/// `--template`: a directory, or the name of one among the user's.
fn users_template(named: &Path, places: &Places) -> Result<Template, Error> {
    let kept = places.config.join("templates").join(named);
    // A bare name is the user's own before it is a directory of whatever project this is.
    let bare = named.components().count() == 1;
    if bare && kept.is_dir() {
        return Template::read(&kept).map_err(|e| unusable(&e));
    }
    if !named.is_dir() {
        let why = format!("there is no template {}: neither here nor as {}", named.display(), kept.display());
        return Err(Error::new(Kind::Usage, why).hint("docs/templates.md says what a template is"));
    }
    Template::read(named).map_err(|e| unusable(&e))
}

fn unusable(error: &templates::Error) -> Error {
    let hint = match error {
        templates::Error::Unknown { .. } => "vcodingctl init --help",
        _ => "docs/templates.md says what a template is",
    };
    Error::new(Kind::Usage, error.to_string()).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_may_be_shortened_as_long_as_it_is_clear() {
        let choices: Vec<String> = ["python", "plain", "Node"].map(str::to_owned).into();
        assert_eq!(picked("py", &choices), Some("python".into()));
        assert_eq!(picked("PLAIN", &choices), Some("plain".into()));
        assert_eq!(picked("n", &choices), Some("Node".into()));
        for none in ["p", "", "x", "pythons"] {
            assert_eq!(picked(none, &choices), None, "{none}");
        }
    }
}
