//! Processes below a process, as the kernel tells them, and their end.
//!
//! `/proc/PID/task/TID/children` needs no privileges. Children of a killed process move to the
//! nearest subreaper above, which is the one who ends them: so it repeats until there are none.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// No guest has more processes than this.
const MOST: usize = 65_536;

/// The direct children of a process, those of all its threads; empty if it is gone.
pub fn children(of: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{of}/task")) else { return found };
    for task in tasks.flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw));
    }
    found
}

/// All processes below one, parents before their children.
pub fn descendants(of: Pid) -> Vec<Pid> {
    let mut all = children(of);
    let mut at = 0;
    while at < all.len() && all.len() < MOST {
        all.extend(children(all[at]));
        at += 1;
    }
    all
}

/// Ends every process below this one, which is a subreaper, and reaps them. `seen` gets what was
/// reaped. Gives up at the deadline: what then is left comes to PID 1 and has its end there.
pub fn end_own(deadline: Duration, mut seen: impl FnMut(WaitStatus)) {
    let until = Instant::now() + deadline;
    let me = Pid::this();
    loop {
        for pid in descendants(me) {
            // It may have ended by itself.
            let _gone = kill(pid, Signal::SIGKILL);
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(status) => seen(status),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
        if Instant::now() > until {
            return;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// When a process began, in the kernel's ticks: with the pid it names one process for good.
pub fn start_time(of: Pid) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{of}/stat")).ok()?;
    // The name, in parentheses, may hold anything; fields are counted from its end.
    let end = stat.iter().rposition(|&b| b == b')')?;
    std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_seen_to_its_leaves() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "(sleep 60 & wait) & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let root = Pid::from_raw(shell.id().try_into().unwrap());
        let until = Instant::now() + Duration::from_secs(10);
        while descendants(root).len() < 2 {
            assert!(Instant::now() < until, "the tree did not grow");
            std::thread::yield_now();
        }
        assert!(children(Pid::this()).contains(&root));
        for pid in descendants(root) {
            kill(pid, Signal::SIGKILL).unwrap();
        }
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert!(descendants(root).is_empty());
    }

    #[test]
    fn a_process_has_one_start_time() {
        let mine = start_time(Pid::this()).unwrap();
        assert!(mine > 0);
        assert_eq!(start_time(Pid::this()), Some(mine));
        assert_eq!(start_time(Pid::from_raw(i32::MAX)), None);
    }
}
