//! What is remembered of a run.
//!
//! The store has it, and a copy lies beside the run's log, so that a lost store can be rebuilt.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::run::{RunState, RunView};
use protocol::{Bytes, RunId, Timestamp, WorkspaceId, WorkspaceName};
use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use crate::agents::{Format, Verdict};
use crate::egress::{Fingerprint, Usage};
use crate::store::Record;

/// The copy's name in a run's directory on the host.
const NAME: &str = "record.json";
/// A longer copy is none of ours: a prompt is not in it, a command's arguments are.
const MAX_COPY: u64 = 4 << 20;
/// What the agent was asked, whole.
const PROMPT: &str = "prompt";
/// A longer one is refused before it comes here.
const MAX_PROMPT: u64 = 1 << 20;
/// A title's length in characters.
const TITLE: usize = 100;

/// A run, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub id: RunId,
    pub workspace: WorkspaceId,
    pub workspace_name: WorkspaceName,
    /// `None`: a command.
    pub agent: Option<String>,
    /// The prompt's or the command's beginning, one line.
    pub title: String,
    /// A command's arguments.
    pub argv: Vec<Bytes>,
    /// How its output is parsed.
    pub format: Format,
    pub timeout_ms: Option<u64>,
    pub state: RunState,
    /// Somebody asked for its end; kept so that it counts after a restart too.
    pub cancelled: bool,
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
    pub status: Option<u8>,
    pub exit: Option<u8>,
    pub before: Option<String>,
    pub after: Option<String>,
    pub cost_usd: Option<f64>,
    /// The agent's session, by which it can be resumed.
    pub session: Option<String>,
    pub problem: Option<String>,
    /// An agent's leave to ask its model; kept so that a later daemon grants it again.
    #[serde(default)]
    pub admission: Option<Admission>,
    /// Of the guest, in bytes, where that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
}

/// What a run was admitted with, and what it has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Of its token, which is kept nowhere but in the agent's environment.
    pub fingerprint: Fingerprint,
    pub max_requests: Option<u64>,
    pub usage: Usage,
}

impl Record for RunRecord {
    const TABLE: &'static str = "runs";
    const VERSION: u8 = 1;

    fn key(&self) -> String {
        self.id.to_string()
    }
}

/// A run's copy could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("cannot {doing} the run's record {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: is no record of a run: {why}", path.display())]
    Unreadable { path: PathBuf, why: String },
    #[error("{}: was written by a newer vcodingd (version {found})", path.display())]
    Newer { path: PathBuf, found: u8 },
}

/// The copy's form: the store's version byte has no place in JSON.
#[derive(Serialize, Deserialize)]
struct Copy<R> {
    version: u8,
    run: R,
}

impl RunRecord {
    pub fn view(&self) -> RunView {
        RunView {
            id: self.id.clone(),
            workspace: self.workspace.clone(),
            workspace_name: self.workspace_name.clone(),
            agent: self.agent.clone(),
            title: self.title.clone(),
            state: self.state,
            started: self.started,
            ended: self.ended,
            status: self.status,
            exit: self.exit,
            before: self.before.clone(),
            after: self.after.clone(),
            cost_usd: self.cost_usd,
            problem: self.problem.clone(),
            memory_limit: self.memory_limit,
        }
    }

    /// The run is over.
    pub fn end(&mut self, outcome: Outcome, verdict: &Verdict, ended: Timestamp) {
        self.state = outcome.state;
        self.status = outcome.status;
        self.exit = Some(outcome.exit);
        self.problem = outcome.problem;
        self.memory_limit = outcome.memory_limit;
        self.cost_usd = verdict.cost_usd;
        // One that was given at the start holds until the agent says another.
        if verdict.session.is_some() {
            self.session.clone_from(&verdict.session);
        }
        self.ended = Some(ended);
    }

    /// Writes the copy into the run's directory on the host; durable when this returns. Blocking.
    ///
    /// # Errors
    /// [`CopyError::Io`].
    pub fn write_copy(&self, dir: &Path) -> Result<(), CopyError> {
        let path = dir.join(NAME);
        let error = |doing| {
            let path = path.clone();
            move |source| CopyError::Io { doing, path, source }
        };
        let content = serde_json::to_vec(&Copy { version: Self::VERSION, run: self })
            .map_err(io::Error::from)
            .map_err(error("write"))?;
        std::fs::create_dir_all(dir).map_err(error("make the directory of"))?;
        let temporary = dir.join(format!("{NAME}.new"));
        // Whatever a killed daemon left there is written over.
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(error("write"))?;
        file.write_all(&content).and_then(|()| file.sync_all()).map_err(error("write"))?;
        std::fs::rename(&temporary, &path).map_err(error("put into place"))?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(error("sync"))
    }

    /// Reads the copy in a run's directory on the host. Blocking.
    ///
    /// # Errors
    /// [`CopyError`].
    pub fn read_copy(dir: &Path) -> Result<Self, CopyError> {
        let path = dir.join(NAME);
        let error = |source| CopyError::Io { doing: "read", path: path.clone(), source };
        if std::fs::metadata(&path).map_err(error)?.len() > MAX_COPY {
            return Err(CopyError::Unreadable { path, why: "it is too long".to_owned() });
        }
        let content = std::fs::read(&path).map_err(error)?;
        let unreadable =
            |error: serde_json::Error| CopyError::Unreadable { path: path.clone(), why: error.to_string() };
        let copy: Copy<serde_json::Value> = serde_json::from_slice(&content).map_err(unreadable)?;
        if copy.version > Self::VERSION {
            return Err(CopyError::Newer { path, found: copy.version });
        }
        serde_json::from_value(copy.run).map_err(unreadable)
    }
}

/// Keeps what an agent is asked beside its log, where no guest sees it. Blocking.
///
/// # Errors
/// The caller names the directory.
pub fn write_prompt(dir: &Path, prompt: &str) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(PROMPT);
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(prompt.as_bytes())
}

/// What the agent was asked, if that is known. Blocking.
pub fn read_prompt(dir: &Path) -> Option<String> {
    let mut text = Vec::new();
    File::open(dir.join(PROMPT)).ok()?.take(MAX_PROMPT).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// A prompt's beginning.
pub fn title_of_prompt(prompt: &str) -> String {
    one_line(prompt, TITLE)
}

/// A command's beginning.
pub fn title_of_command(argv: &[Bytes]) -> String {
    let mut text = String::new();
    for argument in argv {
        if text.len() > 4 * TITLE {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        let most = argument.as_slice().len().min(8 * TITLE);
        text.push_str(&String::from_utf8_lossy(&argument.as_slice()[..most]));
    }
    one_line(&text, TITLE)
}

/// A text's beginning as one line of at most so many characters, without what could steer a
/// terminal or turn the reading direction.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let mut line = String::new();
    let mut length = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        for c in word.chars().filter(|c| !is_steering(*c)) {
            if length + 1 >= most {
                line.push('…');
                return line;
            }
            line.push(c);
            length += 1;
        }
    }
    line
}

/// Bidirectional controls and invisible marks.
fn is_steering(c: char) -> bool {
    matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{061c}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn record() -> RunRecord {
        RunRecord {
            id: "01jd0000000000000000000001".parse().unwrap(),
            workspace: "01jd0000000000000000000000".parse().unwrap(),
            workspace_name: "shop".parse().unwrap(),
            agent: Some("claude".into()),
            title: "make the failing test pass".into(),
            argv: vec![Bytes(b"\xff".to_vec())],
            format: Format::ClaudeStreamJson,
            timeout_ms: Some(1000),
            state: RunState::Running,
            cancelled: false,
            started: Timestamp::from_unix_ms(0),
            ended: None,
            status: None,
            exit: None,
            before: Some("ab12".into()),
            after: None,
            cost_usd: None,
            session: None,
            problem: None,
            admission: None,
            memory_limit: None,
        }
    }

    #[tokio::test]
    async fn a_record_survives_the_store_and_its_copy() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = record();
        let verdict = Verdict { cost_usd: Some(0.25), session: Some("s".into()), ..Verdict::default() };
        let outcome = Outcome {
            state: RunState::Failed,
            status: Some(2),
            exit: 1,
            problem: Some("no".into()),
            memory_limit: None,
        };
        record.end(outcome, &verdict, Timestamp::from_unix_ms(9));
        let table = Store::open(&dir.path().join("db")).unwrap().table::<RunRecord>().unwrap();
        table.put(&record).await.unwrap();
        assert_eq!(table.get(&record.key()).unwrap().as_ref(), Some(&record));
        let runs = dir.path().join("run");
        record.write_copy(&runs).unwrap();
        record.write_copy(&runs).unwrap();
        assert_eq!(RunRecord::read_copy(&runs).unwrap(), record);
        assert_eq!(std::fs::read_dir(&runs).unwrap().count(), 1);
        let view = record.view();
        assert_eq!((view.state, view.exit, view.cost_usd), (RunState::Failed, Some(1), Some(0.25)));
    }

    /// A daemon of tomorrow still has to read it.
    #[test]
    fn the_copy_is_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        record().write_copy(dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"run":{"id":"01jd0000000000000000000001","workspace":"01jd0000000000000000000000","workspace_name":"shop","agent":"claude","title":"make the failing test pass","argv":[{"base64":"/w=="}],"format":"claude-stream-json","timeout_ms":1000,"state":"running","cancelled":false,"started":"1970-01-01T00:00:00.000Z","ended":null,"status":null,"exit":null,"before":"ab12","after":null,"cost_usd":null,"session":null,"problem":null,"admission":null}}"#
        );
    }

    #[test]
    fn a_copy_of_a_newer_version_or_of_garbage_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(RunRecord::read_copy(dir.path()), Err(CopyError::Io { .. })));
        std::fs::write(dir.path().join(NAME), r#"{"version":2,"run":{"new":1}}"#).unwrap();
        assert!(matches!(RunRecord::read_copy(dir.path()), Err(CopyError::Newer { found: 2, .. })));
        std::fs::write(dir.path().join(NAME), "{").unwrap();
        assert!(matches!(RunRecord::read_copy(dir.path()), Err(CopyError::Unreadable { .. })));
    }

    #[test]
    fn a_title_is_one_short_line_that_steers_nothing() {
        assert_eq!(title_of_prompt("  fix\n\tit\u{1b}[2J\u{202e} now "), "fix it [2J now");
        assert_eq!(title_of_prompt(&"é".repeat(5000)), format!("{}…", "é".repeat(99)));
        assert_eq!(title_of_prompt("\n\u{7}"), "");
        let argv = [Bytes(b"sh".to_vec()), Bytes(b"-c".to_vec()), Bytes(vec![0xff; 9000])];
        assert!(title_of_command(&argv).starts_with("sh -c \u{fffd}"));
        assert_eq!(title_of_command(&argv).chars().count(), 100);
    }
}
