//! One run as a page of HTML that needs nothing else: no script, no network, one style.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::render::mistake;

const PAGE: &str = include_str!("../report/page.html");
const STYLE: &str = include_str!("../report/style.css");

/// The page. Every value is escaped; the page's policy allows its own style and nothing else.
///
/// # Errors
/// [`Error::Mistake`] for values that the page does not know what to do with.
pub fn report(values: &impl Serialize) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let style_hash = format!("sha256-{}", STANDARD.encode(Sha256::digest(STYLE)));
    let values = minijinja::Value::from_serialize(values);
    let all = context! { style => STYLE, style_hash, ..values };
    environment.render_named_str("page.html", PAGE, all).map_err(|e| mistake("page.html", &e))
}
