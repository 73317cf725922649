//! Every path between a project and its work tree: copy-in at the first `up`, and the way home.

mod collect;
mod obeyed;
mod project;

use protocol::transfer::{ApplyResult, Flagged};
use protocol::workspace::LeftOut;

pub use collect::{Error as CollectError, Request as CollectRequest, collect};
pub use project::{Unsuitable, ensure_repository, may_be_repository, suitable};

use crate::timeline::{Cause, Error, Timeline};

/// How many paths are named to a client; all are counted.
const NAMED: usize = 100;

/// What came in.
#[derive(Debug, Clone, Default)]
pub struct CopiedIn {
    pub files: u64,
    /// Named ones; `left_out_total` counts all.
    pub left_out: Vec<LeftOut>,
    pub left_out_total: u64,
    pub notes: Vec<String>,
}

/// Copies the project into the work tree and records it as `base`. Does nothing if that was done;
/// begins anew if it was cut off. `let_in` says which files may come although they look like secrets.
///
/// # Errors
/// What the history says of the project's files.
pub async fn copy_in(
    timeline: &Timeline,
    let_in: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
) -> Result<CopiedIn, Error> {
    timeline
        .with(move |history, paths| {
            if history.base()?.is_some() {
                return Ok(CopiedIn::default());
            }
            let meta = history::Meta {
                cause: Cause::of("up").word.to_owned(),
                label: None,
                run: None,
                time_ms: protocol::Timestamp::now().unix_ms(),
            };
            let done = history.import(&paths.project, &paths.tree, paths.owner, &meta, &let_in, &mut |_| {})?;
            let listed = done.left_out.listed(|_| true);
            let named = listed.iter().take(NAMED);
            Ok(CopiedIn {
                files: done.files,
                left_out: named.map(|note| LeftOut { path: note.path.clone().into(), why: note.why.clone() }).collect(),
                left_out_total: done.left_out.total(|_| true),
                notes: done.notes,
            })
        })
        .await
}

/// The newest checkpoint as a branch of the project's repository. May be repeated.
///
/// # Errors
/// A branch that is not ours to move, a repository that cannot be written.
pub async fn apply(timeline: &Timeline, workspace: String, branch: String) -> Result<ApplyResult, Error> {
    timeline
        .with(move |history, paths| {
            let newest = history.resolve("@")?;
            let message = format!("Work from vcoding's workspace {workspace}\n\nCheckpoint {}", newest.id);
            // The checkpoint's time, so that an apply that is done again makes the same commit.
            let publish = history::Publish {
                branch: &branch,
                message: &message,
                obeyed: obeyed::policy(),
                time_ms: newest.meta.time_ms,
            };
            let base = history.base()?.ok_or(history::Error::NoBase)?;
            let changes = history.diff(base, newest.id, &[])?.files;
            let count = |statuses: &str| changes.iter().filter(|c| statuses.contains(c.status)).count() as u64;
            let done = history.publish(&paths.project, &publish)?;
            let kept =
                done.kept.iter().take(NAMED).map(|path| {
                    format!("{} was kept out of the guest and stays as it is", String::from_utf8_lossy(path))
                });
            let refused = done
                .refused
                .iter()
                .take(NAMED)
                .map(|(path, why)| format!("{} is left out of the branch: {why}", String::from_utf8_lossy(path)));
            let more = done.refused.len().saturating_sub(NAMED);
            let more = (more > 0).then(|| format!("and {more} more are left out of the branch"));
            Ok(ApplyResult {
                branch: done.branch,
                commit: done.commit.map(|id| id.to_string()),
                parent: done.parent.map(|id| id.to_string()),
                checkpoint: newest.id.to_string(),
                added: count("A"),
                changed: count("MRT"),
                deleted: count("D"),
                flagged_total: done.flagged.total,
                flagged: done.flagged.list.into_iter().map(|(path, why)| Flagged { path: path.into(), why }).collect(),
                notes: kept.chain(refused).chain(more).collect(),
                unborn: done.unborn,
                in_the_way: done.in_the_way.into_iter().map(Into::into).collect(),
            })
        })
        .await
}
