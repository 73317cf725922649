//! The daemon is replaced by a newer one while a run goes on.

use std::path::Path;

use serde_json::Value;

use crate::world::{SHOP, World, executable, program, wait_until};

/// Turns what a daemon of today wrote into what one of the first version did: its workspaces' records had no revision.
fn age(world: &World) {
    let db = sled::open(world.state().join("db")).unwrap();
    let workspaces = db.open_tree("workspaces").unwrap();
    let mut aged = 0;
    for entry in &workspaces {
        let (key, value) = entry.unwrap();
        let mut record: Value = serde_json::from_slice(&value[1..]).unwrap();
        assert_eq!(value[0], 2, "this test knows how to make version 1 of version 2");
        record.as_object_mut().unwrap().remove("revision").expect("version 2 has a revision");
        let mut old = vec![1];
        serde_json::to_writer(&mut old, &record).unwrap();
        workspaces.insert(key, old).unwrap();
        aged += 1;
    }
    assert_eq!(aged, 1);
    db.flush().unwrap();
    let copy = world.own_directory().join("host/record.json");
    let mut record = read(&copy);
    record["version"] = 1.into();
    record.as_object_mut().unwrap().remove("revision").unwrap();
    std::fs::write(&copy, record.to_string()).unwrap();
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The lines that a run wrote, as its log has them.
fn lines(world: &World, project: &Path, args: &[&str]) -> Vec<String> {
    let logs = world.ok(project, args).out;
    let events = logs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["type"] == "output").map(|event| event["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_newer_daemon_with_a_newer_store_takes_over_a_run_that_is_under_way() {
    let Some(mut world) = World::with_engine("a newer daemon") else { return };
    let installed = world.path("vcodingd");
    std::fs::copy(program("vcodingd"), &installed).unwrap();
    world.set("VCODING_DAEMON", installed.to_str().unwrap());
    let project = world.repository("shop", &SHOP);
    world.ok(&project, &["up"]);
    let script = "i=0; while ! [ -e end ]; do i=$((i+1)); echo line $i; sleep 0.02; done; echo the end; exit 3";
    let run = world.ok(&project, &["run", "--detach", "--", "sh", "-c", script]).out.trim().to_owned();
    wait_until(|| lines(&world, &project, &["--json", "logs", &run]).len() > 5, "the run's first lines");

    world.kill_daemon();
    age(&world);
    let mut newer = std::fs::read(program("vcodingd")).unwrap();
    newer.extend_from_slice(b"newer");
    std::fs::write(world.path("vcodingd.new"), newer).unwrap();
    executable(&world.path("vcodingd.new"));
    std::fs::rename(world.path("vcodingd.new"), &installed).unwrap();

    let before = lines(&world, &project, &["--json", "logs", &run]).len();
    let running = world.daemon_pid().unwrap();
    assert_eq!(std::fs::read_link(format!("/proc/{running}/exe")).unwrap(), installed);
    wait_until(|| lines(&world, &project, &["--json", "logs", &run]).len() > before, "more lines of the run");
    assert_eq!(world.json(&project, &["runs"])["runs"][0]["state"], "running");
    world.ok(&project, &["exec", "--", "touch", "end"]);
    let followed = lines(&world, &project, &["--json", "logs", "-f", &run]);
    let counted: Vec<String> = (1..followed.len()).map(|n| format!("line {n}")).chain(["the end".to_owned()]).collect();
    assert_eq!(followed, counted, "no gap and no duplicate");
    let ended = world.json(&project, &["runs"])["runs"][0].clone();
    assert_eq!((ended["state"].as_str(), ended["status"].as_i64()), (Some("failed"), Some(3)), "{ended}");

    // What changes next is written in the new form.
    world.ok(&project, &["stop"]);
    let record = read(&world.own_directory().join("host/record.json"));
    assert_eq!(record["version"], 2);
    assert!(record["revision"].as_u64().unwrap() > 0, "{record}");
}
