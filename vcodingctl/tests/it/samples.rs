//! What a daemon might say.

use protocol::Timestamp;
use serde_json::{Value, json};

pub const WORKSPACE: &str = "01jd0000000000000000000000";
pub const RUN: &str = "01kavw3r5m0000000007x4k2q9";
pub const BASE: &str = "3f2a91c04b7d1e5f8a6b9c0d1e2f3a4b5c6d7e8f";
pub const HEAD: &str = "77aa01b2c3d4e5f60718293a4b5c6d7e8f901a2b";

/// So many seconds before now.
pub fn ago(seconds: i64) -> String {
    Timestamp::from_unix_ms(Timestamp::now().unix_ms() - seconds * 1000).to_string()
}

/// A workspace `shop` in this phase.
pub fn workspace(phase: &str) -> Value {
    json!({
        "id": WORKSPACE, "name": "shop", "project": "/home/me/src/shop", "phase": phase, "created": ago(7300),
        "image": "vcoding/shop:5d41402abc4b", "base": BASE, "head": HEAD, "unapplied": true, "runs": 1,
    })
}

pub fn wall() -> Value {
    json!({
        "interfaces": ["lo"], "uid": 231_072, "gid": 231_072, "capabilities": "0", "no_new_privileges": true,
        "seccomp": true, "read_only_root": true, "carrier": "socket", "runtime": "runc",
        "mounts": [
            {"at": "/work", "writable": true, "from": "work folder"},
            {"at": "/home/work", "writable": true, "from": "home folder"},
            {"at": "/opt/vcoding/bin", "writable": false, "from": "guest program"},
            {"at": "/tmp", "writable": true, "from": "tmpfs"},
            {"at": "/etc/hosts", "writable": false, "from": "engine"},
        ],
    })
}

/// A run of claude in this state, a minute long if it is over.
pub fn run(state: &str) -> Value {
    let mut run = json!({
        "id": RUN, "workspace": WORKSPACE, "workspace_name": "shop", "agent": "claude",
        "title": "make the failing test pass", "state": state, "started": "2026-11-24T16:00:00.000Z",
        "before": BASE,
    });
    if state != "running" {
        run["ended"] = json!("2026-11-24T16:01:03.500Z");
        run["after"] = json!(HEAD);
    }
    run
}

/// A background command's run.
pub fn command(state: &str, status: u8) -> Value {
    let mut run = run(state);
    run.as_object_mut().unwrap().remove("agent");
    run["title"] = json!("make -j2");
    run["status"] = json!(status);
    run["exit"] = json!(status);
    run
}

/// An event of it, `second` seconds after its start.
pub fn event(record: u64, second: u64, body: &Value) -> Value {
    let mut event = json!({
        "seq": [record, 0], "time": format!("2026-11-24T16:00:{second:02}.000Z"), "workspace": WORKSPACE, "run": RUN,
    });
    event.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    json!({ "event": event })
}

pub fn checkpoint(id: &str, cause: &str, names: &[&str]) -> Value {
    json!({"id": id, "time": ago(185), "cause": cause, "added": 1, "changed": 2, "deleted": 0, "names": names})
}
