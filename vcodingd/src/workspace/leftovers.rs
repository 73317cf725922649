//! What destroyed workspaces left: bringing one back, and ending what nobody needs.

use std::path::Path;
use std::time::SystemTime;

use protocol::workspace::{Freed, FreedKind, GcParams, GcResult, TrashView};
use protocol::{Error, Kind, Timestamp, WorkspaceName};

use super::handle::Handle;
use super::machine::Intent;
use super::record::{Rest, WorkspaceRecord};
use super::registry::{Registry, Wanted};
use super::trash::{self, Kept};
use super::{failure, steps, up};

impl Registry {
    /// Destroyed workspaces that are still kept, the oldest first.
    ///
    /// # Errors
    /// A task that broke off.
    pub async fn trash(&self) -> Result<Vec<TrashView>, Error> {
        let state_dir = self.shared.state_dir.clone();
        let kept = steps::blocking(move || Ok(trash::kept(&state_dir))).await?;
        Ok(kept.iter().map(view).collect())
    }

    /// Ends destroyed workspaces whose time is over (or all of them), and images that no workspace needs.
    ///
    /// # Errors
    /// An engine that does not answer.
    pub async fn gc(&self, params: GcParams) -> Result<GcResult, Error> {
        let (now, most) = (SystemTime::now(), if params.trash { 0 } else { trash::MOST });
        let gone = if params.dry_run {
            let state_dir = self.shared.state_dir.clone();
            steps::blocking(move || Ok(trash::too_much(trash::kept(&state_dir), now, most))).await?
        } else {
            trash::sweep(&self.shared, now, most).await
        };
        let mut freed: Vec<Freed> = gone.iter().map(freed).collect();
        let provider = &self.shared.provider;
        for image in provider.images(crate::image::NAMESPACE).await.map_err(|e| failure::of_provider(&e))? {
            if !up::is_free(&self.shared, None, &image.name) {
                continue;
            }
            // One that a container has, of another state directory perhaps, stays.
            let removed = params.dry_run || provider.remove_image(&image.name).await.is_ok();
            if removed {
                freed.push(Freed { kind: FreedKind::Image, name: image.name, bytes: image.bytes });
            }
        }
        let kept = self.trash().await?;
        let stays = kept.iter().filter(|kept| !params.dry_run || gone.iter().all(|gone| gone.id != kept.id));
        let (trashed, trash_bytes) = stays.fold((0, 0), |(n, bytes), kept| (n + 1, bytes + kept.bytes));
        Ok(GcResult { freed, trashed, trash_bytes })
    }

    /// A destroyed workspace among the others again, stopped and without an image; its name may be another now.
    ///
    /// # Errors
    /// [`Kind::WorkspaceNotFound`], [`Kind::WorkspaceTaken`], a directory that cannot be moved.
    pub(super) async fn bring_back(
        &self,
        project: &Path,
        name: Option<WorkspaceName>,
        from: &str,
    ) -> Result<Handle, Error> {
        let (state_dir, wanted) = (self.shared.state_dir.clone(), from.to_owned());
        let kept = steps::blocking(move || found(trash::kept(&state_dir), &wanted)).await?;
        let record = kept.record.ok_or_else(|| {
            let history = kept.directory.join("host/history.git");
            Error::new(Kind::Internal, format!("the record of the destroyed workspace {from} cannot be read"))
                .hint(format!("git clone {} reads its history", history.display()))
        })?;
        if record.project != project && record.project.exists() {
            let message = format!("{} was a workspace of {}", record.name, record.project.display());
            return Err(Error::new(Kind::WorkspaceTaken, message)
                .hint(format!("vcodingctl --project {} up --from {from}", record.project.display())));
        }
        let place = self.reserve(Wanted::This(name.unwrap_or_else(|| record.name.clone())), record.uid)?;
        let record = WorkspaceRecord {
            name: place.name().clone(),
            project: project.to_owned(),
            revision: record.revision + 1,
            rest: Rest::Stopped,
            intent: None::<Intent>,
            problem: None,
            ..record
        };
        let (state_dir, moved) = (self.shared.state_dir.clone(), record.clone());
        steps::blocking(move || trash::bring_back(&state_dir, &moved)).await?;
        self.shared.workspaces.put(&record).await.map_err(|e| failure::of_store(&e))?;
        Ok(place.fill(record))
    }
}

/// The one that is meant: by its id or, where only one is called so, by its name.
fn found(kept: Vec<Kept>, wanted: &str) -> Result<Kept, Error> {
    let is_called = |entry: &Kept| entry.record.as_ref().is_some_and(|record| record.name.as_str() == wanted);
    let (by_id, others): (Vec<Kept>, Vec<Kept>) = kept.into_iter().partition(|entry| entry.id.as_str() == wanted);
    let mut named: Vec<Kept> = others.into_iter().filter(is_called).collect();
    let shown: String = wanted.chars().take(80).collect();
    match (by_id.into_iter().next(), named.len()) {
        (Some(found), _) => Ok(found),
        (None, 1) => Ok(named.remove(0)),
        (None, 0) => Err(Error::new(Kind::WorkspaceNotFound, format!("the trash holds no workspace {shown:?}"))
            .hint("vcodingctl ls --trash")),
        (None, several) => {
            Err(Error::new(Kind::WorkspaceNotFound, format!("the trash holds {several} workspaces called {shown}"))
                .hint("vcodingctl ls --trash shows their ids: vcodingctl up --from ID"))
        }
    }
}

fn view(kept: &Kept) -> TrashView {
    let since = kept.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let ms = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    TrashView {
        id: kept.id.clone(),
        name: kept.record.as_ref().map(|record| record.name.clone()),
        project: kept.record.as_ref().map(|record| record.project.clone()),
        destroyed: Timestamp::from_unix_ms(ms(since)),
        kept_until: Timestamp::from_unix_ms(ms(since + trash::KEPT)),
        bytes: kept.bytes,
    }
}

fn freed(kept: &Kept) -> Freed {
    let name = kept.record.as_ref().map_or_else(|| kept.id.to_string(), |record| record.name.to_string());
    Freed { kind: FreedKind::Workspace, name, bytes: kept.bytes }
}
