use std::collections::BTreeMap;
use std::path::Path;

use history::{Class, Error};
use proptest::prelude::*;

use crate::arena::{Arena, all_of, executable, link, meta, snapshot, write};

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
    assert!(back.notes.is_empty() && back.remarks.is_empty(), "{back:?}");
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
    fn only(base: history::Id, paths: &[Vec<u8>]) -> history::Rollback<'_> {
        history::Rollback { paths, ..all_of(base) }
    }
    history.rollback(&arena.tree, None, &only(base, &paths), &meta("rollback")).unwrap();
    let read = |name: &str| std::fs::read_to_string(arena.tree.join(name)).unwrap();
    assert_eq!(
        (read("changed").as_str(), read("becomes-file/a/b").as_str(), read("becomes-dir").as_str()),
        ("before", "file", "file")
    );
    assert!(!arena.tree.join("new-directory").exists() && !arena.tree.join("deleted").exists());
    assert_eq!(read("other"), "a file now");
    for bad in ["../x", "/etc", "", "a/../b", ".git/config"] {
        let paths = [bad.as_bytes().to_vec()];
        let refused = history.rollback(&arena.tree, None, &only(base, &paths), &meta("rollback"));
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
    assert_eq!(back.remarks.iter().filter(|note| note.contains("is kept as")).count(), 3, "{:?}", back.remarks);
    assert_eq!(back.notes.count(Class::MovedAside), 3);
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

#[test]
fn what_a_rollback_leaves_is_counted_and_moved_away_where_that_is_wanted() {
    let (arena, mut history) = Arena::with(|root| {
        varied(root);
        write(root, ".gitignore", "*.cache\n");
    });
    for number in 0..30 {
        write(&arena.tree, format!("made/part/{number}.cache"), "ignored");
    }
    write(&arena.tree, "made/part/file", "in the history");
    write(&arena.tree, "made/node_modules/m/deep/i.js", "x");
    write(&arena.tree, "made/node_modules/m/j.js", "x");
    write(&arena.tree, "big", vec![0; 200_000]);
    arena.checkpoint(&mut history);
    let left = arena.rollback(&mut history, "base").left;
    assert_eq!((left.names, left.files, left.uncounted), (32, 33, false), "{left:?}");
    assert_eq!(left.first.len(), 20, "some are named");
    assert!(arena.tree.join("made/part/0.cache").exists() && !arena.tree.join("made/part/file").exists());
    let (back, clean) = arena.clean_rollback(&mut history, "base");
    assert_eq!((back.moved.names, back.moved.files, back.left.names), (32, 33, 0), "{back:?}");
    assert!(!arena.tree.join("made").exists() && !arena.tree.join("big").exists());
    for moved in ["made/part/29.cache", "made/node_modules/m/deep/i.js", "big"] {
        assert!(clean.join(moved).exists(), "{moved}");
    }
    assert!(!arena.checkpoint(&mut history).created, "nothing but the target is there");
    // The control: nothing is left, and nowhere to put it is made.
    std::fs::remove_dir_all(&clean).unwrap();
    arena.clean_rollback(&mut history, "base");
    assert!(!clean.exists());
}

#[test]
fn what_was_there_at_the_target_stays_when_the_rest_is_moved_away() {
    let (arena, mut history) = Arena::with(|root| {
        varied(root);
        write(root, ".gitignore", "*.cache\n");
    });
    write(&arena.tree, "before.cache", "x");
    write(&arena.tree, "node_modules/m/i.js", "x");
    // The file system's clock is the one that counts, and it may be a tick behind.
    let born = std::fs::metadata(arena.tree.join("node_modules")).unwrap().created();
    let Ok(born) = born else { return };
    let past = |time: std::time::SystemTime| {
        i64::try_from(time.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap() + 1
    };
    let middle = history::Meta { label: Some("middle".into()), time_ms: past(born), ..meta("request") };
    write(&arena.tree, "kept", "changed");
    history.checkpoint(&arena.tree, &middle, history::Activity::Still).unwrap();
    let after = loop {
        write(&arena.tree, "after.cache", "x");
        let made = std::fs::metadata(arena.tree.join("after.cache")).unwrap().created().unwrap();
        if past(made) > middle.time_ms {
            break "after.cache";
        }
        std::fs::remove_file(arena.tree.join("after.cache")).unwrap();
    };
    write(&arena.tree, "node_modules/m/new.js", "x");
    arena.checkpoint(&mut history);
    let (back, clean) = arena.clean_rollback(&mut history, "middle");
    assert_eq!((back.moved.names, back.left.names), (1, 0), "{back:?}");
    assert!(clean.join(after).exists() && !arena.tree.join(after).exists());
    for there in ["before.cache", "node_modules/m/i.js", "node_modules/m/new.js"] {
        assert!(arena.tree.join(there).exists(), "{there}");
    }
}

#[test]
fn only_what_lies_at_the_given_paths_is_moved_away() {
    let (arena, mut history) = Arena::with(|root| {
        varied(root);
        write(root, ".gitignore", "*.cache\n");
    });
    for name in ["a/x.cache", "ab/x.cache", "b.cache"] {
        write(&arena.tree, name, "x");
    }
    write(&arena.tree, "a/file", "x");
    arena.checkpoint(&mut history);
    let clean = arena.host.join("cleaned/1");
    let paths = [b"a/".to_vec()];
    let base = history.base().unwrap().unwrap();
    let back = history::Rollback { to: base, paths: &paths, clean: Some(&clean) };
    history.rollback(&arena.tree, None, &back, &meta("rollback")).unwrap();
    assert!(!arena.tree.join("a").exists() && clean.join("a/x.cache").exists());
    assert!(arena.tree.join("ab/x.cache").exists() && arena.tree.join("b.cache").exists());
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
        let refused = history.rollback(&arena.tree, None, &all_of(forged), &meta("rollback"));
        assert!(matches!(refused, Err(Error::BadTree { .. })), "{name}: {refused:?}");
    }
    assert_eq!(snapshot(&arena.tree), before);
    assert!(!arena.tree.parent().unwrap().join("escaped").exists());
}
