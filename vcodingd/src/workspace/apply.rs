//! An apply: the newest checkpoint becomes a branch of the project's repository.

use std::path::PathBuf;

use protocol::{Error, Kind};

use super::actor::Actor;
use super::machine::Operation;
use super::steps::{Told, blocking};
use super::{consent, failure};
use crate::{config, transfer};

impl Actor {
    pub(super) async fn publish_branch(&mut self, operation: &Operation, told: &mut Told) -> Result<(), Error> {
        let Operation::Apply { branch } = operation else {
            return Err(Error::new(Kind::Internal, "only an apply publishes"));
        };
        let (project, name) = (self.record.project.clone(), self.record.name.clone());
        let dockerfile = blocking(move || {
            if project.is_dir() {
                // A vcoding.toml with a mistake names no other.
                return Ok(config::Project::load(&project).map_or_else(|_| "Dockerfile".into(), |c| c.dockerfile));
            }
            let at = project.display();
            let message = format!("the project of workspace {name} is no longer at {at}");
            Err(Error::new(Kind::NoProject, message)
                .hint(format!("move it back, or put a link there: ln -s NEW-PLACE {at}")))
        });
        self.propose(dockerfile.await?).await?;
        let done = transfer::apply(&self.timeline, self.record.name.to_string(), branch.clone()).await;
        told.applied = Some(done.map_err(|e| failure::of_timeline(&e))?);
        self.look_at_history().await
    }

    /// Before the branch is there: whoever merges it is asked for consent, whatever happens here.
    async fn propose(&self, dockerfile: PathBuf) -> Result<(), Error> {
        let configured = dockerfile.clone();
        let deciding = self.timeline.changed(move |path| consent::decides(path, &configured)).await;
        let deciding = deciding.map_err(|e| failure::of_timeline(&e))?;
        let (state_dir, project) = (self.shared.state_dir.clone(), self.record.project.clone());
        blocking(move || {
            consent::propose(&state_dir, &project, &dockerfile, &deciding)
                .map_err(|e| failure::of_file(&state_dir.join("proposed"), &e))
        })
        .await
    }
}
