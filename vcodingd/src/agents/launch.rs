//! From a manifest to the command that a guest is asked to run.

use std::collections::BTreeMap;

use protocol::RunId;
use serde::Deserialize;

use super::manifest::Manifest;
use super::store::Installed;

/// A text with `{holes}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Hole(String),
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (hole, after) = after.split_once('}').ok_or_else(|| format!("{text:?} has a '{{' without its end"))?;
            pieces.extend([Piece::Text(before.into()), Piece::Hole(hole.into())]);
            rest = after;
        }
        pieces.push(Piece::Text(rest.into()));
        Ok(Self(pieces))
    }
}

impl Template {
    pub(super) fn holes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Hole(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// Values are put in as they are: a `{` in one opens nothing.
    fn fill(&self, values: &BTreeMap<&str, &str>) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Hole(name) => values.get(name.as_str()).copied().unwrap_or_default().to_owned(),
        };
        self.0.iter().map(piece).collect()
    }
}

/// What is asked of the agent.
#[derive(Debug, Clone, Copy)]
pub struct LaunchRequest<'a> {
    pub prompt: &'a str,
    pub model: Option<&'a str>,
    pub session: Session<'a>,
    /// Where in the guest the model endpoint listens.
    pub model_port: u16,
    /// What the agent shows there instead of a key.
    pub token: &'a str,
}

#[derive(Debug, Clone, Copy)]
pub enum Session<'a> {
    /// A new one, under [`session_of`] this run.
    New(&'a RunId),
    /// The one an earlier run was in.
    Resume(&'a str),
}

/// A command for a guest's frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Launch {
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value`.
    pub env: Vec<Vec<u8>>,
    pub stdin: Vec<u8>,
    /// By which the session can be gone on with.
    pub session: String,
}

/// Without the environment, which holds the token, and without the prompt.
impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let argv: Vec<_> = self.argv.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
        f.debug_struct("Launch").field("argv", &argv).field("session", &self.session).finish_non_exhaustive()
    }
}

/// The command for this agent.
pub fn launch(manifest: &Manifest, installed: &Installed, request: &LaunchRequest<'_>) -> Launch {
    let (session, flags) = match request.session {
        Session::New(run) => (session_of(run), &manifest.command.session),
        Session::Resume(session) => (session.to_owned(), &manifest.command.resume),
    };
    let port = request.model_port.to_string();
    let values = BTreeMap::from([
        ("session", session.as_str()),
        ("model", request.model.unwrap_or_default()),
        ("port", &port),
        ("token", request.token),
    ]);
    let command = &manifest.command;
    let model = if request.model.is_some() { command.model.as_slice() } else { &[] };
    let arguments = command.argv.iter().chain(model).chain(flags).map(|argument| argument.fill(&values).into_bytes());
    let argv = std::iter::once(installed.program.clone().into_bytes()).chain(arguments).collect();
    let env = command.env.iter().map(|(name, value)| format!("{name}={}", value.fill(&values)).into_bytes()).collect();
    Launch { argv, env, stdin: request.prompt.as_bytes().to_vec(), session }
}

/// The session of a run that began one: the run's own 128 bits, in the form of a UUID. It is given to the agent and not
/// asked from it, so a run can be gone on with even if it ended before it said a word.
pub fn session_of(run: &RunId) -> String {
    let bits =
        ulid::Ulid::from_string(run.as_str()).map(u128::from).expect("a run's id is a ULID: its type checks that");
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::find;

    fn text(bytes: &[Vec<u8>]) -> Vec<&str> {
        bytes.iter().map(|b| std::str::from_utf8(b).unwrap()).collect()
    }

    fn request(session: Session<'_>) -> LaunchRequest<'_> {
        LaunchRequest { prompt: "fix {token}", model: None, session, model_port: 8377, token: "tok{port}" }
    }

    fn installed() -> Installed {
        Installed { program: "/opt/vcoding/agents/claude/1/claude".into(), host: "/nowhere".into(), fetched: false }
    }

    #[test]
    fn a_new_session_gets_its_id_and_the_prompt_is_input_not_argument() {
        let run: RunId = "01jd0000000000000000000001".parse().unwrap();
        let launch = launch(&find(None, "claude").unwrap(), &installed(), &request(Session::New(&run)));
        let expected = [
            "/opt/vcoding/agents/claude/1/claude",
            "-p",
            "--output-format",
            "stream-json",
            "--verbose",
            "--dangerously-skip-permissions",
            "--session-id",
            &launch.session,
        ];
        assert_eq!(text(&launch.argv), expected);
        assert_eq!(launch.stdin, b"fix {token}");
        let env = text(&launch.env);
        assert!(env.contains(&"ANTHROPIC_BASE_URL=http://127.0.0.1:8377"), "{env:?}");
        assert!(env.contains(&"ANTHROPIC_API_KEY=tok{port}"), "a value opens no hole: {env:?}");
        assert!(!format!("{launch:?}").contains("tok{port}"));
    }

    #[test]
    fn a_resumed_session_keeps_its_id_and_a_model_is_passed_on() {
        let mut request = request(Session::Resume("old-one"));
        request.model = Some("small");
        let launch = launch(&find(None, "claude").unwrap(), &installed(), &request);
        assert_eq!(text(&launch.argv)[6..], ["--model", "small", "--resume", "old-one"]);
        assert_eq!(launch.session, "old-one");
    }

    #[test]
    fn a_session_is_the_runs_own_bits() {
        let run: RunId = "01jd0000000000000000000001".parse().unwrap();
        let session = session_of(&run);
        assert_eq!(session.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        let bits = u128::from_str_radix(&session.replace('-', ""), 16).unwrap();
        assert_eq!(ulid::Ulid::from(bits).to_string().to_lowercase(), run.as_str());
    }
}
