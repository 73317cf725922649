//! What a run needs before it takes its turn: the agent's manifest, its program, its endpoint
//! with the key. Fetching may take a minute; the workspace is not held meanwhile.

use std::path::Path;

use protocol::run::RunStartParams;
use protocol::workspace::StepState;
use protocol::{Error, Kind};

use super::active::{Prepared, PreparedAgent};
use super::{Say, Shared, failure};
use crate::agents::{self, Libc, Manifest, Platform};
use crate::{config, egress};

/// A longer prompt is refused: it has to fit into a frame.
const MAX_PROMPT: usize = 1 << 20;

pub(super) async fn prepare(
    shared: &Shared,
    params: RunStartParams,
    libc: Libc,
    model: impl FnOnce(&str) -> Option<String>,
    say: &Say,
) -> Result<Prepared, Error> {
    let refused =
        |why: &str| Err(Error::new(Kind::InvalidParameters, format!("run.start: {why}")).hint("vcodingctl run --help"));
    let Some(name) = params.agent.clone() else {
        if params.argv.is_empty() {
            return refused("there is neither an agent nor a command");
        }
        return Ok(Prepared { params, agent: None });
    };
    if !params.argv.is_empty() {
        return refused("an agent takes a prompt, not a command");
    }
    let prompt = params.prompt.as_deref().unwrap_or_default();
    if prompt.trim().is_empty() {
        return refused("the prompt is empty");
    }
    if prompt.len() > MAX_PROMPT {
        return refused("the prompt is longer than 1 MiB");
    }
    let manifest = agents::find(Some(&shared.config_dir.join("agents")), &name).map_err(|e| failure::of_agents(&e))?;
    // First what costs nothing and fails most often.
    let endpoint = endpoint(shared, &manifest)?;
    endpoint.reach().await.map_err(|e| {
        let hint = match user(shared).is_ok_and(|user| user.endpoints.contains_key(&manifest.endpoint.key)) {
            true => format!("config.toml: [endpoints] {} says where it is", manifest.endpoint.key),
            false => "is this computer on the network?".to_owned(),
        };
        Error::new(Kind::ModelEndpoint, format!("the model endpoint {} cannot be reached: {e}", endpoint.name()))
            .hint(hint)
    })?;
    let resume = match &params.resume {
        Some(run) => Some(session_to_resume(shared, run)?),
        None => None,
    };
    let installed = install(shared, &manifest, libc, say).await?;
    let params = RunStartParams { model: params.model.clone().or_else(|| model(&name)), ..params };
    Ok(Prepared { params, agent: Some(PreparedAgent { manifest, installed, endpoint, resume }) })
}

async fn install(shared: &Shared, manifest: &Manifest, libc: Libc, say: &Say) -> Result<agents::Installed, Error> {
    let platform = Platform::of_host(libc).map_err(|e| failure::of_agents(&e))?;
    let user = user(shared)?;
    let registry = user.agents.registry.as_deref().unwrap_or(agents::REGISTRY);
    let step = format!("{} {}", manifest.title, manifest.version);
    let began = std::time::Instant::now();
    say.say(&step, StepState::Started, None, None).await;
    let mut told = 0;
    let done = shared
        .agents
        .ensure(registry, manifest, platform, |done, total| {
            // A line per tenth is enough.
            let tenth = done.saturating_mul(10).checked_div(total).unwrap_or(0);
            if tenth > told {
                told = tenth;
                say.output(&step, format!("{} of {} MiB", done >> 20, total >> 20));
            }
        })
        .await;
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    match &done {
        Ok(installed) if installed.fetched => say.say(&step, StepState::Done, None, Some(took)).await,
        Ok(_) => say.say(&step, StepState::Cached, None, None).await,
        Err(error) => say.say(&step, StepState::Failed, Some(error.to_string()), Some(took)).await,
    }
    done.map_err(|e| failure::of_agents(&e))
}

/// The user's configuration as it is now: whoever has just changed it need not restart anything.
fn user(shared: &Shared) -> Result<config::User, Error> {
    config::User::load(&shared.config_dir).map_err(|e| failure::of_config(&e))
}

/// Where the agent's requests go: the manifest's base, or the user's for that key.
fn endpoint(shared: &Shared, manifest: &Manifest) -> Result<egress::Endpoint, Error> {
    let key = &manifest.endpoint.key;
    let secret = shared.secrets.get(key).map_err(|e| failure::of_secrets(&e))?.ok_or_else(|| {
        Error::new(Kind::KeyMissing, format!("there is no {key} for {}", manifest.title)).hint(format!(
            "vcodingctl secret set {key}   (the key is read from standard input and stays on this machine)"
        ))
    })?;
    let user = user(shared)?;
    let base = user.endpoints.get(key).unwrap_or(&manifest.endpoint.base);
    let wire = match manifest.endpoint.wire {
        agents::Wire::Anthropic => egress::Wire::Anthropic,
    };
    egress::Endpoint::new(base, secret, wire, &manifest.endpoint.paths).map_err(|e| {
        Error::new(Kind::InvalidConfiguration, format!("the endpoint of {key}: {e}"))
            .hint("config.toml: [endpoints] says where it is")
    })
}

/// The endpoint of a run that an earlier daemon began.
pub(super) fn endpoint_of_agent(shared: &Shared, agent: &str) -> Result<egress::Endpoint, Error> {
    let manifest = agents::find(Some(&shared.config_dir.join("agents")), agent).map_err(|e| failure::of_agents(&e))?;
    endpoint(shared, &manifest)
}

fn session_to_resume(shared: &Shared, run: &protocol::RunId) -> Result<String, Error> {
    let record = shared.runs.get(run.as_str()).map_err(|e| failure::of_store(&e))?;
    let unknown = || Error::new(Kind::RunNotFound, format!("there is no run {run}")).hint("vcodingctl runs");
    record.ok_or_else(unknown)?.session.ok_or_else(|| {
        Error::new(Kind::InvalidParameters, format!("run {run} has no session that could go on"))
            .hint("vcodingctl runs")
    })
}

/// Which C library a work tree's image has: the one whose loader is there. Asked of the image,
/// since an agent's program has to fit it.
pub(super) async fn libc_of(shared: &Shared, image: &str) -> Libc {
    use crate::provider::{ImageId, Look, PathKind};
    let loader = format!("/lib/ld-musl-{}.so.1", std::env::consts::ARCH);
    let looks = [Look::At(&loader)];
    match shared.provider.peek(&ImageId(image.to_owned()), &looks).await {
        Ok(found) if found.first().is_some_and(|p| p.kind != PathKind::Missing) => Libc::Musl,
        Ok(_) | Err(_) => Libc::Gnu,
    }
}

/// The agents' store of a state directory.
pub fn open_store(state_dir: &Path) -> Result<agents::Store, Error> {
    agents::Store::open(&state_dir.join("store/agents")).map_err(|e| failure::of_agents(&e))
}
