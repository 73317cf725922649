//! A branch holds what git itself makes of the same files, or is not made. git is asked for the same in a clone.

use std::path::Path;

use history::{Error, History, Obeyed, Publish};

use crate::arena::{Arena, executable, git, run, write};

fn publish(arena: &Arena, history: &mut History) -> history::Result<history::Published> {
    let request =
        Publish { branch: "vcoding/w", message: "the work", obeyed: &Obeyed::default(), time_ms: 1_700_000_100_000 };
    history.publish(&arena.project, &request)
}

fn committed(root: &Path, files: &[(&str, &str)]) {
    git(root, &["init", "-q", "-b", "main"]);
    for (path, text) in files {
        write(root, path, text);
    }
    git(root, &["add", "-f", "."]);
    git(root, &["commit", "-qm", "one"]);
}

/// The reasons for a refusal; no branch was made.
fn refused(arena: &Arena, history: &mut History) -> String {
    arena.checkpoint(history);
    let reasons = match publish(arena, history) {
        Err(Error::Unfaithful { reasons }) => reasons.join("; "),
        other => panic!("{other:?}"),
    };
    assert_eq!(git(&arena.project, &["branch", "--list", "vcoding/*"]), "");
    reasons
}

/// The branch is made, and its tree is what git makes of the guest's files in the user's own repository.
fn faithful(arena: &Arena, history: &mut History) {
    arena.checkpoint(history);
    publish(arena, history).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let index = scratch.path().join("index");
    std::fs::copy(arena.project.join(".git/index"), &index).unwrap();
    let with = |args: &[&str]| {
        let mut command = own_git(&arena.project);
        command.env("GIT_INDEX_FILE", &index).env("GIT_WORK_TREE", &arena.tree);
        command.env("GIT_DIR", arena.project.join(".git"));
        run(command.args(args)).trim().to_owned()
    };
    with(&["add", "-A"]);
    assert_eq!(with(&["write-tree"]), git(&arena.project, &["rev-parse", "vcoding/w^{tree}"]).trim());
}

/// git with the repository's own settings for line ends.
fn own_git(directory: &Path) -> std::process::Command {
    let mut command = std::process::Command::new("git");
    command.current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    command.args(["-c", "safe.directory=*"]);
    command
}

#[test]
fn a_sparse_checkout_is_not_published_as_deletions() {
    let (arena, mut history) = Arena::with(|root| {
        committed(root, &[("in/a", "1\n"), ("out/b", "2\n")]);
        git(root, &["sparse-checkout", "set", "--no-cone", "in"]);
        assert!(!root.join("out").exists());
    });
    faithful_when_nothing_changed(&arena, &mut history);
    write(&arena.tree, "in/a", "2\n");
    let reasons = refused(&arena, &mut history);
    assert!(reasons.contains("out/b is outside of the sparse checkout"), "{reasons}");
    assert!(history.unapplied().unwrap(), "it is not taken for work that came home");
    // What it was copied from counts, not what it became since.
    git(&arena.project, &["sparse-checkout", "disable"]);
    assert!(refused(&arena, &mut history).contains("out/b"));
}

fn faithful_when_nothing_changed(arena: &Arena, history: &mut History) {
    arena.checkpoint(history);
    assert_eq!(publish(arena, history).unwrap().commit, None);
}

#[test]
fn an_index_that_is_sparse_by_directories_is_seen_too() {
    let (arena, mut history) = Arena::with(|root| {
        committed(root, &[("in/a", "1\n"), ("out/b", "2\n")]);
        git(root, &["sparse-checkout", "set", "--cone", "--sparse-index", "in"]);
    });
    write(&arena.tree, "in/a", "2\n");
    assert!(refused(&arena, &mut history).contains("out/b"));
}

#[test]
fn a_sparse_checkout_that_holds_everything_is_published() {
    let (arena, mut history) = Arena::with(|root| {
        committed(root, &[("in/a", "1\n")]);
        git(root, &["sparse-checkout", "set", "in"]);
    });
    write(&arena.tree, "in/a", "2\n");
    faithful(&arena, &mut history);
}

#[test]
fn a_file_that_git_was_told_not_to_look_at_stays_the_users() {
    let (arena, mut history) = Arena::with(|root| {
        committed(root, &[("a", "1\n"), ("local.toml", "shared\n")]);
        git(root, &["update-index", "--assume-unchanged", "local.toml"]);
        write(root, "local.toml", "mine\n");
    });
    write(&arena.tree, "a", "2\n");
    assert!(refused(&arena, &mut history).contains("local.toml"));
}

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";

#[test]
fn content_is_not_published_in_place_of_a_pointer_of_git_lfs() {
    let (arena, mut history) = Arena::with(|root| {
        committed(root, &[("art/.gitattributes", "*.bin filter=lfs -text\n"), ("art/a.bin", POINTER), ("b", "1\n")]);
    });
    // Not fetched: what lies there is the pointer, as in the repository.
    write(&arena.tree, "b", "2\n");
    faithful(&arena, &mut history);
    git(&arena.project, &["branch", "-D", "vcoding/w"]);
    write(&arena.tree, "art/new.bin", "content\n");
    let reasons = refused(&arena, &mut history);
    assert!(reasons.contains("art/new.bin goes through the filter lfs"), "{reasons}");

    // Fetched: the copy has the content, although nothing of it was worked on.
    let (arena, mut history) = Arena::with(|root| {
        committed(root, &[(".gitattributes", "*.bin filter=lfs -text\n"), ("a.bin", POINTER), ("b", "1\n")]);
        write(root, "a.bin", "content\n");
    });
    write(&arena.tree, "b", "2\n");
    assert!(refused(&arena, &mut history).contains("a.bin"));
}

#[test]
fn what_another_clean_filter_changes_is_not_published_as_it_is() {
    let (arena, mut history) = Arena::with(|root| {
        committed(root, &[("a", "1\n"), ("notes.ipynb", "{}\n")]);
        write(root, ".git/info/attributes", "*.ipynb filter=strip\n");
    });
    write(&arena.tree, "notes.ipynb", "{output}\n");
    faithful(&arena, &mut history);
    git(&arena.project, &["branch", "-D", "vcoding/w"]);
    git(&arena.project, &["config", "filter.strip.clean", "sed s/output//"]);
    let reasons = refused(&arena, &mut history);
    assert!(reasons.contains("notes.ipynb goes through the filter strip"), "{reasons}");
    // Others are as they are.
    write(&arena.tree, "notes.ipynb", "{}\n");
    write(&arena.tree, "a", "2\n");
    faithful(&arena, &mut history);
}

#[test]
fn line_ends_that_git_converts_are_not_published() {
    let attributes = "*.txt text\n*.auto text=auto\n*.dos eol=crlf\n*.old crlf\n*.raw -text\nsub/** text=auto\n";
    let (arena, mut history) = Arena::with(|root| {
        committed(root, &[(".gitattributes", attributes), ("a", "1\n")]);
        // Stored with them before there was an attribute.
        git(root, &["rm", "-q", "--cached", ".gitattributes"]);
        write(root, "stored.auto", "1\r\n");
        write(root, ".git/info/attributes", "*.auto -text\n");
        git(root, &["add", "-f", "."]);
        git(root, &["commit", "-qm", "two"]);
        write(root, ".git/info/attributes", "");
    });
    let crlf = "one\r\ntwo\r\n";
    // What git stores as it is: no CRLF, binary where it guesses, told not to, stored so before.
    for (path, content) in [
        ("lf.txt", "one\ntwo\n"),
        ("lf.auto", "one\n"),
        ("lf.dos", "one\n"),
        ("a", crlf),
        ("b.raw", crlf),
        ("stored.auto", crlf),
        ("image.auto", "\0\r\n"),
        ("lone.auto", "a\rb\r\n"),
        ("sub/x", "one\n"),
    ] {
        write(&arena.tree, path, content);
    }
    faithful(&arena, &mut history);
    git(&arena.project, &["branch", "-D", "vcoding/w"]);
    for path in ["x.txt", "x.auto", "x.dos", "x.old", "sub/y"] {
        write(&arena.tree, path, crlf);
        let reasons = refused(&arena, &mut history);
        assert!(reasons.contains(&format!("{path} has line ends that git converts")), "{reasons}");
        std::fs::remove_file(arena.tree.join(path)).unwrap();
    }
}

#[test]
fn line_ends_by_configuration_are_seen_and_not_guessed() {
    for setting in ["true", "input"] {
        let (arena, mut history) = Arena::with(|root| {
            committed(root, &[("a", "1\n"), ("b", "1\n")]);
            git(root, &["config", "core.autocrlf", setting]);
        });
        write(&arena.tree, "a", "2\n");
        faithful(&arena, &mut history);
        git(&arena.project, &["branch", "-D", "vcoding/w"]);
        // As a checkout on Windows has it, and a share from there.
        write(&arena.tree, "b", "1\r\n2\r\n");
        assert!(refused(&arena, &mut history).contains("b has line ends"), "{setting}");
    }
}

#[test]
fn idents_and_encodings_are_seen_where_they_change_something() {
    let (arena, mut history) = Arena::with(|root| {
        let attributes = "*.c ident\n*.u16 working-tree-encoding=UTF-16LE\n*.u8 working-tree-encoding=UTF-8\n";
        committed(root, &[(".gitattributes", attributes), ("a.c", "$Id$\n")]);
    });
    write(&arena.tree, "a.c", "$Id$ 2\n$Id: open\n$");
    write(&arena.tree, "b.u8", "ä\n");
    faithful(&arena, &mut history);
    git(&arena.project, &["branch", "-D", "vcoding/w"]);
    write(&arena.tree, "b.c", "/* $Id: 0123 $ */\n");
    write(&arena.tree, "b.u16", "a\0");
    let reasons = refused(&arena, &mut history);
    assert!(reasons.contains("b.c has an $Id$") && reasons.contains("b.u16 is kept as UTF-8"), "{reasons}");
}

#[test]
fn modes_that_git_does_not_look_at_are_not_published() {
    let (arena, mut history) = Arena::with(|root| {
        committed(root, &[("a", "1\n"), ("run.sh", "#!/bin/sh\n")]);
        git(root, &["config", "core.fileMode", "false"]);
    });
    write(&arena.tree, "a", "2\n");
    write(&arena.tree, "new", "2\n");
    faithful(&arena, &mut history);
    git(&arena.project, &["branch", "-D", "vcoding/w"]);
    executable(&arena.tree, "run.sh");
    let reasons = refused(&arena, &mut history);
    assert!(reasons.contains("run.sh has a type or mode") && !reasons.contains("new"), "{reasons}");
    git(&arena.project, &["config", "core.fileMode", "true"]);
    faithful(&arena, &mut history);
}
