//! Text with variables, by minijinja.

use std::collections::BTreeMap;

use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde::Serialize;

use crate::Error;

/// What every template may use: answers that need no question of its own.
pub(crate) const GIVEN: &[&str] =
    &["name", "language", "purpose", "agent", "files", "requirements", "package_manager", "local_modules"];

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    Text(String),
    List(Vec<String>),
}

/// What is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Variables(BTreeMap<String, Value>);

impl Variables {
    pub fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }
}

/// What minijinja itself answers.
const GLOBALS: &[&str] = &["range", "dict", "namespace"];

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_keep_trailing_newline(true);
    // Nothing here is HTML.
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_filter("toml", |text: String| toml::Value::String(text).to_string());
    environment
}

/// Whether `text` can be rendered once all of `known` is answered.
pub(crate) fn check(file: &str, text: &str, known: &[String]) -> Result<(), Error> {
    let environment = environment();
    let template = environment.template_from_named_str(file, text).map_err(|e| mistake(file, &e))?;
    let mut unknown: Vec<String> = template.undeclared_variables(false).into_iter().collect();
    unknown.retain(|name| !known.contains(name) && !GLOBALS.contains(&name.as_str()));
    unknown.sort();
    match unknown.into_iter().next() {
        Some(name) => Err(Error::UnknownVariable { file: file.to_owned(), name, known: known.to_vec() }),
        None => Ok(()),
    }
}

pub(crate) fn text(file: &str, text: &str, variables: &Variables) -> Result<String, Error> {
    environment().render_named_str(file, text, variables).map_err(|e| mistake(file, &e))
}

pub(crate) fn mistake(file: &str, error: &minijinja::Error) -> Error {
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    let what = match error.kind() {
        ErrorKind::UndefinedError => "a value is not there".to_owned(),
        kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
    };
    Error::Mistake { file: file.to_owned(), why: format!("{line}{what}") }
}
