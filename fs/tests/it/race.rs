//! A thread swaps a directory with a link to the outside as fast as it can, while we write.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fs::Root;
use rustix::fs::{CWD, RenameFlags, renameat_with};

struct Arena {
    _dir: tempfile::TempDir,
    tree: std::path::PathBuf,
    outside: std::path::PathBuf,
}

fn arena() -> Arena {
    let dir = tempfile::tempdir().unwrap();
    let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
    std::fs::create_dir_all(tree.join("sub")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
    Arena { _dir: dir, tree, outside }
}

/// Runs `write` over and over beside the swapper until `done` says so or the time is over; returns how many files escaped.
fn contest(arena: &Arena, write: impl Fn(usize) -> bool, done: impl Fn() -> bool) -> (usize, usize, usize) {
    let stop = AtomicBool::new(false);
    let (mut written, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (sub, link) = (arena.tree.join("sub"), arena.tree.join("link"));
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &sub, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        for number in 0.. {
            if write(number % 50) {
                written += 1;
            } else {
                refused += 1;
            }
            if number % 64 == 0 && (done() || Instant::now() > deadline) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    (std::fs::read_dir(&arena.outside).unwrap().count(), written, refused)
}

#[test]
fn writes_never_follow_a_link_that_is_swapped_in() {
    let arena = arena();
    let root = Root::open(&arena.tree).unwrap();
    let end = Instant::now() + Duration::from_secs(2);
    let (escaped, written, refused) = contest(
        &arena,
        |number| {
            let name = format!("sub/f{number}");
            let made = root.replace(Path::new(&name), 0o644, |file| file.write_all(b"x")).is_ok();
            // Each way of writing is tried; the answers do not matter, only where the effects lie.
            let _ = root.create_new(Path::new(&format!("sub/n{number}")), 0o644);
            let _ = root.make_dirs(Path::new(&format!("sub/d{number}/e")), 0o755);
            let _ = root.remove_all(Path::new(&format!("sub/d{number}")));
            made
        },
        || Instant::now() > end,
    );
    assert_eq!(escaped, 0);
    assert!(written > 0 && refused > 0, "the race must be real: {written} written, {refused} refused");
}

#[test]
fn control_writes_by_path_do_escape() {
    let arena = arena();
    let (escaped, _, _) = contest(
        &arena,
        |number| std::fs::write(arena.tree.join(format!("sub/f{number}")), "x").is_ok(),
        || std::fs::read_dir(&arena.outside).unwrap().next().is_some(),
    );
    assert!(escaped > 0, "without the wall the same race must lead out");
}
