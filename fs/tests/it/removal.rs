use std::os::unix::fs::symlink;
use std::path::Path;

use fs::Root;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

#[test]
fn forty_thousand_nested_directories_go() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("deep")).unwrap();
    let mut at = openat(CWD, dir.path().join("deep"), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    for _ in 0..40_000 {
        mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = openat(&at, "d", OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    }
    drop(at);
    Root::open(dir.path()).unwrap().remove_all(Path::new("deep")).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_wide_tree_goes_and_links_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("keep"), "k").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    for a in 0..8 {
        for b in 0..8 {
            let inner = tree.join(format!("{a}/{b}/c"));
            std::fs::create_dir_all(&inner).unwrap();
            std::fs::write(inner.join("file"), "x").unwrap();
            symlink(outside.path(), inner.join("link")).unwrap();
        }
    }
    let root = Root::open(dir.path()).unwrap();
    root.remove_all(Path::new("tree/3")).unwrap();
    assert!(!tree.join("3").exists() && tree.join("4/4/c/file").exists());
    root.clear().unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(outside.path().join("keep").exists());
}

#[test]
fn missing_is_fine_and_a_single_file_or_link_goes() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    root.remove_all(Path::new("no")).unwrap();
    root.remove_all(Path::new("no/such/path")).unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    symlink("/", dir.path().join("link")).unwrap();
    root.remove_all(Path::new("file")).unwrap();
    root.remove_all(Path::new("link")).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn directories_that_forbid_their_owner_go() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("a/b/c/d")).unwrap();
    for inner in ["a/b/c", "a/b", "a"] {
        std::fs::set_permissions(dir.path().join(inner), std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    Root::open(dir.path()).unwrap().remove_all(Path::new("a")).unwrap();
    assert!(!dir.path().join("a").exists());
}
