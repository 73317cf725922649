use history::{Class, Error, History, Id, Meta, Settings};

use crate::arena::{Arena, SETTINGS, all_of, executable, git, link, meta, run, write};

fn plain(root: &std::path::Path) {
    write(root, "a.txt", "a\n");
    write(root, "a", "file beside a.txt");
    write(root, "src/main.rs", "fn main() {}\r\n");
    write(root, "src/lib/x.rs", "x");
    write(root, "src-x", "sorts between");
    write(root, b"odd \xff\n\\name", "bytes");
    write(root, "empty", "");
    write(root, "run.sh", "#!/bin/sh\n");
    executable(root, "run.sh");
    link(root, "link", "src/main.rs");
}

#[test]
fn the_tree_is_the_one_git_makes_and_fsck_has_no_complaint() {
    let (arena, mut history) = Arena::with(plain);
    assert_eq!(history.resolve("base").unwrap().tree.to_string(), Arena::gits_tree(&arena.tree));
    write(&arena.tree, "src/main.rs", "changed");
    write(&arena.tree, "new/deep/er/file", "n");
    std::fs::remove_file(arena.tree.join("a")).unwrap();
    let made = arena.checkpoint(&mut history);
    assert!(made.created && made.notes.is_empty(), "{:?}", made.notes);
    assert_eq!((made.checkpoint.added, made.checkpoint.changed, made.checkpoint.deleted), (1, 1, 1));
    assert_eq!(made.checkpoint.tree.to_string(), Arena::gits_tree(&arena.tree));
    std::fs::create_dir_all(arena.tree.join("hollow/inner")).unwrap();
    assert!(arena.checkpoint(&mut history).created, "an empty directory counts");
    arena.git(&["fsck", "--full", "--strict"]);
    for pack in std::fs::read_dir(arena.host.join("history.git/objects/pack")).unwrap() {
        let pack = pack.unwrap().path();
        if pack.extension().is_some_and(|extension| extension == "pack") {
            let index = arena.host.join("check.idx");
            arena.git(&["index-pack", "--strict", "-o", index.to_str().unwrap(), pack.to_str().unwrap()]);
            assert_eq!(std::fs::read(&index).unwrap(), std::fs::read(pack.with_extension("idx")).unwrap());
            std::fs::remove_file(&index).unwrap();
        }
    }
}

#[test]
fn nothing_changed_makes_no_checkpoint_but_a_label_does() {
    let (arena, mut history) = Arena::with(plain);
    let base = history.head().unwrap();
    let same = arena.checkpoint(&mut history);
    assert!(!same.created);
    assert_eq!(Some(same.checkpoint.id), base);
    let labelled = Meta { label: Some("good".into()), ..meta("request") };
    assert!(history.checkpoint(&arena.tree, &labelled, history::Activity::Running).unwrap().created);
    assert!(!history.checkpoint(&arena.tree, &labelled, history::Activity::Running).unwrap().created);
    assert_eq!(history.resolve("good").unwrap().id, history.head().unwrap().unwrap());
}

#[test]
fn checkpoints_are_found_by_every_name_they_have() {
    let (arena, mut history) = Arena::with(plain);
    let run = |run: &str| Meta { run: Some(run.into()), ..meta("run") };
    history.checkpoint(&arena.tree, &run("r1"), history::Activity::Still).unwrap();
    write(&arena.tree, "x", "1");
    history.checkpoint(&arena.tree, &run("r1"), history::Activity::Still).unwrap();
    history.checkpoint(&arena.tree, &run("idle"), history::Activity::Still).unwrap();
    let (base, head) = (history.base().unwrap().unwrap(), history.head().unwrap().unwrap());
    let is = |name: &str, id: Id| assert_eq!(history.resolve(name).unwrap().id, id, "{name}");
    is("@", head);
    is("base", base);
    is("@~0", head);
    is("@~1", base);
    is("run:r1^", base);
    is("run:r1", head);
    is("run:idle", head);
    is("run:idle^", head);
    is(&head.to_string(), head);
    is(&head.to_string()[..7], head);
    for unknown in ["@~2", "@~x", "run:no", "run:../../heads/main", "zzzz", "abc", "", "refs/heads/main"] {
        assert!(matches!(history.resolve(unknown), Err(Error::NoSuchCheckpoint { .. })), "{unknown}");
    }
    assert_eq!(history.list(10).unwrap().iter().map(|one| one.id).collect::<Vec<_>>(), [head, base]);
    assert_eq!(history.list(1).unwrap().len(), 1);
}

#[test]
fn a_history_opened_again_knows_all_and_needs_no_cache() {
    let (arena, mut history) = Arena::with(plain);
    write(&arena.tree, "x", "1");
    let head = arena.checkpoint(&mut history).checkpoint;
    drop(history);
    for damage in [None, Some(b"junk".as_slice())] {
        if let Some(junk) = damage {
            std::fs::write(arena.host.join("scan-cache"), junk).unwrap();
        }
        let mut history = History::open(&arena.host, SETTINGS).unwrap();
        assert_eq!(history.head().unwrap(), Some(head.id));
        assert!(!arena.checkpoint(&mut history).created);
    }
}

#[test]
fn what_a_kill_left_is_cleared() {
    let (arena, history) = Arena::with(plain);
    drop(history);
    let packs = arena.host.join("history.git/objects/pack");
    std::fs::write(packs.join("pack-1234.pack"), "half").unwrap();
    std::fs::write(packs.join(".vcoding-tmp-1-1.pack"), "half").unwrap();
    let mut history = History::open(&arena.host, SETTINGS).unwrap();
    assert!(!packs.join("pack-1234.pack").exists() && !packs.join(".vcoding-tmp-1-1.pack").exists());
    assert!(!arena.checkpoint(&mut history).created);
}

#[test]
fn a_reference_to_what_is_not_there_is_refused() {
    let (arena, history) = Arena::with(plain);
    drop(history);
    std::fs::write(arena.host.join("history.git/refs/heads/main"), format!("{}\n", "1".repeat(40))).unwrap();
    assert!(matches!(History::open(&arena.host, SETTINGS), Err(Error::Damaged { .. })));
}

#[test]
fn many_packs_become_one_and_nothing_is_lost() {
    let (arena, mut history) = Arena::with(plain);
    for number in 0..70 {
        write(&arena.tree, "counter", format!("{number}"));
        assert!(arena.checkpoint(&mut history).created);
    }
    let packs = || std::fs::read_dir(arena.host.join("history.git/objects/pack")).unwrap().count() / 2;
    assert!(packs() <= 32, "{}", packs());
    arena.git(&["fsck", "--full", "--strict"]);
    assert_eq!(history.list(100).unwrap().len(), 71);
    let history = History::open(&arena.host, SETTINGS).unwrap();
    assert_eq!(history.list(100).unwrap().len(), 71);
}

#[test]
fn a_change_that_keeps_size_and_times_is_seen_by_its_ctime() {
    let (arena, mut history) = Arena::with(plain);
    let path = arena.tree.join("a.txt");
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, "b\n").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    assert!(arena.checkpoint(&mut history).created);
}

#[test]
fn a_mapped_write_is_seen_when_the_guest_has_stopped() {
    let (arena, mut history) = Arena::with(plain);
    // A store into a page that is dirty already; done twice, so that a scan lies between the stores.
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\n\
        m[0]=66\nprint('1',flush=True)\nsys.stdin.readline()\nm[0]=67\nprint('2',flush=True)\nsys.stdin.readline()";
    let mut child = std::process::Command::new("python3")
        .args(["-c", script, arena.tree.join("a.txt").to_str().unwrap()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut hear = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    };
    let mut tell = {
        let mut stdin = child.stdin.take().unwrap();
        move || std::io::Write::write_all(&mut stdin, b"\n").unwrap()
    };
    hear();
    // Twice, so that the file is not read again merely for being young.
    let first = loop {
        let made = history.checkpoint(&arena.tree, &meta("live"), history::Activity::Running).unwrap();
        if !made.created {
            break made.checkpoint;
        }
    };
    tell();
    hear();
    let end = history.checkpoint(&arena.tree, &meta("end"), history::Activity::Still).unwrap().checkpoint;
    tell();
    child.wait().unwrap();
    assert_ne!(first.tree, end.tree);
    let text = arena.git(&["show", &format!("{}:a.txt", end.id)]);
    assert_eq!(text, "C\n");
}

#[test]
fn what_cannot_be_read_keeps_its_entry_and_is_said() {
    let (arena, mut history) = Arena::with(plain);
    write(&arena.tree, "a.txt", "changed");
    write(&arena.tree, "other", "changed");
    // A write lease makes every open of the file wait, whoever asks.
    let script = "import fcntl,os,sys,signal\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\n\
        fd=os.open(sys.argv[1],os.O_RDWR)\nfcntl.fcntl(fd,fcntl.F_SETLEASE,fcntl.F_WRLCK)\n\
        print('1',flush=True)\nsys.stdin.readline()";
    let mut child = std::process::Command::new("python3")
        .args(["-c", script, arena.tree.join("a.txt").to_str().unwrap()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut String::new()).unwrap();
    let held = arena.checkpoint(&mut history);
    assert!(held.notes.lines().iter().any(|note| note.starts_with("a.txt: ")), "{:?}", held.notes);
    assert_eq!(arena.git(&["show", &format!("{}:a.txt", held.checkpoint.id)]), "a\n", "its entry is the one it had");
    assert_eq!(arena.git(&["show", &format!("{}:other", held.checkpoint.id)]), "changed");
    drop(child.stdin.take());
    child.wait().unwrap();
    let free = arena.checkpoint(&mut history).checkpoint;
    assert_eq!(arena.git(&["show", &format!("{}:a.txt", free.id)]), "changed");
}

#[test]
fn what_lies_too_deep_is_said() {
    let (arena, mut history) = Arena::with(plain);
    // Beyond what the kernel would open by its path, whoever asks.
    let mut deep = arena.tree.clone();
    for _ in 0..300 {
        deep.push("d");
    }
    std::fs::create_dir_all(&deep).unwrap();
    let made = arena.checkpoint(&mut history);
    assert!(made.notes.count(Class::TooDeep) == 1, "{:?}", made.notes);
}

#[test]
fn specials_nested_repositories_and_large_files_are_left_out_with_a_word() {
    let (arena, mut history) = Arena::with(plain);
    run(std::process::Command::new("mkfifo").arg(arena.tree.join("fifo")));
    std::fs::create_dir(arena.tree.join("nested")).unwrap();
    git(&arena.tree.join("nested"), &["init", "-q"]);
    write(&arena.tree, "nested/file", "in");
    write(&arena.tree, "large", vec![b'x'; 100_001]);
    write(&arena.tree, "disguise/.GIT/config", "x");
    write(&arena.tree, ".vcoding-tmp-7", "x");
    let made = arena.checkpoint(&mut history);
    let notes = made.notes.lines().join("\n");
    for word in ["fifo: a fifo", "nested/.git: the inside", "large: larger than", "disguise/.GIT: a name"] {
        assert!(notes.contains(word), "{word} in {notes}");
    }
    let files = arena.git(&["ls-tree", "-r", "--name-only", &made.checkpoint.id.to_string()]);
    assert!(files.contains("nested/file") && !files.contains("large") && !files.contains("GIT"));
    assert!(!files.contains("vcoding-tmp") && !files.contains("fifo"));
    arena.git(&["fsck", "--full", "--strict"]);
}

#[test]
fn the_guests_ignore_files_change_nothing() {
    let (arena, mut history) = Arena::with(|root| {
        plain(root);
        write(root, ".gitignore", "*.secret\n");
    });
    write(&arena.tree, ".gitignore", "*\n");
    write(&arena.tree, "new", "still protected");
    write(&arena.tree, "x.secret", "ignored by the host's copy");
    let made = arena.checkpoint(&mut history).checkpoint;
    let files = arena.git(&["ls-tree", "-r", "--name-only", &made.id.to_string()]);
    assert!(files.contains("new") && files.contains("a.txt") && !files.contains("x.secret"));
}

#[test]
fn what_is_made_is_work_and_only_caches_by_name_are_not() {
    let (arena, mut history) = Arena::with(|root| {
        plain(root);
        write(root, ".gitignore", "*.secret\n/target/\n");
    });
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n";
    for (name, content) in [
        ("dist/a.js", "a"),
        ("data.zip", "b"),
        ("x.tmp", "t"),
        ("app.log", "l"),
        ("c/build/o.so", "o"),
        ("c/target/goal.txt", "not cargo's"),
        ("c/venv/notes.txt", "not python's"),
        ("node_modules/m/i.js", "cache"),
        ("c/__pycache__/x.pyc", "cache"),
        ("b/target/CACHEDIR.TAG", tag),
        ("b/target/debug/x", "cache"),
        ("target/CACHEDIR.TAG", tag),
        ("b/venv/pyvenv.cfg", "home = /usr/bin"),
        ("x.secret", "ignored by the project"),
    ] {
        write(&arena.tree, name, content);
    }
    let made = arena.checkpoint(&mut history);
    let files = arena.git(&["diff", "--name-only", "refs/vcoding/base", "refs/heads/main"]);
    assert_eq!(
        files, "app.log\nc/build/o.so\nc/target/goal.txt\nc/venv/notes.txt\ndata.zip\ndist/a.js\nx.tmp\n",
        "{:?}",
        made.notes
    );
    let count = |class| made.notes.count(class);
    assert_eq!((count(Class::Cache), count(Class::ProjectIgnored)), (5, 1), "{:?}", made.notes);
    assert_eq!(made.notes.total(Class::is_work), 0);
    assert!(made.notes.lines().is_empty(), "{:?}", made.notes.lines());
}

#[test]
fn every_class_that_may_be_work_is_counted_as_that_whatever_names_say() {
    let (arena, mut history) = Arena::with(plain);
    // Names that read like a reason, and reasons whose lists are cut.
    write(&arena.tree, "larger than another repository moved out of the way by a rollback", "in");
    assert_eq!(arena.checkpoint(&mut history).notes.total(Class::is_work), 0);
    for number in 0..150 {
        write(&arena.tree, format!("d{number}/.GIT/x"), "a name that git takes for its own");
    }
    write(&arena.tree, "large", vec![b'x'; 100_001]);
    git(&arena.tree, &["init", "-q"]);
    let notes = arena.checkpoint(&mut history).notes;
    assert_eq!((notes.count(Class::BadName), notes.count(Class::TooLarge)), (150, 1));
    assert_eq!(notes.count(Class::OtherRepository), 1, "commits that the guest made for itself: {:?}", notes.lines());
    assert_eq!(notes.total(Class::is_work), 152);
    assert!(notes.lines().iter().any(|line| line.starts_with("left out: large: ")), "{:?}", notes.lines());
}

#[test]
fn a_directory_that_is_too_much_keeps_its_state_and_the_rest_is_recorded() {
    let (arena, history) = Arena::with(|root| {
        plain(root);
        write(root, ".gitignore", "*.o\n");
    });
    drop(history);
    let mut history = History::open(&arena.host, Settings { most: 500, ..SETTINGS }).unwrap();
    for number in 0..600 {
        write(&arena.tree, format!("flood/{number}"), "");
        // What is left out is not held, however much it is.
        write(&arena.tree, format!("objects/{number}.o"), "");
    }
    write(&arena.tree, "objects/work", "w");
    write(&arena.tree, "src/new", "n");
    let made = arena.checkpoint(&mut history);
    let files = arena.git(&["diff", "--name-only", "refs/vcoding/base", "refs/heads/main"]);
    assert_eq!(files, "objects/work\nsrc/new\n");
    assert_eq!(made.notes.count(Class::TooMany), 1, "{:?}", made.notes.lines());
    assert!(made.notes.lines().iter().any(|line| line.starts_with("flood: holds more names")));
    assert!(made.notes.total(Class::is_work) > 0, "what is in it is in no checkpoint");
    // It does not keep anybody from going back, and can be moved away.
    let left = arena.rollback(&mut history, "base").left;
    assert_eq!((left.names, left.files), (601, 1200), "{left:?}");
    let (back, clean) = arena.clean_rollback(&mut history, "base");
    assert_eq!(back.moved.names, 601);
    assert!(clean.join("flood/599").exists() && !arena.tree.join("flood").exists());
}

#[test]
fn a_directory_of_the_project_that_is_too_much_goes_back_when_it_is_moved_away() {
    let (arena, history) = Arena::with(plain);
    drop(history);
    let mut history = History::open(&arena.host, Settings { most: 500, ..SETTINGS }).unwrap();
    for number in 0..600 {
        write(&arena.tree, format!("src/{number}"), "");
    }
    write(&arena.tree, "src/main.rs", "changed");
    let made = arena.checkpoint(&mut history);
    assert!(!made.created && made.notes.count(Class::TooMany) == 1, "it keeps the state it had");
    let base = history.base().unwrap().unwrap();
    let refused = history.rollback(&arena.tree, None, &all_of(base), &meta("rollback"));
    assert!(matches!(refused, Err(Error::Inexact { .. })), "{refused:?}");
    let (_, clean) = arena.clean_rollback(&mut history, "base");
    assert_eq!(std::fs::read_to_string(arena.tree.join("src/main.rs")).unwrap(), "fn main() {}\r\n");
    assert_eq!(std::fs::read_to_string(clean.join("src/main.rs")).unwrap(), "changed");
    assert!(!arena.tree.join("src/599").exists());
}
