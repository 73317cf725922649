//! What isolates a guest, in two lines or in full.

use protocol::workspace::{Wall, WallMount};

use super::ink::{Ink, Style};
use super::text::one_line;

/// Two lines; what is weaker than it should be stands out.
pub fn brief(wall: &Wall, ink: Ink) -> [String; 2] {
    let first =
        [one_line(&wall.runtime), network(wall, ink), user(wall, ink), capabilities(wall, ink), calls(wall, ink)];
    let writable: Vec<String> = wall.mounts.iter().filter(|m| m.writable && ours(m)).map(|m| one_line(&m.at)).collect();
    let second = [
        root(wall, ink),
        if writable.is_empty() { "nothing writable".into() } else { format!("writable: {}", writable.join(" ")) },
        format!("ssh by {}", one_line(&wall.carrier)),
    ];
    [first.join(" · "), second.join(" · ")]
}

/// Every fact on a line of its own: its name, and what holds.
pub fn full(wall: &Wall, ink: Ink) -> Vec<(&'static str, String)> {
    let holds = |good: bool, fine: &str, weak: &str| if good { fine.into() } else { ink.paint(Style::Red, weak) };
    let out = outside(wall);
    let capabilities = format!("HAS SOME: {}", one_line(&wall.capabilities));
    let mut lines = vec![
        ("network", if out.is_empty() { "none".into() } else { ink.paint(Style::Yellow, &out) }),
        ("user", format!("{}, gid {}", user(wall, ink), wall.gid)),
        ("capabilities", holds(powerless(wall), "none", &capabilities)),
        ("privileges", holds(wall.no_new_privileges, "never gained", "MAY BE GAINED")),
        ("system calls", holds(wall.seccomp, "filtered (seccomp)", "NOT FILTERED")),
        ("root", holds(wall.read_only_root, "read-only", "WRITABLE")),
        ("carrier", one_line(&wall.carrier)),
        ("runtime", one_line(&wall.runtime)),
    ];
    let widest = wall.mounts.iter().map(|m| super::text::width(&one_line(&m.at))).max().unwrap_or(0);
    for (n, mount) in wall.mounts.iter().enumerate() {
        let at = one_line(&mount.at);
        let pad = " ".repeat(widest - super::text::width(&at));
        let mode = if mount.writable { "rw" } else { "ro" };
        let name = if n == 0 { "mounts" } else { "" };
        lines.push((name, format!("{at}{pad}  {mode}  {}", one_line(&mount.from))));
    }
    lines
}

/// The mounts that hold data; not the memory-backed ones and not the engine's own.
fn ours(mount: &WallMount) -> bool {
    mount.from != "tmpfs" && mount.from != "engine"
}

/// Interfaces that lead somewhere.
fn outside(wall: &Wall) -> String {
    let out: Vec<String> = wall.interfaces.iter().filter(|i| *i != "lo").map(|i| one_line(i)).collect();
    out.join(" ")
}

fn powerless(wall: &Wall) -> bool {
    !wall.capabilities.is_empty() && wall.capabilities.chars().all(|c| matches!(c, '0' | ' ' | ',' | 'x'))
}

fn network(wall: &Wall, ink: Ink) -> String {
    let out = outside(wall);
    if out.is_empty() { "no network".into() } else { ink.paint(Style::Yellow, &format!("network: {out}")) }
}

fn user(wall: &Wall, ink: Ink) -> String {
    if wall.uid == 0 { ink.paint(Style::Red, "UID 0") } else { format!("uid {}", wall.uid) }
}

fn capabilities(wall: &Wall, ink: Ink) -> String {
    if powerless(wall) {
        return "no capabilities".into();
    }
    ink.paint(Style::Red, &format!("CAPABILITIES: {}", one_line(&wall.capabilities)))
}

fn calls(wall: &Wall, ink: Ink) -> String {
    if wall.seccomp { "seccomp".into() } else { ink.paint(Style::Red, "NO SECCOMP") }
}

fn root(wall: &Wall, ink: Ink) -> String {
    if wall.read_only_root { "read-only root".into() } else { ink.paint(Style::Red, "WRITABLE ROOT") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weak_wall_shouts_even_without_colour() {
        let [first, second] = brief(
            &Wall { interfaces: vec!["lo".into(), "eth0".into()], runtime: "docker".into(), ..Wall::default() },
            Ink(false),
        );
        assert_eq!(first, "docker · network: eth0 · UID 0 · CAPABILITIES:  · NO SECCOMP");
        assert!(second.starts_with("WRITABLE ROOT · nothing writable"), "{second}");
    }
}
