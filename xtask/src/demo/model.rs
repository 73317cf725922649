//! Who plays the model: the real endpoint where `ANTHROPIC_API_KEY` is set, else the scripted one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::stage::Stage;
use crate::build::Programs;
use crate::say;

/// Connects the stage to a model; without a key, to the scripted server, started here.
pub fn connect(stage: &mut Stage, programs: &Programs) -> Result<()> {
    if std::env::var_os("ANTHROPIC_API_KEY").is_some_and(|key| !key.is_empty()) {
        say::line("    ANTHROPIC_API_KEY is set: the real model will be asked (it costs a few cents)");
        return Ok(());
    }
    say::line("    no ANTHROPIC_API_KEY: a scripted model plays its part; all else is real");
    let errors = fs::File::create(stage.file("model-server.err"))?;
    let mut server = Command::new(&programs.model_server)
        .args(["--script", "fix-failing-test", "--log"])
        .arg(stage.file("model-server.jsonl"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .with_context(|| format!("cannot start {}", programs.model_server.display()))?;
    let out = server.stdout.take().expect("standard output was piped above");
    stage.keep(server);
    let mut url = String::new();
    BufReader::new(out).read_line(&mut url)?;
    let url = url.trim();
    if !url.starts_with("http://") {
        bail!("the scripted model server did not start: see {}", stage.file("model-server.err").display());
    }
    // The user's configuration says which endpoint stands for the provider's; the key is one that only it takes.
    let config = format!("[endpoints]\nANTHROPIC_API_KEY = \"{url}\"\n");
    fs::write(stage.config().join("config.toml"), config)?;
    stage.set_env("ANTHROPIC_API_KEY", "scripted-model-key");
    Ok(())
}
