//! Whether a request would make the provider an exit.
//!
//! A provider that fetches a URL, runs a tool or code, or reads the account's files for its caller
//! carries data past the wall, with the user's key. What may be asked is a [`Policy`]; what it does not
//! name is refused where it could make the provider act: any other key of the top level, any other kind
//! of tool or source, and in a block whatever names something to fetch. What a client's own tools take and
//! return is nobody's business.
//!
//! The body is read where it lies: a tree of values would be sixteen times as large. A key that is there
//! twice is no request, and one that differs from a judged one only in the case of its letters is refused,
//! so that no reader sees another request than was judged.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::policy::{Fetched, Policy, same_but_for_case};

/// The body is not of the form of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request is not a Messages request: {why}")]
pub struct NotARequest {
    /// Line, column and kind of the mistake; none of the text.
    pub why: String,
}

/// The name of a kind or a key is cut here when it is shown.
const SHOWN: usize = 60;
/// Keys of one tool, message, block or source, and how long each may be: they are held while it is read.
const MOST_KEYS: usize = 64;
const LONGEST_KEY: usize = 256;

/// Why a Messages request must not go out, in the caller's words; `None` if it may.
///
/// # Errors
/// [`NotARequest`].
pub(super) fn refusal(body: &[u8], policy: &Policy) -> Result<Option<String>, NotARequest> {
    let finding = read(body, Request(policy)).map_err(|error| {
        let kind = match error.classify() {
            serde_json::error::Category::Data => "an unexpected value",
            serde_json::error::Category::Eof => "it ends too early",
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => "it is not JSON",
        };
        NotARequest { why: format!("{kind} at line {}, column {}", error.line(), error.column()) }
    })?;
    Ok(finding.map(|finding| format!("{finding}, which is outside this workspace's wall")))
}

fn read<'de, S: DeserializeSeed<'de>>(body: &'de [u8], seed: S) -> Result<S::Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// The whole body.
struct Request<'p>(&'p Policy);

impl<'de> DeserializeSeed<'de> for Request<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Request<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let policy = self.0;
        let (mut first, mut seen) = (None::<String>, Vec::new());
        while let Some(Key(key)) = map.next_key()? {
            let known =
                policy.body.keys.get(&*key).or_else(|| policy.body.empty.get_key_value(&*key).map(|(key, _)| key));
            let Some(known) = known else {
                map.next_value::<IgnoredAny>()?;
                first = first.or_else(|| Some(policy.unknown_key(&key)));
                continue;
            };
            if seen.contains(&known) {
                return Err(A::Error::custom("a key is there twice"));
            }
            seen.push(known);
            let finding = match (What::of(known), policy.body.empty.get(known)) {
                (_, Some(does)) => (!map.next_value_seed(Empty)?).then(|| format!("{known} {does}")),
                (Some(what), None) => map.next_value_seed(Look::any(policy, what))?.finding,
                (None, None) => {
                    map.next_value::<IgnoredAny>()?;
                    None
                }
            };
            first = first.or(finding);
        }
        Ok(first)
    }
}

impl Policy {
    fn unknown_key(&self, key: &str) -> String {
        let known = self.body.keys.iter().chain(self.body.empty.keys());
        match known.into_iter().find(|known| same_but_for_case(known, key)) {
            Some(known) => format!("the key {} is {known:?} in other letters", shown(key)),
            None => format!("the key {} is not known to leave the provider where it is", shown(key)),
        }
    }
}

/// What may hold a reason to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Message,
    Tool,
    Block,
    Source,
}

/// Keys that lead to such things, wherever they stand.
const JUDGED: [(&str, What); 7] = [
    ("content", What::Block),
    ("definition", What::Tool),
    ("messages", What::Message),
    ("source", What::Source),
    ("system", What::Block),
    ("tool", What::Block),
    ("tools", What::Tool),
];
const KIND: &str = "type";

impl What {
    fn of(key: &str) -> Option<Self> {
        JUDGED.iter().find(|(name, _)| *name == key).map(|(_, what)| *what)
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Tool => "tool",
            Self::Block => "block",
            Self::Source => "source",
        }
    }

    /// Whether this key's value is the client's own business.
    fn owns(self, policy: &Policy, kind: Option<&str>, key: &str) -> bool {
        match self {
            Self::Message => policy.messages.keys.contains(key),
            Self::Tool => policy.tools.keys.contains(key),
            Self::Source => policy.sources.keys.contains(key),
            Self::Block => kind.and_then(|kind| policy.blocks.get(kind)).is_some_and(|keys| keys.contains(key)),
        }
    }

    /// What is wrong with its kind.
    fn refused_kind(self, policy: &Policy, kind: Option<&str>) -> Option<String> {
        match (self, kind) {
            (Self::Tool, Some(kind)) if !policy.tools.are_the_clients(kind) => {
                Some(format!("the tool {} is run by the provider", shown(kind)))
            }
            (Self::Source, Some(kind)) if policy.sources.kinds.contains(kind) => None,
            (Self::Source, Some("url")) => Some("a source of type \"url\" is fetched by the provider".to_owned()),
            (Self::Source, Some("file")) => {
                Some("a source of type \"file\" is read from the key owner's account".to_owned())
            }
            (Self::Source, Some(kind)) => {
                Some(format!("a source of type {} is not known to be in the request", shown(kind)))
            }
            (Self::Source, None) => Some("a source without a type is not known to be in the request".to_owned()),
            _ => None,
        }
    }
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(SHOWN).collect::<String>())
}

/// Reads a text, one of `what`, or a list of them.
#[derive(Clone, Copy)]
struct Look<'p> {
    policy: &'p Policy,
    what: What,
    /// One of a list: it can only be an object.
    item: bool,
}

/// The first reason to refuse; nothing else of a value is kept.
#[derive(Default)]
struct Found {
    finding: Option<String>,
    is_text: bool,
}

impl<'p> Look<'p> {
    fn any(policy: &'p Policy, what: What) -> Self {
        Self { policy, what, item: false }
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        if self.item { deserializer.deserialize_map(self) } else { deserializer.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.item { "an object" } else { "a text, an object, a list of objects or null" })
    }

    fn visit_str<E>(self, _: &str) -> Result<Found, E> {
        Ok(Found { finding: None, is_text: true })
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        while let Some(item) = items.next_element_seed(Self { item: true, ..self })? {
            found.finding = found.finding.or(item.finding);
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let (mut kind, mut first, mut source_is_text) = (None::<Cow<'de, str>>, None::<String>, false);
        let (mut seen, mut rest) = (Vec::new(), Vec::new());
        while let Some(Key(key)) = map.next_key()? {
            if seen.len() == MOST_KEYS || key.len() > LONGEST_KEY || seen.contains(&key) {
                return Err(A::Error::custom("a key is there twice, or there are too many"));
            }
            if key == KIND {
                kind = map.next_value::<Option<Key<'de>>>()?.map(|Key(kind)| kind);
            } else if let Some(what) = What::of(&key) {
                let found = map.next_value_seed(Look::any(self.policy, what))?;
                source_is_text |= what == What::Source && found.is_text;
                first = first.or(found.finding);
            } else {
                // Where it lies: what it may be is said by the kind, which may come later.
                rest.push((key.clone(), map.next_value::<&'de RawValue>()?));
            }
            seen.push(key);
        }
        let kind = kind.as_deref();
        let mut finding = first.or_else(|| self.what.refused_kind(self.policy, kind));
        if source_is_text && !kind.is_some_and(|kind| self.policy.fetched.named.contains(kind)) {
            finding = finding.or_else(|| Some("a source that is a text is not known to be in the request".to_owned()));
        }
        for (key, value) in rest {
            finding = match finding {
                None if self.what.owns(self.policy, kind, &key) => None,
                None => self.beside(kind, &key, value).map_err(A::Error::custom)?,
                found => found,
            };
        }
        Ok(Found { finding, is_text: false })
    }
}

impl Look<'_> {
    /// What is wrong with a key that is not known here.
    fn beside(&self, kind: Option<&str>, key: &str, value: &RawValue) -> Result<Option<String>, serde_json::Error> {
        let judged = JUDGED.iter().map(|(name, _)| *name).chain([KIND]);
        if let Some(judged) = judged.into_iter().find(|judged| same_but_for_case(judged, key)) {
            return Ok(Some(format!("the key {} is {judged:?} in other letters", shown(key))));
        }
        let names = self.policy.fetched.is_key(key) || read(value.get().as_bytes(), Fetching(self.policy))?;
        let of = kind.map(|kind| format!(" of type {}", shown(kind))).unwrap_or_default();
        Ok(names.then(|| format!("{} in a {}{of} names something to fetch", shown(key), self.what.noun())))
    }
}

/// Whether a value of a meaning that is not known names something to fetch.
#[derive(Clone, Copy)]
struct Fetching<'p>(&'p Policy);

impl<'de> DeserializeSeed<'de> for Fetching<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Fetching<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(Fetched::is_address(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let mut any = false;
        while let Some(item) = items.next_element_seed(self)? {
            any |= item;
        }
        Ok(any)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut any = false;
        while let Some(Key(key)) = map.next_key()? {
            any |= self.0.fetched.is_key(&key);
            any |= map.next_value_seed(self)?;
        }
        Ok(any)
    }
}

/// Whether there is nothing in a value.
struct Empty;

impl<'de> DeserializeSeed<'de> for Empty {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        let raw: &RawValue = serde::Deserialize::deserialize(deserializer)?;
        let text = raw.get();
        let inner = text.strip_prefix(['[', '{']).and_then(|text| text.strip_suffix([']', '}']));
        Ok(text == "null" || inner.is_some_and(|inner| inner.trim_ascii().is_empty()))
    }
}

/// A text, where it lies if it has no escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Text).map(Key)
    }
}

#[cfg(test)]
mod tests;
