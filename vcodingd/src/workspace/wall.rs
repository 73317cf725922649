//! What isolates a guest, as clients are told.

use protocol::workspace::{Wall, WallMount};

use crate::provider::Walls;

/// What of ours is mounted there.
fn source_of_mount(at: &str) -> &'static str {
    match at {
        "/work" => "work tree",
        "/home/work" => "home",
        "/run/vcoding" => "way in and runs",
        "/etc/vcoding" => "keys and sshd",
        "/etc/passwd" | "/etc/group" => "accounts",
        "/opt/vcoding/bin" => "helper",
        "/opt/vcoding/agents" => "agents' programs",
        _ => "state directory",
    }
}

/// What the kernel reported, as clients are told.
pub(super) fn wall(walls: &Walls, carrier: &str) -> Wall {
    let report = &walls.report;
    let mut mounts: Vec<WallMount> = report
        .shared
        .iter()
        .map(|text| {
            let (at, writable) = match text.strip_suffix(" (rw)") {
                Some(at) => (at, true),
                None => (text.strip_suffix(" (ro)").unwrap_or(text), false),
            };
            WallMount { at: at.to_owned(), writable, from: source_of_mount(at).into() }
        })
        .collect();
    let memory = report.memory.iter().map(|text| WallMount { at: text.clone(), writable: true, from: "tmpfs".into() });
    mounts.extend(memory);
    mounts.extend(report.engine_files.iter().map(|at| WallMount {
        at: at.clone(),
        writable: false,
        from: "engine".into(),
    }));
    Wall {
        interfaces: report.interfaces.clone(),
        uid: report.user.uid,
        gid: report.user.gid,
        capabilities: format!("{:x}", report.capabilities),
        no_new_privileges: report.no_new_privileges,
        seccomp: report.seccomp_filters > 0,
        read_only_root: report.read_only_root,
        mounts,
        carrier: carrier.to_owned(),
        runtime: "docker".into(),
    }
}
