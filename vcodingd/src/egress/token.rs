//! What a run shows instead of a key.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::secrets::Secret;

/// Tells people who find one what it is.
const PREFIX: &str = "vck-";

/// 256 random bits as text, valid for one run on the connections of its own workspace.
#[derive(Clone)]
pub struct Token(Secret);

impl Token {
    /// # Errors
    /// If the system gives no random bits.
    pub(super) fn draw() -> io::Result<Self> {
        let mut bits = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut bits)?;
        Ok(Self(Secret::new(format!("{PREFIX}{}", hex(&bits)))))
    }

    /// The text, for the agent's environment.
    pub fn expose(&self) -> &str {
        std::str::from_utf8(self.0.expose()).expect("it was made of ASCII")
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.0.expose())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// By which a token is known again, and from which it cannot be made: this is what may be kept
/// on disk, so that a run outlives its daemon.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Whether both are the same, in a time that says nothing of where they differ.
    pub(super) fn matches(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
        difference == 0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(…)")
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        hex(&fingerprint.0)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = "not a fingerprint: 64 hexadecimal digits";
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong);
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong)?;
        }
        Ok(Self(bytes))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| b"0123456789abcdef"[digit as usize] as char)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_another_and_fit_for_a_header() {
        let (a, b) = (Token::draw().unwrap(), Token::draw().unwrap());
        assert_ne!(a.expose(), b.expose());
        assert_eq!(a.expose().len(), 68);
        assert!(a.expose().strip_prefix("vck-").unwrap().bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(a.fingerprint().matches(&Fingerprint::of(a.expose().as_bytes())));
        assert!(!a.fingerprint().matches(&b.fingerprint()));
    }

    #[test]
    fn a_fingerprint_survives_a_record_and_is_no_token() {
        let token = Token::draw().unwrap();
        let text = serde_json::to_string(&token.fingerprint()).unwrap();
        assert_eq!(serde_json::from_str::<Fingerprint>(&text).unwrap(), token.fingerprint());
        assert!(!text.contains(&token.expose()[4..]));
        for bad in ["\"\"", "\"zz\"", "7", &format!("\"{}\"", "ä".repeat(32)), &format!("\"+{}\"", "0".repeat(63))] {
            assert!(serde_json::from_str::<Fingerprint>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_debug_form_shows_it() {
        let token = Token::draw().unwrap();
        let shown = format!("{token:?} {:?}", token.fingerprint());
        assert_eq!(shown, "Token(…) Fingerprint(…)");
    }
}
