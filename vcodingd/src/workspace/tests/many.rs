//! Fifty workspaces come back, each in another state, and some of them never.

use std::collections::BTreeMap;

use protocol::run::{RunStartParams, RunState};
use protocol::workspace::{Phase, UpParams, WhileRunning, WorkspaceView};
use protocol::{WorkspaceId, WorkspaceRef};

use super::world::{Daemon, World, until};
use crate::provider::Provider;
use crate::provider::fake::Fake;
use crate::store::{Record, Store, Table};
use crate::workspace::machine::{Intent, Operation};
use crate::workspace::record::{Rest, WorkspaceRecord};
use crate::workspace::{Handle, Say};

const MANY: usize = 50;
/// More than take their turn at once.
const STUCK: usize = 6;

fn name(number: usize) -> String {
    format!("w{number}")
}

fn handle(daemon: &Daemon, number: usize) -> Handle {
    daemon.registry.find(&WorkspaceRef::Name(name(number))).unwrap()
}

fn views(daemon: &Daemon) -> BTreeMap<String, WorkspaceView> {
    daemon.registry.list().into_iter().map(|view| (view.name.to_string(), view)).collect()
}

fn hang(number: usize) -> RunStartParams {
    RunStartParams {
        workspace: WorkspaceRef::Name(name(number)),
        agent: None,
        prompt: None,
        argv: vec!["hang".into()],
        model: None,
        resume: None,
        timeout_ms: None,
        max_requests: None,
        progress: false,
    }
}

/// Every operation at every step, but for those that need what only their first step knows.
fn intents(base: &str) -> Vec<Intent> {
    let operations = [
        Operation::Up { rebuild: false, no_cache: false },
        Operation::Up { rebuild: true, no_cache: false },
        Operation::Start,
        Operation::Stop,
        Operation::Destroy { purge: false, force: true },
        Operation::Destroy { purge: true, force: true },
        Operation::Rollback { to: base.to_owned(), before: Some(base.to_owned()), paths: Vec::new(), clean: false },
        Operation::Apply { branch: "vcoding/many".into() },
    ];
    let all = operations.into_iter().flat_map(|operation| {
        (0..operation.steps().len()).map(move |step| Intent { operation: operation.clone(), step })
    });
    all.collect()
}

/// As a daemon leaves it that was killed in the middle of `intent`.
async fn leave(table: &Table<WorkspaceRecord>, id: &WorkspaceId, intent: Intent) {
    let mut record = table.get(id.as_str()).unwrap().expect("it was made");
    record.revision += 1;
    record.intent = Some(intent);
    if matches!(record.intent.as_ref().unwrap().operation, Operation::Up { rebuild: false, .. }) {
        record.rest = Rest::New;
    }
    table.put(&record).await.unwrap();
    assert_eq!(record.key(), id.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_workspaces_in_every_state_come_back_and_none_waits_for_one_that_is_stuck() {
    let world = World::new();
    let mut ids = Vec::new();
    {
        let daemon = world.open().await;
        for number in 0..MANY {
            let params = UpParams {
                project: world.project.clone(),
                name: Some(name(number).parse().unwrap()),
                ..UpParams::default()
            };
            ids.push(daemon.registry.up(params, Say::default()).await.unwrap().workspace.id);
        }
        handle(&daemon, 1).stop(WhileRunning::Refuse).await.unwrap();
        daemon.registry.run_start(hang(2), Say::default()).await.unwrap();
        daemon.end().await;
    }
    let engine = Fake::new(world.guests.clone(), world.state());
    // The guest of one is gone, that of another has ended, and some the engine hangs over.
    engine.remove(&ids[3]).await.unwrap();
    world.guests.crash(&ids[4], true);
    let stuck = 5..5 + STUCK;
    stuck.clone().for_each(|number| world.guests.hang_over(&ids[number]));
    let left: Vec<usize> = (stuck.end..MANY - 1).collect();
    {
        let store = Store::open(&world.state().join("db")).unwrap();
        let table = store.table().unwrap();
        let base = crate::timeline::Timeline::new(crate::timeline::Paths {
            host: world.state().join("workspaces").join(ids[0].as_str()).join("host"),
            tree: world.state().join("workspaces").join(ids[0].as_str()).join("tree"),
            project: world.project.clone(),
            owner: None,
            max_file: 1 << 20,
        })
        .ends()
        .await
        .unwrap()
        .base
        .unwrap();
        let intents = intents(&base);
        assert!(left.len() >= intents.len(), "every step is met: {}", intents.len());
        for (number, intent) in left.into_iter().zip(intents.into_iter().cycle()) {
            leave(&table, &ids[number], intent).await;
        }
    }

    let daemon = world.open().await;
    // Whoever asks for one that nothing is wrong with is answered, whatever the others do.
    handle(&daemon, MANY - 1).pool().await.unwrap();
    let on_its_way = |view: &WorkspaceView| {
        matches!(view.phase, Phase::Creating | Phase::Starting | Phase::Stopping | Phase::Destroying)
            || view.waiting.is_some()
    };
    let is_stuck = |name: &str| stuck.clone().any(|number| name == self::name(number));
    until("the way back of all that can", async || {
        views(&daemon).iter().all(|(name, view)| is_stuck(name) || !on_its_way(view))
    })
    .await;
    let now = views(&daemon);
    assert_eq!(now["w0"].phase, Phase::Ready);
    assert_eq!(now["w1"].phase, Phase::Stopped);
    assert_eq!((now["w2"].phase, now["w2"].runs), (Phase::Ready, 1));
    for number in [3, 4] {
        assert_eq!(now[&name(number)].phase, Phase::Ready, "{:?}", now[&name(number)].problem);
    }
    for view in now.values().filter(|view| !is_stuck(view.name.as_str())) {
        assert!(matches!(view.phase, Phase::Ready | Phase::Stopped), "{view:?}");
        assert_eq!(view.problem, None, "{view:?}");
    }
    for number in stuck.clone() {
        let view = &now[&name(number)];
        assert_eq!(view.phase, Phase::Starting, "{view:?}");
        assert_eq!(view.waiting.as_ref().expect("it says what it waits for").what, "walls");
    }
    let findings = daemon.registry.doctor(&[]).await;
    let of = |name: &str| findings.iter().find(|found| found.message.starts_with(&format!("{name}: "))).unwrap();
    assert!(of("w5").message.contains("waits for walls since "), "{}", of("w5").message);
    let runs = daemon.registry.shared().runs.list().unwrap();
    assert!(runs.into_iter().flatten().all(|run| run.state == RunState::Running));
    daemon.end().await;
}
