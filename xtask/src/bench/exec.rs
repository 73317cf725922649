//! A command's way into a guest and back.

use std::process::{Command, Stdio};

use anyhow::Result;

use super::world::World;
use super::{Contender, compare};
use crate::{program, say};

const ROUNDS: usize = 60;

pub fn bench(world: &World) -> Result<()> {
    let project = world.project(10)?;
    let began = std::time::Instant::now();
    program::run(world.ctl(&project, &["-q", "up"]).stdout(Stdio::null()))?;
    say::data(format_args!("\nup, cold (image with OpenSSH to be built): {:.1} s", began.elapsed().as_secs_f64()));

    let ours = world.ctl(&project, &["exec", "--", "echo"]);
    let (container, pid) = (world.peer().container.clone(), world.peer().pid.clone());
    let mut docker = Command::new("docker");
    docker.args(["exec", &container, "echo"]);
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["-a", "-t", &pid, "echo"]);
    let mut master = world.peer().ssh(true);
    master.args(["root@127.0.0.1", "echo"]);
    let mut fresh = world.peer().ssh(false);
    fresh.args(["root@127.0.0.1", "echo"]);
    let contender = |name, base: Command| Contender::new(name, move |nonce: &str| with_args(&base, &[nonce]));
    compare(
        "exec -- echo NONCE, whole process",
        &mut [
            contender("vcodingctl exec", ours),
            contender("ssh, ControlMaster", master),
            contender("docker exec", docker),
            contender("nsenter -a", nsenter),
            contender("ssh, fresh connection", fresh),
            // What no way into a guest can save.
            contender("echo, on the host", Command::new("/usr/bin/echo")),
        ],
        ROUNDS,
    )?;

    let up = world.ctl(&project, &["-q", "up"]);
    let (mut warm, mut looked) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let began = std::time::Instant::now();
        program::read(&mut with_args(&up, &[]))?;
        warm.push(began.elapsed());
        let began = std::time::Instant::now();
        program::read(Command::new("docker").args(["inspect", "-f", "{{.State.Running}}", &world.peer().container]))?;
        looked.push(began.elapsed());
    }
    super::print("up, warm, beside a docker inspect", &[("vcodingctl up", warm), ("docker inspect", looked)]);
    Ok(())
}

/// A command cannot be cloned: one of the same program, environment and directory, with more arguments.
fn with_args(base: &Command, more: &[&str]) -> Command {
    let mut command = Command::new(base.get_program());
    command.args(base.get_args()).args(more).stdin(Stdio::null());
    if let Some(dir) = base.get_current_dir() {
        command.current_dir(dir);
    }
    for (name, value) in base.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}
