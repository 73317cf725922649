//! How much a directory takes.

use std::os::unix::fs::{MetadataExt, symlink};

use fs::Root;

#[test]
fn what_is_counted_is_what_the_disk_has_given_out_and_no_link_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("a/b");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::write(below.join("full"), vec![1; 100_000]).unwrap();
    std::fs::File::create(below.join("sparse")).unwrap().set_len(1 << 40).unwrap();
    symlink("/", dir.path().join("out")).unwrap();
    let usage = Root::open(dir.path()).unwrap().usage(u64::MAX, &|| true).unwrap();
    let given = |path: &str| std::fs::symlink_metadata(dir.path().join(path)).unwrap().blocks() * 512;
    let expected = ["a", "a/b", "a/b/full", "a/b/sparse", "out"].map(given).iter().sum::<u64>();
    assert_eq!((usage.bytes, usage.names, usage.incomplete), (expected, 5, false));
}

#[test]
fn a_count_ends_where_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..100 {
        std::fs::write(dir.path().join(number.to_string()), "").unwrap();
    }
    let root = Root::open(dir.path()).unwrap();
    let some = root.usage(10, &|| true).unwrap();
    assert_eq!((some.names, some.incomplete), (10, true));
    assert!(root.usage(u64::MAX, &|| false).unwrap().incomplete);
    assert_eq!(root.usage(100, &|| true).unwrap().names, 100);
}

#[test]
fn what_lies_deeper_than_a_path_can_be_is_said_to_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let name = std::path::PathBuf::from("d".repeat(200));
    let mut at = root.dir(std::path::Path::new("")).unwrap();
    for _ in 0..40 {
        at.make_dir(&name, 0o700).unwrap();
        at = at.dir(&name).unwrap();
    }
    let usage = root.usage(u64::MAX, &|| true).unwrap();
    assert!(usage.incomplete && usage.names < 40, "{usage:?}");
}
