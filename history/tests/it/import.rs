use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use history::{Class, Error, History, Owner};

use crate::arena::{Arena, SETTINGS, all_of, git, link, meta, run, write};

#[test]
fn what_git_would_add_comes_in_and_the_rest_stays_out() {
    let arena = Arena::new();
    let root = &arena.project;
    git(root, &["init", "-q", "-b", "main"]);
    write(root, ".gitignore", "*.gen\n/cache/\n");
    write(root, "sub/.gitignore", "!wanted.gen\n");
    write(root, "tracked.txt", "committed");
    write(root, "deep/tracked.gen", "tracked although ignored");
    write(root, "build/tool.sh", "build results are work");
    write(root, "node_modules/ours/tool.sh", "tracked although the template ignores it");
    git(root, &["add", "-f", "."]);
    git(root, &["commit", "-qm", "one"]);
    write(root, "tracked.txt", "edited");
    write(root, "untracked.txt", "new");
    write(root, "x.gen", "ignored");
    write(root, "sub/wanted.gen", "taken back in");
    write(root, "cache/x", "ignored");
    write(root, "sub/node_modules/m/i.js", "a cache");
    write(root, "sub/target/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# cargo's");
    write(root, "target/map.txt", "somebody's target");
    write(root, "dist/a.js", "not committed, not ignored");
    write(root, ".git/info/exclude", "mine\n");
    write(root, "mine", "ignored");
    write(root, ".vcodingignore", "huge-data/\n");
    write(root, "huge-data/x", "ignored");
    let head = git(root, &["rev-parse", "HEAD"]).trim().to_owned();
    let (_, imported) = arena.import();
    assert_eq!(imported.project_head, Some(head));
    let files =
        run(std::process::Command::new("find").args(["-type", "f", "-printf", "%P\n"]).current_dir(&arena.tree));
    let mut files: Vec<&str> = files.lines().collect();
    files.sort_unstable();
    assert_eq!(
        files,
        [
            ".gitignore",
            ".vcodingignore",
            "build/tool.sh",
            "deep/tracked.gen",
            "dist/a.js",
            "node_modules/ours/tool.sh",
            "sub/.gitignore",
            "sub/wanted.gen",
            "target/map.txt",
            "tracked.txt",
            "untracked.txt"
        ]
    );
    assert_eq!(std::fs::read_to_string(arena.tree.join("tracked.txt")).unwrap(), "edited");
    assert_eq!(imported.files, 11);
}

#[test]
fn secrets_are_kept_out_and_said_unless_they_are_let_in() {
    let arena = Arena::new();
    let root = &arena.project;
    write(root, "main.py", "print()");
    write(root, ".env", "KEY=1");
    write(root, ".env.example", "KEY=");
    write(root, "conf/.env", "let in");
    write(root, "keys/id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
    write(root, "keys/server.pem", "-----BEGIN PRIVATE KEY-----\n");
    write(root, "big.bin", vec![0; 100_001]);
    write(root, ".vcodinginclude", "/conf/.env\n");
    run(std::process::Command::new("mkfifo").arg(root.join("fifo")));
    let (mut history, imported) = arena.import();
    for out in [".env", "keys/id_ed25519", "keys/server.pem", "big.bin", "fifo"] {
        assert!(!arena.tree.join(out).exists(), "{out}");
        let listed = imported.left_out.listed(|_| true);
        assert!(listed.iter().any(|note| note.path == out.as_bytes() && !note.why.is_empty()), "{out}");
    }
    assert_eq!(imported.left_out.total(|_| true), 5);
    assert_eq!(imported.left_out.count(Class::Secret), 3);
    assert!(arena.tree.join(".env.example").exists() && arena.tree.join("conf/.env").exists());
    assert!(imported.notes.iter().any(|note| note.contains("conf/.env")), "{:?}", imported.notes);
    assert!(!arena.tree.join("keys").exists(), "a directory of which nothing came in is not made");
    assert!(!arena.checkpoint(&mut history).created, "the copy is what the first checkpoint says");
}

#[test]
fn the_copy_shares_nothing_with_the_project() {
    let arena = Arena::new();
    write(&arena.project, "a", "1");
    link(&arena.project, "out", "/etc/passwd");
    link(&arena.project, "in", "a");
    let (_, imported) = arena.import();
    assert_eq!(std::fs::metadata(arena.project.join("a")).unwrap().nlink(), 1);
    assert_eq!(std::fs::read_link(arena.tree.join("out")).unwrap().to_str(), Some("/etc/passwd"));
    assert_eq!(imported.notes.len(), 1, "{:?}", imported.notes);
    assert!(imported.notes[0].starts_with("out: a link that leads out"));
}

#[test]
fn the_copy_has_the_projects_bits_and_so_has_what_a_rollback_makes_again() {
    let arena = Arena::new();
    let mode = |root: &Path, name: &str| std::fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o7777;
    let set = |root: &Path, name: &str, mode| {
        std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write(&arena.project, "open/plain", "1");
    write(&arena.project, "open/tool", "1");
    write(&arena.project, "closed/inner/f", "1");
    for (name, bits) in [
        ("", 0o751),
        ("open", 0o2775),
        ("open/plain", 0o644),
        ("open/tool", 0o755),
        ("closed", 0o700),
        ("closed/inner", 0o755),
    ] {
        set(&arena.project, name, bits);
    }
    let (mut history, _) = arena.import();
    let expected = |root: &Path| {
        for (name, bits) in [
            ("", 0o751),
            ("open", 0o775),
            ("open/plain", 0o644),
            ("open/tool", 0o755),
            ("closed", 0o700),
            ("closed/inner", 0o755),
        ] {
            assert_eq!(mode(root, name), bits, "{name}");
        }
    };
    expected(&arena.tree);
    for name in ["open", "closed"] {
        std::fs::remove_dir_all(arena.tree.join(name)).unwrap();
    }
    write(&arena.tree, "new/deep/f", "1");
    arena.checkpoint(&mut history);
    // What is known of the project's directories is on disk.
    drop(history);
    let mut history = History::open(&arena.host, SETTINGS).unwrap();
    arena.rollback(&mut history, "base");
    expected(&arena.tree);
    arena.rollback(&mut history, "@~1");
    assert_eq!(mode(&arena.tree, "new/deep"), 0o755, "of which nothing is known");
}

#[test]
fn the_copy_belongs_to_its_owner() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let arena = Arena::new();
    write(&arena.project, "dir/a", "1");
    link(&arena.project, "dir/link", "/etc/passwd");
    let mut history = History::create(&arena.host, SETTINGS).unwrap();
    let owner = Owner { uid: 54321, gid: 54322 };
    history.import(&arena.project, &arena.tree, Some(owner), &meta("up"), &|_| true, &mut |_| {}).unwrap();
    write(&arena.tree, "dir/a", "2");
    std::fs::remove_file(arena.tree.join("dir/link")).unwrap();
    history.checkpoint(&arena.tree, &meta("request"), history::Activity::Still).unwrap();
    std::fs::remove_dir_all(arena.tree.join("dir")).unwrap();
    let base = history.base().unwrap().unwrap();
    history.rollback(&arena.tree, Some(owner), &all_of(base), &meta("rollback")).unwrap();
    for path in ["dir", "dir/a", "dir/link"] {
        let stat = std::fs::symlink_metadata(arena.tree.join(path)).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (54321, 54322), "{path}");
    }
    assert_eq!(std::fs::metadata("/etc/passwd").unwrap().uid(), 0);
}

#[test]
fn an_import_that_was_killed_is_run_again_and_one_over_work_is_refused() {
    let arena = Arena::new();
    write(&arena.project, "a", "1");
    write(&arena.tree, "half/copied", "x");
    let (mut history, first) = arena.import();
    assert!(!arena.tree.join("half").exists());
    let again = history.import(&arena.project, &arena.tree, None, &meta("up"), &|_| true, &mut |_| {}).unwrap();
    assert_eq!(again.checkpoint.id, first.checkpoint.id);
    write(&arena.tree, "work", "w");
    arena.checkpoint(&mut history);
    let refused = history.import(&arena.project, &arena.tree, None, &meta("up"), &|_| true, &mut |_| {});
    assert!(matches!(refused, Err(Error::HasWork)));
    assert!(arena.tree.join("work").exists());
}

#[test]
fn submodules_stay_out_whole() {
    let arena = Arena::new();
    let module = arena.project.parent().unwrap().join("module");
    std::fs::create_dir(&module).unwrap();
    git(&module, &["init", "-q"]);
    write(&module, "m", "m");
    git(&module, &["add", "."]);
    git(&module, &["commit", "-qm", "m"]);
    git(&arena.project, &["init", "-q"]);
    write(&arena.project, "a", "1");
    git(
        &arena.project,
        &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", module.to_str().unwrap(), "sub"],
    );
    let (mut history, imported) = arena.import();
    assert!(!arena.tree.join("sub").exists() && arena.tree.join(".gitmodules").exists());
    assert!(imported.left_out.lines().contains(&"left out: sub: a submodule".to_owned()));
    assert!(!arena.checkpoint(&mut history).created);
}

#[test]
fn no_program_of_the_project_runs() {
    let arena = Arena::new();
    let root = &arena.project;
    git(root, &["init", "-q"]);
    write(root, ".gitattributes", "* filter=evil diff=evil\n");
    write(root, "a", "1");
    let touch = format!("touch {}", arena.host.parent().unwrap().join("ran").display());
    for key in
        ["core.fsmonitor", "filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv"]
    {
        git(root, &["config", key, &touch]);
    }
    let hook = format!("#!/bin/sh\n{touch}\n");
    for name in ["post-index-change", "reference-transaction", "pre-commit", "post-checkout", "pre-auto-gc"] {
        write(root, format!(".git/hooks/{name}"), &hook);
        crate::arena::executable(root, &format!(".git/hooks/{name}"));
    }
    let (mut history, _) = arena.import();
    write(&arena.tree, "a", "2");
    arena.checkpoint(&mut history);
    assert!(!arena.host.parent().unwrap().join("ran").exists());
    assert_eq!(std::fs::read_to_string(root.join("a")).unwrap(), "1");
}

#[test]
fn a_secret_that_the_include_file_names_comes_in_only_if_it_is_let_in() {
    let arena = Arena::new();
    for name in ["a.env", "b.env", "sub/key.pem"] {
        write(&arena.project, name, "KEY=x\n-----BEGIN PRIVATE KEY-----\n");
    }
    write(&arena.project, "sub/ca.pem", "-----BEGIN CERTIFICATE-----\n");
    write(&arena.project, "ignored", "no secret");
    assert_eq!(history::included_secrets(&arena.project, 10).unwrap().total, 0);
    write(&arena.project, ".gitignore", "ignored\n");
    write(&arena.project, ".vcodinginclude", "*.env\n*.pem\nignored\n");
    let found = history::included_secrets(&arena.project, 2).unwrap();
    assert_eq!((found.total, found.list.len()), (3, 2));
    let mut history = History::create(&arena.host, SETTINGS).unwrap();
    let let_in = |path: &[u8]| path == b"a.env";
    let imported = history.import(&arena.project, &arena.tree, None, &meta("up"), &let_in, &mut |_| {}).unwrap();
    let there = |name: &str| arena.tree.join(name).exists();
    assert!(there("a.env") && there("ignored") && there("sub/ca.pem") && !there("b.env") && !there("sub/key.pem"));
    let why = imported.left_out.lines().join("\n");
    assert!(why.contains("b.env: ") && why.contains("nobody agreed to that"), "{why}");
}
