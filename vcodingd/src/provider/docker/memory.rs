//! How often the kernel ended a process of a guest for its memory limit, as the guest's control group on this host has it.

use std::path::{Path, PathBuf};

use super::mountinfo::{self, Mount};
use super::{read_host, read_init, read_proc};
use crate::provider::InitProcess;

/// `None` where that process is gone, and where this host does not tell.
pub(super) fn kills(init: &InitProcess) -> Option<u64> {
    let mounts = mountinfo::parse(&read_host("/proc/self/mountinfo").ok()?).ok()?;
    let file = file(&read_proc(init.pid, "cgroup").ok()?, &mounts)?;
    let kills = count(&read_host(file.to_str()?).ok()?)?;
    // Not of a later process with its number, whose group was read.
    read_init(init.pid).is_ok_and(|now| now.start_time == init.start_time).then_some(kills)
}

/// Where the count is for a process with this /proc/PID/cgroup (cgroups(7)): with version 1 in the group of its controller,
/// else in the one group there is.
fn file(groups: &str, mounts: &[Mount]) -> Option<PathBuf> {
    // hierarchy:controllers:path
    let group = |wanted: &str| {
        let mut lines = groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        lines.find(|(controllers, _)| controllers.split(',').any(|one| one == wanted)).map(|(_, path)| path)
    };
    let below = |mount: &Mount, path: &str| {
        let rest = Path::new(path).strip_prefix(&mount.root).ok()?;
        // A group that lies above what is mounted here.
        let inside = rest.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        inside.then(|| Path::new(&mount.target).join(rest))
    };
    let first = |path: &str, is: &dyn Fn(&Mount) -> bool, name: &str| {
        mounts.iter().filter(|mount| is(mount)).find_map(|mount| below(mount, path)).map(|dir| dir.join(name))
    };
    let of_controller = |m: &Mount| m.fs_type == "cgroup" && m.super_options.iter().any(|option| option == "memory");
    match group("memory") {
        Some(path) => first(path, &of_controller, "memory.oom_control"),
        None => first(group("")?, &|m| m.fs_type == "cgroup2", "memory.events"),
    }
}

fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "9:name=systemd:/docker/ab\n5:cpu,memory:/docker/ab\n0::/docker/ab\n";
    const MOUNTS: &str = "\
30 20 0:26 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,cpu,memory
31 20 0:27 / /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids
32 20 0:28 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw
";

    #[test]
    fn the_count_is_found_with_both_versions_of_control_groups() {
        let mounts = mountinfo::parse(MOUNTS).unwrap();
        let found = |groups| file(groups, &mounts).map(|path| path.to_str().unwrap().to_owned());
        assert_eq!(found(V1).as_deref(), Some("/sys/fs/cgroup/memory/docker/ab/memory.oom_control"));
        let one = "0::/system.slice/docker-ab.scope\n";
        let expected = "/sys/fs/cgroup/unified/system.slice/docker-ab.scope/memory.events";
        assert_eq!(found(one).as_deref(), Some(expected));
        for nowhere in ["", "0:", "3:pids:/x\n", "0::/../other\n", "4:memory:/../x\n"] {
            assert_eq!(found(nowhere), None, "{nowhere:?}");
        }
        // Where this daemon is in a container of its own, it sees a part.
        let part = "30 20 0:26 /docker/me /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let part = mountinfo::parse(part).unwrap();
        assert_eq!(file(V1, &part), None);
        assert!(file("4:memory:/docker/me/inner\n", &part).unwrap().ends_with("memory/inner/memory.oom_control"));
    }

    #[test]
    fn the_count_is_one_line_of_several() {
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(count("low 0\nhigh 0\nmax 11\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(count("oom_kill_disable 0\n"), None);
    }
}
