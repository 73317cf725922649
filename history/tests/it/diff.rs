use std::path::Path;

use history::{Diff, History, MAX_PATCH};

use crate::arena::{Arena, executable, link, run, snapshot, write};

fn before(root: &Path) {
    write(root, "text", "one\ntwo\nthree\n");
    write(root, "no newline", "x");
    write(root, "moved", "a file that moves\nwith two lines\nand three\n");
    write(root, "binary", [0, 1, 2, 3, 255, 0]);
    write(root, "gone", "1\n2\n");
    write(root, "mode", "x\n");
    write(root, b"odd \"\t\xff\n", "odd\n");
    link(root, "link", "text");
    link(root, "type", "text");
}

fn after(root: &Path) {
    write(root, "text", "one\n2\nthree\nfour\n");
    write(root, "no newline", "y");
    std::fs::create_dir(root.join("dir")).unwrap();
    std::fs::rename(root.join("moved"), root.join("dir/here")).unwrap();
    write(root, "binary", [0, 9, 2, 3, 255, 0]);
    std::fs::remove_file(root.join("gone")).unwrap();
    executable(root, "mode");
    write(root, b"odd \"\t\xff\n", "odder\n");
    write(root, "new", "n\r\n");
    std::fs::remove_file(root.join("link")).unwrap();
    link(root, "link", "elsewhere");
    std::fs::remove_file(root.join("type")).unwrap();
    write(root, "type", "a file now\n");
}

fn diff(history: &History, paths: &[&str]) -> Diff {
    let paths: Vec<_> = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
    history.diff(history.base().unwrap().unwrap(), history.head().unwrap().unwrap(), &paths).unwrap()
}

#[test]
fn git_apply_makes_the_one_of_the_other() {
    let (arena, mut history) = Arena::with(before);
    after(&arena.tree);
    arena.checkpoint(&mut history);
    let diff = diff(&history, &[]);
    let seen: Vec<_> = diff
        .files
        .iter()
        .map(|file| (String::from_utf8_lossy(&file.path).into_owned(), file.status, file.lines))
        .collect();
    let is = |path: &str, status, lines| assert!(seen.contains(&(path.to_owned(), status, lines)), "{path}: {seen:?}");
    is("text", 'M', Some((2, 1)));
    is("binary", 'M', None);
    is("gone", 'D', Some((0, 2)));
    is("new", 'A', Some((1, 0)));
    is("mode", 'M', Some((0, 0)));
    is("dir/here", 'R', Some((0, 0)));
    assert!(seen.iter().any(|(path, status, _)| path == "type" && *status == 'T'), "{seen:?}");
    assert_eq!(diff.files.iter().find(|file| file.status == 'R').unwrap().old_path, Some(b"moved".to_vec()));
    let patch = arena.host.join("patch");
    std::fs::write(&patch, &diff.patch).unwrap();
    run(crate::arena::plain_git(&arena.project).args(["apply", "--whitespace=nowarn", patch.to_str().unwrap()]));
    assert_eq!(snapshot(&arena.project), snapshot(&arena.tree));
}

#[test]
fn only_the_given_paths_are_compared_and_taken_literally() {
    let (arena, mut history) = Arena::with(before);
    after(&arena.tree);
    write(&arena.tree, "dir/second", "s");
    write(&arena.tree, "d*", "a star");
    arena.checkpoint(&mut history);
    let names = |paths: &[&str]| diff(&history, paths).files.into_iter().map(|file| file.path).collect::<Vec<_>>();
    assert_eq!(names(&["dir"]), [b"dir/here".to_vec(), b"dir/second".to_vec()]);
    assert_eq!(names(&["d*"]), [b"d*".to_vec()]);
}

#[test]
fn a_long_patch_is_cut_between_files() {
    let (arena, mut history) = Arena::with(before);
    for number in 0..60 {
        write(&arena.tree, format!("f{number:02}"), format!("{number} line\n").repeat(9_000));
    }
    arena.checkpoint(&mut history);
    let diff = diff(&history, &[]);
    assert!(diff.truncated && diff.patch.len() <= MAX_PATCH && diff.patch.len() > MAX_PATCH / 2);
    assert_eq!(diff.files.len(), 60);
    let patch = arena.host.join("patch");
    std::fs::write(&patch, &diff.patch).unwrap();
    run(crate::arena::plain_git(&arena.project).args(["apply", "--check", patch.to_str().unwrap()]));
}
