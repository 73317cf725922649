//! Many workspaces on one engine.

use crate::world::{World, wait_until};

const MANY: usize = 30;

#[test]
fn thirty_workspaces_come_back_and_the_first_command_waits_for_its_own_alone() {
    let Some(world) = World::with_engine("thirty_workspaces_come_back") else { return };
    let project = world.repository("tiny", &[("Dockerfile", "FROM debian:bookworm-slim\n")]);
    world.ok(&project, &["up", "-w", "w0"]);
    std::thread::scope(|scope| {
        for first in 1..4 {
            let (world, project) = (&world, &project);
            scope.spawn(move || {
                for number in (first..MANY).step_by(3) {
                    world.ok(project, &["up", "-w", &format!("w{number}")]);
                }
            });
        }
    });
    for newest_first in [true, false] {
        world.kill_daemon();
        let asked = if newest_first { format!("w{}", MANY - 1) } else { "w0".to_owned() };
        world.ok(&project, &["-w", &asked, "exec", "--", "true"]);
        let phases = || {
            let listed = world.json(&project, &["ls"]);
            let all = listed["workspaces"].as_array().unwrap().iter();
            all.map(|workspace| workspace["phase"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(phases().len(), MANY);
        wait_until(|| phases().iter().all(|phase| phase == "ready"), "the way back of all");
    }
    world.ok(&project, &["daemon", "stop"]);
    world.ok(&project, &["-w", "w7", "exec", "--", "true"]);
}
