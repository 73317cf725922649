//! `model-server --listen 127.0.0.1:0 --script FILE.json --log FILE`: the scripted model endpoint as a program.
//!
//! Prints its base URL as the one line on standard output and serves until it is ended. `--script fix-failing-test` and
//! `--script make-check-pass` name the built-in scripts; `--work DIR` is the directory the agent works in (default `/work`);
//! with `--key KEY` other keys are refused.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use model_server::{ModelServer, Script};

const USAGE: &str =
    "usage: model-server [--listen ADDR:PORT] --script FILE.json|NAME [--work DIR] [--key KEY] [--log FILE]";

fn main() -> Result<()> {
    let mut listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut script = None;
    let mut work = "/work".to_owned();
    let mut key = None;
    let mut log = None;
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("{flag} needs a value\n{USAGE}"))?;
        match flag.as_str() {
            "--listen" => {
                listen = value.parse().with_context(|| format!("--listen {value}: not an address"))?;
            }
            "--script" => script = Some(value),
            "--work" => work = value,
            "--key" => key = Some(value),
            "--log" => log = Some(PathBuf::from(value)),
            _ => bail!("{flag} is not known\n{USAGE}"),
        }
    }
    let Some(name) = script else { bail!("--script is missing\n{USAGE}") };
    let mut script = match Script::named(&name, &work) {
        Some(script) => script,
        None => {
            let json = std::fs::read_to_string(&name).with_context(|| format!("cannot read the script {name}"))?;
            Script::parse(&json, &work).with_context(|| format!("the script {name}"))?
        }
    };
    script.key = key.or(script.key);
    let server = ModelServer::serve(script, listen, log.as_deref())?;
    writeln!(std::io::stdout(), "{}", server.url())?;
    server.join();
    Ok(())
}
