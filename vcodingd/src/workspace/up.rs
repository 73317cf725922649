//! Making a workspace, and making sure that it runs.

use protocol::{Error, Kind, WorkspaceId};

use super::actor::Actor;
use super::handle::{Rebuild, UpDone};
use super::machine::Operation;
use super::record::Rest;
use super::steps::Told;
use super::{Say, Shared};
use crate::image;

impl Actor {
    pub(super) async fn up(&mut self, how: Rebuild, say: &Say) -> Result<UpDone, Error> {
        let rebuild = how != Rebuild::No;
        let created = self.record.rest == Rest::New;
        if !rebuild && self.is_up().await {
            return Ok(UpDone { told: self.whether_the_project_moved_on().await, created: false });
        }
        if rebuild && !created && self.runs.any() {
            return Err(Error::new(Kind::WorkspaceBusy, format!("workspace {} has runs under way", self.record.name))
                .hint("vcodingctl runs"));
        }
        self.lose_runs_of_a_gone_guest().await;
        self.look_at_history().await?;
        // Of a workspace that is there, only the guest is made to run again.
        let operation = if created || rebuild || self.has_no_image().await || self.ends.base.is_none() {
            Operation::Up { rebuild: rebuild && !created, no_cache: how == Rebuild::Anew }
        } else {
            Operation::Start
        };
        let mut told = self.operate(operation, say).await.map_err(|error| {
            let hint = error.data.hint.clone().filter(|_| rebuild && !created);
            match hint {
                Some(hint) => error.hint(hint.replace("then: vcodingctl up", "then: vcodingctl up --rebuild")),
                None => error,
            }
        })?;
        self.forget_superseded().await;
        if !created && !rebuild {
            told.notes.extend(self.whether_the_project_moved_on().await.notes);
        }
        Ok(UpDone { told, created })
    }

    /// The images that a rebuild replaced go; one that is in use, or that nobody can be asked about, stays recorded.
    pub(super) async fn forget_superseded(&mut self) {
        let mut left = Vec::new();
        for reference in self.record.superseded.clone() {
            if !forget_image(&self.shared, &self.record.id, &reference).await {
                left.push(reference);
            }
        }
        if left == self.record.superseded {
            return;
        }
        self.record.superseded = left;
        if let Err(error) = self.save().await {
            // The next daemon forgets them again, which is no harm.
            tracing::warn!(workspace = %self.record.id, %error, "that images were removed was not recorded");
        }
    }

    /// By the engine's word too: a guest may have been stopped or removed behind our back.
    async fn is_up(&self) -> bool {
        let (Some(walls), true) = (&self.walls, self.pool.is_some() && self.record.problem.is_none()) else {
            return false;
        };
        self.record.rest == Rest::Ready
            && self.places.mounted_are_there()
            && self.timeline.is_there()
            && self.shared.provider.init_process(&self.record.id).await.is_ok_and(|init| init == walls.init)
    }

    async fn whether_the_project_moved_on(&self) -> Told {
        let (project, known) = (self.record.project.clone(), self.record.image.clone());
        let commits = self.timeline.project_moved_on().await.unwrap_or(false).then(|| {
            "the project has other commits than were copied in; the guest keeps what it has (vcodingctl apply takes its \
             work home, then vcodingctl destroy and vcodingctl up begin anew)"
                .to_owned()
        });
        let note = tokio::task::spawn_blocking(move || match crate::config::Project::load(&project) {
            Ok(config) => (known?.source != super::image_step::source_of(&project, &config)).then(|| {
                "the Dockerfile or vcoding.toml changed since the guest was made: vcodingctl up --rebuild takes it in"
                    .to_owned()
            }),
            Err(error) => Some(format!("it runs as it was made; {error}")),
        });
        Told { notes: note.await.ok().flatten().into_iter().chain(commits).collect(), ..Told::default() }
    }

    pub(super) async fn start(&mut self) -> Result<(), Error> {
        if self.is_up().await {
            return Ok(());
        }
        if self.record.rest == Rest::New {
            return Err(Error::new(Kind::WorkspaceNotRunning, format!("workspace {} was never up", self.record.name))
                .hint("vcodingctl up"));
        }
        self.lose_runs_of_a_gone_guest().await;
        let operation = self.way_to_run_again().await;
        self.operate(operation, &Say::default()).await.map(drop)
    }

    /// Somebody may have removed the image: then it is made again.
    pub(super) async fn way_to_run_again(&self) -> Operation {
        if self.has_no_image().await { Operation::Up { rebuild: false, no_cache: false } } else { Operation::Start }
    }

    async fn has_no_image(&self) -> bool {
        match &self.record.image {
            // An engine that does not answer says nothing about images.
            Some(image) => {
                let found = self.shared.provider.image(&image.reference).await;
                matches!(found, Err(crate::provider::Error::NoSuchImage { .. }))
            }
            None => true,
        }
    }
}

/// Whether no workspace has this image or is just being made from it.
pub(super) fn is_free(shared: &Shared, but: Option<&WorkspaceId>, reference: &str) -> bool {
    matches!(use_of(shared, but, reference), Use::None)
}

/// Who needs an image.
enum Use {
    None,
    /// Another workspace.
    Another,
    /// A record cannot be read, or a workspace that may come to need it is just being made.
    Unknown,
}

fn use_of(shared: &Shared, but: Option<&WorkspaceId>, reference: &str) -> Use {
    let Ok(all) = shared.workspaces.list() else { return Use::Unknown };
    for other in all {
        let Ok(other) = other else { return Use::Unknown };
        if Some(&other.id) == but {
            continue;
        }
        if other.image.is_some_and(|image| image.reference == reference || image.id == reference) {
            return Use::Another;
        }
        let is_made = other.intent.is_some_and(|intent| matches!(intent.operation, Operation::Up { .. }));
        if is_made && image::is_of(reference, &other.name) {
            return Use::Unknown;
        }
    }
    Use::None
}

/// An image that no workspace but `workspace` needs goes, by its reference or its id; its layers stay as long as others have them.
/// False if it may have to go another time: it is in use, the engine does not answer, or another workspace is just being made.
pub(super) async fn forget_image(shared: &Shared, workspace: &WorkspaceId, reference: &str) -> bool {
    match use_of(shared, Some(workspace), reference) {
        Use::None => {}
        Use::Another => return true,
        Use::Unknown => return false,
    }
    let removed = shared.provider.remove_image(reference).await;
    if let Err(error) = &removed {
        tracing::debug!(%reference, %error, "an image that nobody needs was not removed");
    }
    removed.is_ok()
}
