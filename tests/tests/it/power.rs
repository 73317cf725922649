//! The machine loses its power: what was not on the disk yet is gone, and what was acknowledged is not.
//!
//! State and project lie on a filesystem of their own, in a file. A copy of that file is what a disk would hold if the power went at
//! that moment: what the kernel still keeps for the mounted filesystem is not in it. The daemon and the guest are killed, the copy is
//! made and mounted in its place, its journal is replayed, and somebody types the next command.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{SHOP, World, git, output, run};

/// Where what is not synced stays in memory, as long as this test takes.
const OPTIONS: &str = "loop,commit=600";

struct Disk {
    image: PathBuf,
    place: PathBuf,
    cuts: usize,
}

impl Disk {
    /// None, and said so, where none can be made.
    fn make(world: &mut World, test: &str) -> Option<Self> {
        let disk = Self { image: world.path("image.0"), place: world.path("disk"), cuts: 0 };
        std::fs::File::create(&disk.image).unwrap().set_len(1 << 30).unwrap();
        std::fs::create_dir(&disk.place).unwrap();
        std::fs::create_dir(world.state()).unwrap();
        let made = succeeds(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.image));
        if !made || !disk.mount(world) {
            let _told = writeln!(std::io::stderr(), "skipped: {test}: no filesystem can be made and mounted here");
            return None;
        }
        Some(disk)
    }

    fn mount(&self, world: &mut World) -> bool {
        if !succeeds(Command::new("mount").args(["-o", OPTIONS]).args([&self.image, &self.place])) {
            return false;
        }
        world.unmount_at_the_end([world.state(), self.place.clone()]);
        let state = self.place.join("state");
        std::fs::create_dir_all(&state).unwrap();
        std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        assert!(succeeds(Command::new("mount").arg("--bind").args([&state, &world.state()])));
        true
    }

    /// The power goes, and the machine is started again.
    fn cut(&mut self, world: &mut World) {
        // Nobody writes any more, and nobody syncs what was written.
        world.kill_daemon();
        let filter = format!("label=vcoding.state-dir={}", world.state().display());
        for id in output(Command::new("docker").args(["ps", "-q", "--filter", &filter])).split_whitespace() {
            assert!(succeeds(Command::new("docker").args(["kill", id])));
        }
        self.cuts += 1;
        let after = world.path(&format!("image.{}", self.cuts));
        assert!(succeeds(Command::new("cp").arg("--sparse=always").args([&self.image, &after])));
        for place in [&world.state(), &self.place] {
            assert!(succeeds(Command::new("umount").arg("--lazy").arg(place)));
        }
        self.image = after;
        assert!(self.mount(world));
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|done| done.status.success())
}

/// Every file of the work tree with its content, but what no checkpoint has.
fn content(world: &World, project: &Path) -> String {
    world.ok(project, &["exec", "--", "sh", "-c", "find . -type f ! -name lost | sort | xargs grep -H ''"]).out
}

#[test]
fn what_was_acknowledged_is_there_after_the_power_went() {
    let Some(mut world) = World::with_engine("a power cut") else { return };
    let Some(mut disk) = Disk::make(&mut world, "a power cut") else { return };
    let project = world.repository("disk/shop", &SHOP);
    assert!(succeeds(Command::new("sync").arg("-f").arg(&project)));

    world.ok(&project, &["up"]);
    world.ok(
        &project,
        &["exec", "--", "sh", "-c", "for i in $(seq 300); do echo $i > f$i; done; mkdir d; echo deep > d/x"],
    );
    world.ok(&project, &["checkpoint", "-m", "one"]);
    let one = content(&world, &project);
    world.ok(&project, &["exec", "--", "sh", "-c", "echo later > later; rm f1; echo two > f2"]);
    world.ok(&project, &["checkpoint", "-m", "two"]);
    let two = content(&world, &project);
    let branch = world.json(&project, &["apply"])["commit"].as_str().unwrap().to_owned();
    let detached =
        world.json(&project, &["run", "--detach", "--", "sh", "-c", "while :; do echo more; sleep 0.1; done"]);
    world.ok(&project, &["exec", "--", "sh", "-c", "echo lost > lost"]);
    disk.cut(&mut world);

    let lost = world.own_directory().join("tree/lost");
    assert_ne!(std::fs::read_to_string(lost).unwrap_or_default(), "lost\n", "what nobody synced was to be gone");
    world.ok(&project, &["up"]);
    assert_eq!(content(&world, &project), two);
    assert_eq!(world.json(&project, &["runs"])["runs"][0]["state"], "lost", "{detached}");
    let names = world.ok(&project, &["log"]).out;
    assert!(names.contains("one") && names.contains("two"), "{names}");
    sound(&world, &project);
    assert_eq!(git(&project, &["rev-parse", "vcoding/shop"]).trim(), branch);
    // What a machine that comes back has to say of itself is nothing.
    let doctor = world.json(&project, &["doctor"]);
    let store = doctor["findings"].as_array().unwrap().iter().filter(|finding| finding["area"] == "store");
    assert!(store.clone().count() > 0 && store.clone().all(|finding| finding["severity"] == "fine"), "{doctor}");

    world.ok(&project, &["rollback", "one"]);
    disk.cut(&mut world);

    world.ok(&project, &["up"]);
    assert_eq!(content(&world, &project), one);
    assert_eq!(world.ok(&project, &["diff", "one", "@"]).out, "");
    sound(&world, &project);
}

fn sound(world: &World, project: &Path) {
    git(project, &["fsck", "--full", "--strict"]);
    git(&world.own_directory().join("host/history.git"), &["fsck", "--full", "--strict"]);
    let mut status = Command::new("git");
    status.args(["status", "--porcelain"]).current_dir(project);
    assert_eq!(run(status).out, "", "the project is as it was");
}
