//! The walls of a running guest, as the kernel reports them, against what was asked for.
//!
//! Pure: text in, differences out. Mounts are compared as an exact list: ours by device, root,
//! right and size; the engine's own by a closed table; anything else is a difference. What the
//! engine says of itself plays no part.

use std::path::{Path, PathBuf};

use super::mountinfo::{Mount, containing, parse};
use crate::provider::{Bind, InitProcess, SHM_BYTES, User, WallReport};

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub user: User,
    pub binds: Vec<Bind>,
    /// Target and size in bytes.
    pub tmpfs: Vec<(String, u64)>,
    /// The engine's id of the container; its files carry it in their path.
    pub container: String,
}

/// What the kernel says of the init, as text from /proc.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    /// This process' own, to know what a bind's source is to the kernel.
    pub host_mountinfo: String,
    pub mountinfo: String,
    pub status: String,
    pub net_dev: String,
}

/// The report, or every difference by name.
pub(super) fn compare(expected: &Expected, observed: &Observed) -> Result<WallReport, Vec<String>> {
    let mut odd = Vec::new();
    let process = process(expected, &observed.status, &mut odd);
    let interfaces = interfaces(&observed.net_dev);
    if interfaces != ["lo"] {
        odd.push(format!("network interfaces: {} (expected lo alone)", interfaces.join(", ")));
    }
    let mut report = WallReport {
        interfaces,
        user: expected.user,
        capabilities: process.capabilities,
        no_new_privileges: process.no_new_privileges,
        seccomp_filters: process.filters,
        read_only_root: false,
        shared: Vec::new(),
        memory: Vec::new(),
        engine_files: Vec::new(),
    };
    match (parse(&observed.mountinfo), parse(&observed.host_mountinfo)) {
        (Ok(mounts), Ok(host)) => self::mounts(expected, &mounts, &host, &mut report, &mut odd),
        (Err(why), _) => odd.push(format!("its mounts cannot be read: {why}")),
        (_, Err(why)) => odd.push(format!("this host's mounts cannot be read: {why}")),
    }
    if odd.is_empty() { Ok(report) } else { Err(odd) }
}

struct Process {
    capabilities: u64,
    no_new_privileges: bool,
    filters: u32,
}

fn process(expected: &Expected, status: &str, odd: &mut Vec<String>) -> Process {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let words = |name: &str| field(name).map(|value| value.split_whitespace().collect::<Vec<_>>());
    let mut must = |name: &str, holds: bool, want: &str| {
        if !holds {
            odd.push(format!("{name}: {} (expected {want})", field(name).unwrap_or("absent")));
        }
    };

    let (uid, gid) = (expected.user.uid.to_string(), expected.user.gid.to_string());
    let all_are = |name: &str, id: &str| words(name).is_some_and(|ids| ids.len() == 4 && ids.iter().all(|i| *i == id));
    must("Uid", all_are("Uid", &uid), &uid);
    must("Gid", all_are("Gid", &gid), &gid);
    // Engines add the primary group or nothing.
    must("Groups", words("Groups").is_some_and(|groups| groups.iter().all(|g| *g == gid)), &gid);
    // The last number is the pid in its own namespace.
    must("NSpid", words("NSpid").is_some_and(|pids| pids.len() >= 2 && pids.last() == Some(&"1")), "1 within");

    let mut capabilities = 0;
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let set = field(name).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        must(name, set == Some(0), "none");
        capabilities |= set.unwrap_or(u64::MAX);
    }
    must("NoNewPrivs", field("NoNewPrivs") == Some("1"), "1");
    must("Seccomp", field("Seccomp") == Some("2"), "2, a filter");
    // Older kernels do not count the filters.
    let filters = field("Seccomp_filters").map_or(Some(1), |n| n.parse().ok());
    must("Seccomp_filters", filters.is_some_and(|n| n >= 1), "1 or more");
    Process { capabilities, no_new_privileges: field("NoNewPrivs") == Some("1"), filters: filters.unwrap_or(0) }
}

fn interfaces(net_dev: &str) -> Vec<String> {
    net_dev.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

fn mounts(expected: &Expected, mounts: &[Mount], host: &[Mount], report: &mut WallReport, odd: &mut Vec<String>) {
    for (i, mount) in mounts.iter().enumerate() {
        if mounts[..i].iter().any(|earlier| earlier.target == mount.target) {
            odd.push(format!("{}: mounted over once more", mount.target));
        }
        match kind(expected, mount, mounts) {
            Some(Kind::Root) => report.read_only_root = true,
            Some(Kind::Engine) => {}
            Some(Kind::EngineFile) => report.engine_files.push(mount.target.clone()),
            Some(Kind::Ours) => {}
            None => odd.push(format!(
                "{}: a mount that does not belong ({} {}, {})",
                mount.target,
                mount.fs_type,
                mount.root,
                mount.options.join(",")
            )),
        }
    }
    let find = |target: &str| mounts.iter().find(|mount| mount.target == target);
    for needed in ["/", "/proc", "/proc/sys", "/sys", "/dev"] {
        if find(needed).is_none() {
            odd.push(format!("{needed}: not mounted as the engine mounts it"));
        }
    }
    for bind in &expected.binds {
        let right = if bind.writable { "rw" } else { "ro" };
        report.shared.push(format!("{} ({right})", bind.target));
        let Some(mount) = find(&bind.target) else {
            odd.push(format!("{}: not mounted", bind.target));
            continue;
        };
        if mount.has("ro") == bind.writable {
            odd.push(format!("{}: mounted {} (expected {right})", bind.target, mount.options.join(",")));
        }
        match source_of(host, &bind.source) {
            Some(source) if source == (mount.device.clone(), PathBuf::from(&mount.root)) => {}
            _ => odd.push(format!(
                "{}: from {} on device {} (expected {})",
                bind.target,
                mount.root,
                mount.device,
                bind.source.display()
            )),
        }
    }
    report.shared.sort();
    let shm = [("/dev/shm".to_owned(), SHM_BYTES)];
    for (target, size) in expected.tmpfs.iter().chain(&shm) {
        report.memory.push(format!("{target} {}m", size >> 20));
        match find(target) {
            None => odd.push(format!("{target}: no tmpfs")),
            Some(mount) if mount.fs_type != "tmpfs" => {
                odd.push(format!("{target}: {} (expected tmpfs)", mount.fs_type));
            }
            Some(mount) => {
                if mount.size() != Some(*size) {
                    odd.push(format!("{target}: {} (expected a size of {size} bytes)", mount.super_options.join(",")));
                }
                if !(mount.has("nosuid") && mount.has("nodev")) {
                    odd.push(format!("{target}: {} (expected nosuid,nodev)", mount.options.join(",")));
                }
            }
        }
    }
    report.memory.sort();
    report.engine_files.sort();
}

enum Kind {
    Root,
    Engine,
    EngineFile,
    Ours,
}

/// What a mount is, if it may be there at all. Ours are looked at further by [`mounts`].
fn kind(expected: &Expected, mount: &Mount, all: &[Mount]) -> Option<Kind> {
    let target = mount.target.as_str();
    if expected.binds.iter().any(|b| b.target == target) || expected.tmpfs.iter().any(|(t, _)| t == target) {
        return Some(Kind::Ours);
    }
    let fs = mount.fs_type.as_str();
    let read_only = mount.has("ro");
    // The engine hides a file under its own /dev/null, a directory under an empty tmpfs.
    let dev = all.iter().find(|m| m.target == "/dev");
    let hidden = (mount.root == "/null" && dev.is_some_and(|dev| dev.device == mount.device))
        || (fs == "tmpfs" && mount.root == "/" && read_only);
    let locked = mount.has("nosuid") && mount.has("nodev") && mount.has("noexec");
    let engine = match target {
        "/" => return read_only.then_some(Kind::Root),
        "/etc/hostname" | "/etc/hosts" | "/etc/resolv.conf" => {
            let file = Path::new(target).file_name()?;
            let root = Path::new(&mount.root);
            let of_container = root.file_name() == Some(file)
                && root.parent().and_then(Path::file_name).is_some_and(|dir| dir == expected.container.as_str());
            return (of_container && read_only).then_some(Kind::EngineFile);
        }
        "/proc" => fs == "proc" && mount.root == "/" && locked,
        "/dev" => fs == "tmpfs" && mount.has("nosuid"),
        "/dev/pts" => fs == "devpts" && mount.has("nosuid") && mount.has("noexec"),
        "/dev/mqueue" => fs == "mqueue" && locked,
        "/dev/shm" => fs == "tmpfs" && locked,
        "/sys" => fs == "sysfs" && read_only && locked,
        // The directory of version 1's hierarchies, which only root may write.
        "/sys/fs/cgroup" if fs == "tmpfs" => locked,
        _ if target.starts_with("/sys/fs/cgroup") => matches!(fs, "cgroup" | "cgroup2") && read_only && locked,
        _ if target.starts_with("/sys/") => hidden,
        _ if target.starts_with("/proc/") => hidden || (fs == "proc" && read_only && locked),
        _ => false,
    };
    engine.then_some(Kind::Engine)
}

/// The device and the path on it that a bind of `source` shows as its root.
fn source_of(host: &[Mount], source: &Path) -> Option<(String, PathBuf)> {
    let mount = containing(host, source)?;
    let rest = source.strip_prefix(&mount.target).ok()?;
    // Joining an empty rest would leave a slash behind.
    let root = if rest.as_os_str().is_empty() { PathBuf::from(&mount.root) } else { Path::new(&mount.root).join(rest) };
    Some((mount.device.clone(), root))
}

/// Field 22 of /proc/PID/stat. The second field is a name in parentheses that may hold anything.
pub(super) fn start_time(pid: i32, stat: &str) -> Option<InitProcess> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let start_time = after_name.split_whitespace().nth(19)?.parse().ok()?;
    Some(InitProcess { pid, start_time, pid_namespace: None })
}

#[cfg(test)]
mod tests {
    use super::super::config::{self, tests as samples};
    use super::*;

    fn observed() -> Observed {
        Observed {
            host_mountinfo: "25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                             48 27 0:4 net:[4026531833] /run/docker/netns/default rw - nsfs nsfs rw\n"
                .to_owned(),
            mountinfo: include_str!("testdata/mountinfo.txt").to_owned(),
            status: include_str!("testdata/status.txt").to_owned(),
            net_dev: include_str!("testdata/net-dev.txt").to_owned(),
        }
    }

    fn verdict(observed: &Observed) -> Result<WallReport, Vec<String>> {
        compare(&config::expected(&samples::spec(), &samples::image(), "c0ffee"), observed)
    }

    #[test]
    fn a_sealed_guests_own_words_hold() {
        let report = verdict(&observed()).unwrap();
        assert_eq!(report.memory, ["/data 1024m", "/dev/shm 256m", "/run 16m", "/tmp 1024m", "/var/lib/thing 1024m"]);
        assert_eq!(report.engine_files, ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]);
        assert_eq!(report.shared.iter().filter(|s| s.ends_with("(rw)")).count(), 3);
    }

    /// Every sample is the good one with one word changed.
    #[test]
    fn every_tampered_sample_is_found_and_named() {
        let mountinfo = [
            ("/ / ro,relatime", "/ / rw,relatime", "/: a mount that does not belong"),
            ("/etc /etc/vcoding ro", "/etc /etc/vcoding rw", "/etc/vcoding: mounted rw"),
            ("etc/passwd /etc/passwd ro", "etc/passwd /etc/passwd rw", "/etc/passwd: mounted rw"),
            ("/tree /work rw", "/tree /work ro", "/work: mounted ro"),
            (
                "0000/tree /work rw",
                "0001/tree /work rw",
                "/work: from /state/workspaces/01jd0000000000000000000001/tree",
            ),
            ("/store/agents /opt", "/store /opt", "/opt/vcoding/agents: from /state/store "),
            (" 254:0 /state/store/guest", " 8:1 /state/store/guest", "/opt/vcoding/bin: from"),
            (" /home/work rw", " /mnt rw", "/home/work: not mounted"),
            (" /home/work rw", " /mnt rw", "/mnt: a mount that does not belong"),
            ("/ /tmp rw,nosuid,nodev,relatime", "/ /tmp rw,nosuid,relatime", "/tmp: rw,nosuid,relatime"),
            ("size=16384k", "size=16385k", "/run: "),
            ("size=262144k", "mode=777", "/dev/shm: "),
            (
                "/ /data rw,nosuid,nodev,relatime - tmpfs tmpfs",
                "/ /data rw,nosuid,nodev,relatime - ext4 /dev/sdb",
                "/data: ext4",
            ),
            ("/ /sys ro,", "/ /sys rw,", "/sys: a mount that does not belong"),
            ("/sys/fs/cgroup/memory ro,", "/sys/fs/cgroup/memory rw,", "/sys/fs/cgroup/memory: a mount"),
            ("/sys /proc/sys ro,", "/sys /proc/sys rw,", "/proc/sys: a mount that does not belong"),
            ("/sys /proc/sys ro,", "/sys /proc/fs2 ro,", "/proc/sys: not mounted"),
            ("/ /sys/firmware ro,", "/ /sys/firmware rw,", "/sys/firmware: a mount that does not belong"),
            ("c0ffee/hosts /etc/hosts", "c0ffef/hosts /etc/hosts", "/etc/hosts: a mount that does not belong"),
            ("hostname /etc/hostname ro", "hostname /etc/hostname rw", "/etc/hostname: a mount that does not belong"),
            ("/etc/resolv.conf ro", "/etc/shadow ro", "/etc/shadow: a mount that does not belong"),
        ];
        for (from, to, named) in mountinfo {
            let mut odd = observed();
            assert!(odd.mountinfo.contains(from), "the sample has no {from}");
            odd.mountinfo = odd.mountinfo.replacen(from, to, 1);
            let differences = verdict(&odd).expect_err(to);
            assert!(differences.iter().any(|d| d.starts_with(named)), "{to}: {differences:?}");
        }
        let status = [
            ("Uid:\t231000\t231000\t231000\t231000", "Uid:\t231000\t231000\t0\t231000", "Uid"),
            ("Gid:\t231000\t231000\t231000\t231000", "Gid:\t231000\t231000\t231000\t0", "Gid"),
            ("Groups:\t231000", "Groups:\t231000 0", "Groups"),
            ("CapInh:\t0000000000000000", "CapInh:\t0000000000000001", "CapInh"),
            ("CapPrm:\t0000000000000000", "CapPrm:\t0000000000000400", "CapPrm"),
            ("CapEff:\t0000000000000000", "CapEff:\t00000000a80425fb", "CapEff"),
            ("CapBnd:\t0000000000000000", "CapBnd:\t0000002000000000", "CapBnd"),
            ("CapAmb:\t0000000000000000", "CapAmb:\t0000000000000400", "CapAmb"),
            ("CapBnd:\t0000000000000000\n", "", "CapBnd"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "NoNewPrivs"),
            ("Seccomp:\t2", "Seccomp:\t0", "Seccomp"),
            ("Seccomp:\t2", "Seccomp:\t1", "Seccomp"),
            ("Seccomp_filters:\t1", "Seccomp_filters:\t0", "Seccomp_filters"),
        ];
        for (from, to, named) in status {
            let mut odd = observed();
            assert!(odd.status.contains(from), "the sample has no {from}");
            odd.status = odd.status.replacen(from, to, 1);
            let differences = verdict(&odd).expect_err(to);
            assert!(differences.iter().any(|d| d.starts_with(named)), "{to}: {differences:?}");
        }
        let mut odd = observed();
        odd.status = odd.status.lines().filter(|l| !l.starts_with("NSpid")).collect::<Vec<_>>().join("\n");
        assert!(verdict(&odd).unwrap_err()[0].starts_with("NSpid"));
    }

    #[test]
    fn a_second_mount_on_a_place_and_another_interface_are_found() {
        let mut odd = observed();
        odd.mountinfo.push_str("200 74 0:99 / /work rw,nosuid,nodev - tmpfs tmpfs rw\n");
        assert!(verdict(&odd).unwrap_err().iter().any(|d| d == "/work: mounted over once more"));
        let mut odd = observed();
        odd.net_dev.push_str("  eth0: 0 0\n");
        assert_eq!(verdict(&odd).unwrap_err(), ["network interfaces: lo, eth0 (expected lo alone)"]);
    }

    #[test]
    fn a_process_name_cannot_forge_its_start_time() {
        let fields = "S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 928664 1 2 3";
        let stat = format!("77 (a) S 1 2 3) {fields}");
        assert_eq!(start_time(77, &stat), Some(InitProcess { pid: 77, start_time: 928_664, pid_namespace: None }));
        assert_eq!(start_time(77, "77 (a) S 1"), None);
    }
}
