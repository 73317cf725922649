use std::path::Path;

use history::{Error, History, Obeyed, Publish, Published};

use crate::arena::{Arena, executable, git, link, plain_git, run, write};

fn obeyed() -> Obeyed {
    let rows =
        [(".github/workflows/", "ci"), (".gitattributes", "git"), ("Makefile", "builds"), (".vscode/", "editors")];
    Obeyed::new(rows.into_iter())
}

fn committed(root: &Path) {
    git(root, &["init", "-q", "-b", "main"]);
    write(root, "a", "1\n");
    write(root, "dir/b", "2\n");
    write(root, "dir/.env", "SECRET=1\n");
    write(root, "big", vec![b'x'; 100_001]);
    git(root, &["add", "-f", "."]);
    git(root, &["commit", "-qm", "one"]);
}

fn publish(arena: &Arena, history: &mut History) -> history::Result<Published> {
    let request = Publish { branch: "vcoding/w", message: "the work", obeyed: &obeyed(), time_ms: 1_700_000_100_000 };
    history.publish(&arena.project, &request)
}

fn show(arena: &Arena, args: &[&str]) -> String {
    git(&arena.project, args).trim().to_owned()
}

#[test]
fn the_work_comes_home_as_a_branch_and_the_project_stays_as_it_is() {
    let (arena, mut history) = Arena::with(committed);
    write(&arena.project, "edited-meanwhile", "x");
    git(&arena.project, &["status"]);
    let before = (show(&arena, &["status", "--porcelain"]), std::fs::read(arena.project.join(".git/index")).unwrap());
    let head = show(&arena, &["rev-parse", "HEAD"]);
    write(&arena.tree, "a", "changed\n");
    write(&arena.tree, "new/file", "n\n");
    std::fs::remove_file(arena.tree.join("dir/b")).unwrap();
    std::fs::create_dir_all(arena.tree.join("hollow/inner")).unwrap();
    let head_checkpoint = arena.checkpoint(&mut history).checkpoint;
    assert!(history.unapplied().unwrap());
    let published = publish(&arena, &mut history).unwrap();
    assert!(!history.unapplied().unwrap());
    assert_eq!(history.applied().unwrap(), Some(head_checkpoint.id));
    assert_eq!(published.parent.unwrap().to_string(), head);
    assert_eq!(published.uncommitted, None);
    assert_eq!(show(&arena, &["rev-parse", "vcoding/w"]), published.commit.unwrap().to_string());
    assert_eq!(show(&arena, &["rev-parse", "vcoding/w^"]), head);
    let changes = show(&arena, &["diff", "--name-status", "--no-renames", "main", "vcoding/w"]);
    assert_eq!(changes, "M\ta\nD\tdir/b\nA\tnew/file", "what was kept out of the copy is as HEAD has it");
    assert_eq!(show(&arena, &["log", "-1", "--format=%s", "vcoding/w"]), "the work");
    let after = (show(&arena, &["status", "--porcelain"]), std::fs::read(arena.project.join(".git/index")).unwrap());
    assert_eq!(before, after);
    show(&arena, &["fsck", "--full", "--strict"]);
    let again = publish(&arena, &mut history).unwrap();
    assert_eq!(again.commit, published.commit);
}

#[test]
fn what_comes_after_a_merge_grows_from_what_was_merged() {
    let (arena, mut history) = Arena::with(committed);
    write(&arena.tree, "a", "first\n");
    arena.checkpoint(&mut history);
    let first = publish(&arena, &mut history).unwrap().commit.unwrap().to_string();
    git(&arena.project, &["merge", "-q", "vcoding/w"]);
    assert_eq!(publish(&arena, &mut history).unwrap().commit.unwrap().to_string(), first, "there is nothing new");
    write(&arena.tree, "a", "second\n");
    arena.checkpoint(&mut history);
    let second = publish(&arena, &mut history).unwrap();
    assert_eq!(show(&arena, &["rev-parse", "vcoding/w^"]), first);
    assert_eq!(show(&arena, &["diff", "--name-status", "HEAD", "vcoding/w"]), "M\ta");
    git(&arena.project, &["merge", "-q", "--ff-only", "vcoding/w"]);
    assert_eq!(std::fs::read_to_string(arena.project.join("a")).unwrap(), "second\n");
    assert_eq!(publish(&arena, &mut history).unwrap().commit, second.commit);
}

#[test]
fn a_branch_of_an_earlier_workspace_is_taken_over_only_if_nothing_is_lost() {
    let (arena, mut history) = Arena::with(committed);
    let earlier = "theirs\n\nVcoding-Checkpoint: 0123";
    git(&arena.project, &["commit", "-q", "--allow-empty", "-m", earlier]);
    git(&arena.project, &["branch", "vcoding/w"]);
    write(&arena.tree, "a", "first\n");
    arena.checkpoint(&mut history);
    publish(&arena, &mut history).unwrap();
    // The same with a commit that is nowhere else.
    git(&arena.project, &["checkout", "-q", "-b", "vcoding/v"]);
    git(&arena.project, &["commit", "-q", "--allow-empty", "-m", earlier]);
    git(&arena.project, &["checkout", "-q", "main"]);
    write(&arena.project, "nowhere-else", "x");
    git(&arena.project, &["checkout", "-q", "vcoding/v"]);
    git(&arena.project, &["add", "nowhere-else"]);
    git(&arena.project, &["commit", "-qm", earlier]);
    git(&arena.project, &["checkout", "-q", "main"]);
    git(&arena.project, &["branch", "vcoding/v-2"]);
    let request = Publish { branch: "vcoding/v", message: "the work", obeyed: &obeyed(), time_ms: 1_700_000_100_000 };
    let refused = history.publish(&arena.project, &request);
    assert!(matches!(refused, Err(Error::BranchExists { free, .. }) if free == "vcoding/v-3"));
}

#[test]
fn a_branch_whose_content_was_squashed_into_head_is_taken_over() {
    let (arena, mut history) = Arena::with(committed);
    write(&arena.tree, "a", "first\n");
    write(&arena.tree, "new", "n\n");
    std::fs::remove_file(arena.tree.join("dir/b")).unwrap();
    arena.checkpoint(&mut history);
    publish(&arena, &mut history).unwrap();
    git(&arena.project, &["merge", "-q", "--squash", "vcoding/w"]);
    git(&arena.project, &["commit", "-qm", "squashed"]);
    // The next workspace of the project knows nothing of the one before.
    let next = |arena: &Arena| {
        let host = tempfile::tempdir().unwrap();
        let tree = host.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let mut history = History::create(&host.path().join("host"), crate::arena::SETTINGS).unwrap();
        let meta = crate::arena::meta("up");
        history.import(&arena.project, &tree, None, &meta, &|_| true, &mut |_| {}).unwrap();
        write(&tree, "more", "m\n");
        history.checkpoint(&tree, &meta, history::Activity::Still).unwrap();
        publish(arena, &mut history).map(|_| ())
    };
    git(&arena.project, &["commit", "-q", "--allow-empty", "-m", "later"]);
    next(&arena).unwrap();
    assert_eq!(show(&arena, &["diff", "--name-status", "main", "vcoding/w"]), "A\tmore");
    // Not while HEAD lacks a part of it.
    write(&arena.project, "unrelated", "x");
    git(&arena.project, &["add", "unrelated"]);
    git(&arena.project, &["commit", "-qm", "unrelated"]);
    assert!(matches!(next(&arena), Err(Error::BranchExists { .. })));
}

#[test]
fn the_uncommitted_state_is_a_commit_of_its_own() {
    let (arena, mut history) = Arena::with(|root| {
        committed(root);
        git(root, &["config", "user.name", "Ada <x>"]);
        git(root, &["config", "user.email", "ada@example"]);
        write(root, "a", "edited, not committed\n");
        write(root, "untracked", "u\n");
        std::fs::remove_file(root.join("dir/b")).unwrap();
    });
    write(&arena.tree, "work", "w\n");
    arena.checkpoint(&mut history);
    let published = publish(&arena, &mut history).unwrap();
    assert_eq!(published.uncommitted.unwrap().to_string(), show(&arena, &["rev-parse", "vcoding/w^"]));
    assert_eq!(show(&arena, &["diff", "--name-status", "vcoding/w^", "vcoding/w"]), "A\twork");
    assert_eq!(show(&arena, &["diff", "--name-status", "main", "vcoding/w^"]), "M\ta\nD\tdir/b\nA\tuntracked");
    assert_eq!(
        show(&arena, &["log", "-1", "--format=%s", "vcoding/w^"]),
        "the project as it was when vcoding copied it in"
    );
    assert_eq!(show(&arena, &["log", "-1", "--format=%an|%ae", "vcoding/w"]), "Ada x|ada@example");
}

#[test]
fn a_repository_without_a_commit_gets_a_root() {
    let (arena, mut history) = Arena::with(|root| {
        git(root, &["init", "-q", "-b", "main"]);
        write(root, "a", "1\n");
    });
    write(&arena.tree, "work", "w\n");
    arena.checkpoint(&mut history);
    publish(&arena, &mut history).unwrap();
    assert_eq!(show(&arena, &["rev-list", "--count", "vcoding/w"]), "2");
    assert_eq!(show(&arena, &["ls-tree", "-r", "--name-only", "vcoding/w"]), "a\nwork");
}

#[test]
fn nothing_to_publish_makes_no_branch() {
    let (arena, mut history) = Arena::with(committed);
    std::fs::create_dir(arena.tree.join("hollow")).unwrap();
    arena.checkpoint(&mut history);
    let published = publish(&arena, &mut history).unwrap();
    assert_eq!(published.commit, None);
    assert_eq!(show(&arena, &["branch", "--list", "vcoding/*"]), "");
    assert!(!history.unapplied().unwrap());
}

#[test]
fn a_branch_moves_only_from_where_the_last_publishing_left_it() {
    let (arena, mut history) = Arena::with(committed);
    write(&arena.tree, "a", "2\n");
    arena.checkpoint(&mut history);
    let first = publish(&arena, &mut history).unwrap().commit;
    write(&arena.tree, "a", "3\n");
    arena.checkpoint(&mut history);
    let second = publish(&arena, &mut history).unwrap().commit;
    assert!(second != first && show(&arena, &["rev-parse", "vcoding/w"]) == second.unwrap().to_string());

    git(&arena.project, &["update-ref", "refs/heads/vcoding/w", "main"]);
    write(&arena.tree, "a", "4\n");
    arena.checkpoint(&mut history);
    assert!(matches!(publish(&arena, &mut history), Err(Error::BranchExists { .. })));
    assert_eq!(show(&arena, &["rev-parse", "vcoding/w"]), show(&arena, &["rev-parse", "main"]));

    git(&arena.project, &["update-ref", "refs/heads/vcoding/w", &second.unwrap().to_string()]);
    let worktree = arena.host.join("worktree");
    git(&arena.project, &["worktree", "add", "-q", worktree.to_str().unwrap(), "vcoding/w"]);
    assert!(matches!(publish(&arena, &mut history), Err(Error::BranchCheckedOut { .. })));
    git(&arena.project, &["worktree", "remove", worktree.to_str().unwrap()]);
    publish(&arena, &mut history).unwrap();
    for bad in ["-x", "a..b", "", "a b", "HEAD", "x.lock", "a//b"] {
        let request = Publish { branch: bad, message: "m", obeyed: &obeyed(), time_ms: 0 };
        assert!(matches!(history.publish(&arena.project, &request), Err(Error::BadBranch { .. })), "{bad}");
    }
}

#[test]
fn a_publishing_that_was_killed_before_or_after_the_branch_moved_is_run_again() {
    let (arena, mut history) = Arena::with(committed);
    write(&arena.tree, "a", "2\n");
    arena.checkpoint(&mut history);
    let places = arena.host.join("published");
    let commit = publish(&arena, &mut history).unwrap().commit;
    let settled = std::fs::read(&places).unwrap();
    // Killed before: the pack and the record are there, the branch is not.
    git(&arena.project, &["update-ref", "-d", "refs/heads/vcoding/w"]);
    std::fs::remove_file(arena.host.join("history.git/refs/vcoding/applied")).unwrap();
    std::fs::write(arena.project.join(".git/objects/pack/.vcoding-tmp-1-1.pack"), "half").unwrap();
    assert_eq!(publish(&arena, &mut history).unwrap().commit, commit);
    assert!(!arena.project.join(".git/objects/pack/.vcoding-tmp-1-1.pack").exists());
    // Killed after: the branch stands at what an older record had only announced.
    write(&arena.tree, "a", "3\n");
    arena.checkpoint(&mut history);
    let next = publish(&arena, &mut history).unwrap().commit;
    assert_ne!(commit, next);
    git(&arena.project, &["update-ref", "refs/heads/vcoding/w", &commit.unwrap().to_string()]);
    std::fs::write(&places, settled).unwrap();
    assert_eq!(publish(&arena, &mut history).unwrap().commit, next);
    show(&arena, &["fsck", "--full", "--strict"]);
}

#[test]
fn what_the_guest_put_where_something_was_kept_out_is_not_published() {
    let (arena, mut history) = Arena::with(|root| {
        committed(root);
        write(root, "untracked.env", "X=1");
    });
    write(&arena.tree, "dir/.env", "guest's own");
    write(&arena.tree, "untracked.env", "guest's own");
    write(&arena.tree, "other.env", "not there in the project");
    arena.checkpoint(&mut history);
    let published = publish(&arena, &mut history).unwrap();
    assert_eq!(published.kept, [b"dir/.env".to_vec(), b"untracked.env".to_vec()]);
    assert_eq!(show(&arena, &["diff", "--name-status", "main", "vcoding/w"]), "A\tother.env");
}

#[test]
fn submodules_keep_their_entry() {
    let (arena, mut history) = Arena::with(|root| {
        let module = root.parent().unwrap().join("module");
        std::fs::create_dir(&module).unwrap();
        committed(&module);
        committed(root);
        git(
            root,
            &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", module.to_str().unwrap(), "deep/sub"],
        );
        git(root, &["commit", "-qm", "sub"]);
    });
    write(&arena.tree, "a", "2\n");
    arena.checkpoint(&mut history);
    publish(&arena, &mut history).unwrap();
    assert_eq!(show(&arena, &["diff", "--name-status", "main", "vcoding/w"]), "M\ta");
    assert!(show(&arena, &["ls-tree", "vcoding/w", "deep/"]).starts_with("160000 commit"));
}

#[test]
fn hostile_messages_are_neutralised_and_what_the_host_obeys_is_flagged() {
    let (arena, mut history) = Arena::with(committed);
    write(&arena.tree, ".github/workflows/ci.yml", "x");
    write(&arena.tree, "sub/.gitattributes", "* filter=x");
    write(&arena.tree, "Makefile", "all:");
    write(&arena.tree, "fine", "x");
    link(&arena.tree, "out", "../../etc/passwd");
    executable(&arena.tree, "a");
    arena.checkpoint(&mut history);
    let request = Publish { branch: "b", message: "ok\x1b[2J\n\nbody \u{202e}evil\0", obeyed: &obeyed(), time_ms: 0 };
    let published = history.publish(&arena.project, &request).unwrap();
    let flagged: Vec<_> =
        published.flagged.list.iter().map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect();
    assert_eq!(flagged, [".github/workflows/ci.yml", "Makefile", "out", "sub/.gitattributes"]);
    let text = show(&arena, &["log", "-1", "--format=%B", "b"]);
    assert!(!text.contains(['\x1b', '\u{202e}', '\0']) && text.starts_with("ok\u{fffd}[2J\n\nbody"), "{text:?}");
    assert!(show(&arena, &["diff", "--summary", "main", "b"]).contains("mode change 100644 => 100755 a"));
}

#[test]
fn no_hook_runs() {
    let (arena, mut history) = Arena::with(committed);
    let ran = arena.host.join("ran");
    for name in
        ["reference-transaction", "update", "post-update", "pre-commit", "post-commit", "post-checkout", "pre-receive"]
    {
        write(&arena.project, format!(".git/hooks/{name}"), format!("#!/bin/sh\ntouch {}\n", ran.display()));
        executable(&arena.project, &format!(".git/hooks/{name}"));
    }
    write(&arena.tree, "a", "2\n");
    arena.checkpoint(&mut history);
    publish(&arena, &mut history).unwrap();
    assert!(!ran.exists());
    // Control: git itself runs them for the same.
    git(&arena.project, &["update-ref", "refs/heads/other", "vcoding/w"]);
    assert!(ran.exists());
}

#[test]
fn a_worktree_publishes_into_its_repository() {
    let arena = Arena::new();
    let main = arena.host.parent().unwrap().join("main");
    std::fs::create_dir(&main).unwrap();
    committed(&main);
    std::fs::remove_dir(&arena.project).unwrap();
    git(&main, &["worktree", "add", "-q", "-b", "side", arena.project.to_str().unwrap()]);
    let (mut history, _) = arena.import();
    write(&arena.tree, "a", "2\n");
    arena.checkpoint(&mut history);
    let commit = publish(&arena, &mut history).unwrap().commit.unwrap();
    assert_eq!(git(&main, &["rev-parse", "vcoding/w"]).trim(), commit.to_string());
    assert!(show(&arena, &["status", "--porcelain"]).is_empty());
    let request = Publish { branch: "side", message: "m", obeyed: &obeyed(), time_ms: 0 };
    assert!(matches!(history.publish(&arena.project, &request), Err(Error::BranchCheckedOut { .. })));
}

#[test]
fn what_is_no_repository_or_lost_its_commit_is_said() {
    let (arena, mut history) = Arena::with(|root| write(root, "a", "1"));
    write(&arena.tree, "a", "2");
    arena.checkpoint(&mut history);
    assert!(matches!(publish(&arena, &mut history), Err(Error::NotARepository { .. })));

    let (arena, mut history) = Arena::with(committed);
    write(&arena.tree, "a", "2");
    arena.checkpoint(&mut history);
    std::fs::remove_dir_all(arena.project.join(".git")).unwrap();
    git(&arena.project, &["init", "-q"]);
    assert!(matches!(publish(&arena, &mut history), Err(Error::HeadGone { .. })));

    std::fs::remove_dir_all(arena.project.join(".git")).unwrap();
    run(plain_git(&arena.project).args(["init", "-q", "--object-format=sha256"]));
    assert!(matches!(publish(&arena, &mut history), Err(Error::Unsupported { .. })));
}

#[test]
fn what_git_would_not_check_out_is_left_out_and_named_and_the_branch_can_be_merged() {
    let (arena, mut history) = Arena::with(|root| {
        committed(root);
        link(root, "theirs", ".git/config");
        git(root, &["add", "."]);
        git(root, &["commit", "-qm", "a link of the user's own"]);
    });
    write(&arena.tree, "a", "2\n");
    write(&arena.tree, ".git\\config", "evil");
    write(&arena.tree, "sub/x\\.GIT\\hooks", "evil");
    link(&arena.tree, "hooks", ".git/hooks");
    link(&arena.tree, "sub/up", "../.GIT");
    link(&arena.tree, ".gitmodules", "a");
    link(&arena.tree, "fine", "dir/b");
    arena.checkpoint(&mut history);
    let published = publish(&arena, &mut history).unwrap();
    let refused: Vec<_> =
        published.refused.iter().map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect();
    assert_eq!(refused, [".git\\config", ".gitmodules", "hooks", "sub/up", "sub/x\\.GIT\\hooks", "theirs"]);
    let changes = show(&arena, &["diff", "--name-status", "--no-renames", "main", "vcoding/w"]);
    assert_eq!(changes, "M\ta\nA\tfine", "what the user has is as it was");
    show(&arena, &["fsck", "--full", "--strict"]);
    show(&arena, &["-c", "core.protectNTFS=true", "-c", "core.protectHFS=true", "merge", "-q", "vcoding/w"]);
}

#[test]
fn what_the_host_obeys_is_named_by_every_name_that_a_link_gives_it() {
    let (arena, mut history) = Arena::with(|root| {
        committed(root);
        write(root, "ci/workflows/old.yml", "x");
        link(root, ".github", "conf/hub");
        write(root, "conf/x", "x");
        link(root, "conf/hub", "../ci");
        write(root, "build/rules", "all:");
        link(root, "Makefile", "build/rules");
        link(root, "circle", "circle");
        git(root, &["add", "."]);
        git(root, &["commit", "-qm", "links"]);
    });
    let flagged = |arena: &Arena, history: &mut History| {
        arena.checkpoint(history);
        let published = publish(arena, history).unwrap();
        let names = published.flagged.list.iter().map(|(path, _)| String::from_utf8_lossy(path).into_owned());
        names.collect::<Vec<_>>()
    };
    write(&arena.tree, "other", "x");
    assert!(flagged(&arena, &mut history).is_empty());
    write(&arena.tree, "ci/workflows/new.yml", "x");
    write(&arena.tree, "build/rules", "all: evil");
    assert_eq!(flagged(&arena, &mut history), [".github/workflows/new.yml", "Makefile"]);
    // A link that is new: everything behind it, although nothing of that changed.
    write(&arena.tree, "dir/tasks.json", "x");
    link(&arena.tree, ".vscode", "dir");
    link(&arena.tree, "rules", "Makefile");
    let names = flagged(&arena, &mut history);
    for name in [".vscode/b", ".vscode/tasks.json"] {
        assert!(names.iter().any(|one| one == name), "{name}: {names:?}");
    }
}
