use std::collections::BTreeMap;
use std::path::Path;

use history::Error;
use proptest::prelude::*;

use crate::arena::{Arena, executable, link, meta, snapshot, write};

fn varied(root: &Path) {
    write(root, "kept", "same");
    write(root, "changed", "before");
    write(root, "deleted", "was here");
    write(root, "moved/from", "moves");
    write(root, "tool", "x");
    executable(root, "tool");
    write(root, "plain", "x");
    link(root, "link", "kept");
    link(root, "other", "kept");
    write(root, b"\xff\xfe\n", "odd");
    write(root, "becomes-dir", "file");
    write(root, "becomes-file/a/b", "file");
    std::fs::create_dir_all(root.join("hollow/inner")).unwrap();
}

fn disturb(root: &Path) {
    write(root, "changed", "after!");
    std::fs::remove_file(root.join("deleted")).unwrap();
    std::fs::rename(root.join("moved"), root.join("gone-elsewhere")).unwrap();
    write(root, "tool", "y");
    std::fs::set_permissions(root.join("tool"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    executable(root, "plain");
    std::fs::remove_file(root.join("link")).unwrap();
    link(root, "link", "/etc/passwd");
    std::fs::remove_file(root.join("other")).unwrap();
    write(root, "other", "a file now");
    write(root, b"\xff\xfd", "another");
    std::fs::remove_file(root.join("becomes-dir")).unwrap();
    write(root, "becomes-dir/x/y", "1");
    std::fs::remove_dir_all(root.join("becomes-file")).unwrap();
    write(root, "becomes-file", "1");
    std::fs::remove_dir_all(root.join("hollow")).unwrap();
    std::fs::create_dir_all(root.join("new-hollow")).unwrap();
}

#[test]
fn every_kind_of_change_is_taken_back_and_can_be_taken_forward_again() {
    let (arena, mut history) = Arena::with(varied);
    let before = snapshot(&arena.tree);
    disturb(&arena.tree);
    let after = snapshot(&arena.tree);
    arena.checkpoint(&mut history);
    let back = arena.rollback(&mut history, "base");
    assert_eq!(snapshot(&arena.tree), before);
    assert_eq!(back.checkpoint.tree, history.resolve("base").unwrap().tree);
    assert!(back.notes.is_empty(), "{:?}", back.notes);
    arena.rollback(&mut history, "@~1");
    assert_eq!(snapshot(&arena.tree), after);
    assert_eq!(history.list(10).unwrap().len(), 4);
    arena.git(&["fsck", "--full", "--strict"]);
}

#[test]
fn only_the_given_paths_go_back() {
    let (arena, mut history) = Arena::with(varied);
    disturb(&arena.tree);
    write(&arena.tree, "new-directory/file", "x");
    arena.checkpoint(&mut history);
    let base = history.base().unwrap().unwrap();
    let paths = ["changed", "becomes-file", "new-directory/", "becomes-dir"].map(|path| path.as_bytes().to_vec());
    history.rollback(&arena.tree, None, base, &paths, &meta("rollback")).unwrap();
    let read = |name: &str| std::fs::read_to_string(arena.tree.join(name)).unwrap();
    assert_eq!(
        (read("changed").as_str(), read("becomes-file/a/b").as_str(), read("becomes-dir").as_str()),
        ("before", "file", "file")
    );
    assert!(!arena.tree.join("new-directory").exists() && !arena.tree.join("deleted").exists());
    assert_eq!(read("other"), "a file now");
    for bad in ["../x", "/etc", "", "a/../b", ".git/config"] {
        let refused = history.rollback(&arena.tree, None, base, &[bad.as_bytes().to_vec()], &meta("rollback"));
        assert!(matches!(refused, Err(Error::Files(fs::Error::BadPath { .. }))), "{bad}");
    }
}

#[test]
fn what_is_ignored_or_left_out_stays() {
    let (arena, mut history) = Arena::with(|root| {
        varied(root);
        write(root, ".gitignore", "*.cache\n/logs/\n");
    });
    write(&arena.tree, "x.cache", "keep me");
    write(&arena.tree, "node_modules/m/index.js", "keep me");
    write(&arena.tree, "new/dir/y.cache", "keep me");
    write(&arena.tree, "new/dir/file", "remove me");
    write(&arena.tree, "hollow/inner/z.cache", "keep me");
    write(&arena.tree, "big", vec![0; 200_000]);
    arena.checkpoint(&mut history);
    arena.rollback(&mut history, "base");
    for kept in ["x.cache", "node_modules/m/index.js", "new/dir/y.cache", "hollow/inner/z.cache", "big"] {
        assert!(arena.tree.join(kept).exists(), "{kept}");
    }
    assert!(!arena.tree.join("new/dir/file").exists());
    assert!(!arena.checkpoint(&mut history).created, "the tree is the base's, the ignored files aside");
}

#[test]
fn what_is_in_no_checkpoint_and_in_the_way_is_set_aside() {
    let (arena, mut history) = Arena::with(varied);
    write(&arena.tree, "changed", vec![b'x'; 200_000]);
    std::fs::remove_file(arena.tree.join("kept")).unwrap();
    write(&arena.tree, "kept/node_modules/x", "made");
    std::fs::remove_dir_all(arena.tree.join("becomes-file")).unwrap();
    write(&arena.tree, "becomes-file", vec![b'x'; 200_000]);
    arena.checkpoint(&mut history);
    let back = arena.rollback(&mut history, "base");
    assert_eq!(back.checkpoint.tree, history.resolve("base").unwrap().tree);
    assert_eq!(back.notes.iter().filter(|note| note.contains("is kept as")).count(), 3, "{:?}", back.notes);
    assert_eq!(std::fs::read_to_string(arena.tree.join("kept")).unwrap(), "same");
    assert!(arena.tree.join("kept.vcoding-kept-1/node_modules/x").exists());
    assert_eq!(std::fs::metadata(arena.tree.join("changed.vcoding-kept-1")).unwrap().len(), 200_000);
    assert!(arena.tree.join("becomes-file/a/b").exists());
}

#[test]
fn a_rollback_that_was_killed_is_run_again() {
    let (arena, mut history) = Arena::with(varied);
    let before = snapshot(&arena.tree);
    disturb(&arena.tree);
    arena.checkpoint(&mut history);
    // As a kill would leave it: some done, one half written, a temporary name.
    write(&arena.tree, "changed", "bef");
    write(&arena.tree, ".vcoding-tmp-1-2", "half");
    std::fs::remove_dir_all(arena.tree.join("becomes-dir")).unwrap();
    arena.rollback(&mut history, "base");
    std::fs::remove_file(arena.tree.join(".vcoding-tmp-1-2")).unwrap();
    assert_eq!(snapshot(&arena.tree), before);
}

#[test]
fn writing_never_goes_through_a_hard_link() {
    let (arena, mut history) = Arena::with(varied);
    let outside = arena.project.join("outside");
    std::fs::hard_link(arena.tree.join("changed"), &outside).unwrap();
    write(&arena.tree, "changed", "after, through both names");
    arena.checkpoint(&mut history);
    arena.rollback(&mut history, "base");
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "after, through both names");
}

#[derive(Clone, Debug)]
enum Thing {
    File(Vec<u8>),
    Executable(Vec<u8>),
    Link(Vec<u8>),
    Directory,
}

fn thing() -> impl Strategy<Value = Thing> {
    let bytes = prop::collection::vec(any::<u8>(), 0..40);
    let target = prop::collection::vec(1u8..=255, 1..20);
    prop_oneof![
        bytes.clone().prop_map(Thing::File),
        bytes.prop_map(Thing::Executable),
        target.prop_map(Thing::Link),
        Just(Thing::Directory)
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte =
        prop_oneof![Just(b'x'), Just(b'Y'), Just(b'.'), Just(b'-'), Just(b' '), Just(b'\n'), Just(0xff), Just(b'0')];
    prop::collection::vec(byte, 1..4).prop_filter("names", |name| name != b"." && name != b"..")
}

fn tree() -> impl Strategy<Value = BTreeMap<Vec<Vec<u8>>, Thing>> {
    prop::collection::btree_map(prop::collection::vec(name(), 1..4), thing(), 0..12)
}

fn lay(root: &Path, things: &BTreeMap<Vec<Vec<u8>>, Thing>) {
    use std::os::unix::ffi::OsStrExt;
    for (path, thing) in things {
        let path = root.join(std::ffi::OsStr::from_bytes(&path.join(&b'/')));
        // What does not fit onto what is there is skipped: the trees are random, not the rules of the file system.
        if std::fs::create_dir_all(path.parent().unwrap()).is_err() || std::fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match thing {
            Thing::File(content) => std::fs::write(&path, content).unwrap(),
            Thing::Executable(content) => {
                std::fs::write(&path, content).unwrap();
                std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            }
            Thing::Link(target) => std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), &path).unwrap(),
            Thing::Directory => std::fs::create_dir(&path).unwrap(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back_exactly_from_any_other(first in tree(), second in tree(), third in tree()) {
        let (arena, mut history) = Arena::with(|root| lay(root, &first));
        let before = snapshot(&arena.tree);
        prop_assert_eq!(&before, &snapshot(&arena.project));
        // Over the first, so that some of it stays, then from nothing.
        lay(&arena.tree, &second);
        let middle = snapshot(&arena.tree);
        let second = arena.checkpoint(&mut history).checkpoint.id.to_string();
        fs::Root::open(&arena.tree).unwrap().clear().unwrap();
        lay(&arena.tree, &third);
        arena.checkpoint(&mut history);
        arena.rollback(&mut history, "base");
        prop_assert_eq!(&snapshot(&arena.tree), &before);
        arena.rollback(&mut history, &second);
        prop_assert_eq!(&snapshot(&arena.tree), &middle);
        arena.git(&["fsck", "--full", "--strict"]);
    }
}

#[test]
fn a_forged_tree_is_refused_before_anything_is_written() {
    let (arena, mut history) = Arena::with(varied);
    let before = snapshot(&arena.tree);
    let forge = |kind: &str, content: &[u8]| {
        let path = arena.host.join("forged");
        std::fs::write(&path, content).unwrap();
        arena.git(&["hash-object", "-t", kind, "--literally", "-w", path.to_str().unwrap()]).trim().to_owned()
    };
    let blob = forge("blob", b"escaped");
    let raw = |id: &str| (0..20).map(|at| u8::from_str_radix(&id[at * 2..at * 2 + 2], 16).unwrap()).collect::<Vec<_>>();
    for (mode, name) in
        [("100644", "../escaped"), ("40000", ".."), ("100644", ".git"), ("104755", "set-id"), ("160000", "sub")]
    {
        let inner = forge("tree", &[format!("{mode} {name}\0").as_bytes(), &raw(&blob)].concat());
        let outer = forge("tree", &[b"40000 dir\0".as_slice(), &raw(&inner)].concat());
        let block = r#"{"v":1,"cause":"x","time_ms":0,"added":0,"changed":0,"deleted":0}"#;
        let commit = format!("tree {outer}\nauthor a <a> 0 +0000\ncommitter a <a> 0 +0000\n\nx\n\n{block}\n");
        let forged = forge("commit", commit.as_bytes()).parse().unwrap();
        let refused = history.rollback(&arena.tree, None, forged, &[], &meta("rollback"));
        assert!(matches!(refused, Err(Error::BadTree { .. })), "{name}: {refused:?}");
    }
    assert_eq!(snapshot(&arena.tree), before);
    assert!(!arena.tree.parent().unwrap().join("escaped").exists());
}
