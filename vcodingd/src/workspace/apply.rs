//! An apply: the newest checkpoint becomes a branch of the project's repository; and what every way home has to watch.

use history::Id;
use protocol::{Error, Kind};

use super::actor::Actor;
use super::consent::{self, Proposed, Recipe};
use super::failure;
use super::machine::Operation;
use super::steps::{Told, blocking};
use crate::transfer;

impl Actor {
    pub(super) async fn publish_branch(&mut self, operation: &Operation, told: &mut Told) -> Result<(), Error> {
        let Operation::Apply { branch } = operation else {
            return Err(Error::new(Kind::Internal, "only an apply publishes"));
        };
        let (project, name) = (self.record.project.clone(), self.record.name.clone());
        let is_there = blocking({
            let project = project.clone();
            move || Ok(project.is_dir())
        });
        if !is_there.await? {
            let at = project.display();
            let message = format!("the project of workspace {name} is no longer at {at}");
            return Err(Error::new(Kind::NoProject, message)
                .hint(format!("move it back, or put a link there: ln -s NEW-PLACE {at}")));
        }
        // Whoever merges the branch is asked for consent, whatever happens here.
        let resolve = async |name: &str| self.timeline.resolve(name.into()).await.map_err(|e| failure::of_timeline(&e));
        self.propose(resolve("base").await?, resolve("@").await?).await?;
        let done = transfer::apply(&self.timeline, self.record.name.to_string(), branch.clone()).await;
        told.applied = Some(done.map_err(|e| failure::of_timeline(&e))?);
        self.look_at_history().await
    }

    /// Before anything of a checkpoint can come home: what decides how a guest is made asks from then on.
    pub(super) async fn propose(&self, from: Id, to: Id) -> Result<(), Error> {
        let project = self.record.project.clone();
        let recipe = blocking(move || Ok(Recipe::of(&project))).await?;
        let of = recipe.clone();
        let proposed = self.timeline.with(move |history, _| Proposed::between(history, from, to, &of)).await;
        let proposed = proposed.map_err(|e| failure::of_timeline(&e))?;
        let (state_dir, project) = (self.shared.state_dir.clone(), self.record.project.clone());
        blocking(move || {
            consent::propose(&state_dir, &project, &recipe, &proposed).map_err(|e| failure::of_file(&state_dir, &e))
        })
        .await
    }
}
