use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use fs::{Error, Kind, Root};
use tempfile::TempDir;

fn root() -> (TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

#[test]
fn a_path_must_be_made_of_plain_names() {
    let (_dir, root) = root();
    for bad in ["", "/etc/passwd", "..", "a/../b", "../x", "/", ".", "./a/.."] {
        assert!(matches!(root.open_file(Path::new(bad)), Err(Error::BadPath { .. })), "{bad:?}");
        assert!(matches!(root.remove_all(Path::new(bad)), Err(Error::BadPath { .. })), "{bad:?}");
        assert!(matches!(root.create_new(Path::new(bad), 0o644), Err(Error::BadPath { .. })), "{bad:?}");
    }
}

#[test]
fn a_link_is_refused_at_every_place_of_a_path() {
    let (dir, root) = root();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "s").unwrap();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("file")).unwrap();
    assert!(matches!(root.open_file(Path::new("out/secret")), Err(Error::Blocked { .. })));
    assert!(matches!(root.open_file(Path::new("file")), Err(Error::Blocked { .. })));
    assert!(matches!(root.dir(Path::new("out")), Err(Error::Blocked { .. } | Error::NotDirectory { .. })));
    assert!(matches!(
        root.create_new(Path::new("out/new"), 0o644),
        Err(Error::Blocked { .. } | Error::NotDirectory { .. })
    ));
    assert!(root.replace(Path::new("out/secret"), 0o644, |file| file.write_all(b"x")).is_err());
    assert!(root.remove_file(Path::new("out/secret")).is_err());
    assert!(root.make_dirs(Path::new("out/a/b"), 0o755).is_err());
    assert!(root.stat(Path::new("out/secret")).is_err());
    assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "s");
    // Control: the same paths by the ordinary calls do lead out.
    assert_eq!(std::fs::read_to_string(dir.path().join("out/secret")).unwrap(), "s");
}

#[test]
fn what_is_not_a_regular_file_is_not_read_and_does_not_hang() {
    let (dir, root) = root();
    assert!(Command::new("mkfifo").arg(dir.path().join("fifo")).status().unwrap().success());
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    for name in ["fifo", "sub", "socket"] {
        assert!(matches!(root.open_file(Path::new(name)), Err(Error::NotRegular { .. })), "{name}");
    }
    assert_eq!(root.stat(Path::new("fifo")).unwrap().kind, Kind::Special);
}

#[test]
fn replace_breaks_a_hard_link_and_sets_the_mode() {
    let (dir, root) = root();
    std::fs::write(dir.path().join("a"), "old").unwrap();
    std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
    root.replace(Path::new("a"), 0o755, |file| file.write_all(b"new")).unwrap();
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"new");
    assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"old");
    assert_eq!(std::fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn replace_replaces_a_link_itself() {
    let (dir, root) = root();
    let outside = tempfile::NamedTempFile::new().unwrap();
    symlink(outside.path(), dir.path().join("a")).unwrap();
    root.replace(Path::new("a"), 0o644, |file| file.write_all(b"new")).unwrap();
    assert!(std::fs::symlink_metadata(dir.path().join("a")).unwrap().is_file());
    assert_eq!(outside.as_file().metadata().unwrap().size(), 0);
}

#[test]
fn what_is_replaced_when_whole_has_no_name_before() {
    let (dir, root) = root();
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("x"), "kept").unwrap();
    symlink(elsewhere.path().join("x"), dir.path().join("a")).unwrap();
    for text in ["new", "newer"] {
        let mut names = 0;
        let write = |file: &mut std::fs::File| {
            names = std::fs::read_dir(dir.path())?.count();
            file.write_all(text.as_bytes())
        };
        root.replace_when_whole(Path::new("a"), 0o640, write).unwrap();
        // Where the filesystem has no files without a name, there is a second one.
        let nameless = OpenOptions::new().write(true).custom_flags(0o20_200_000).open(dir.path()).is_ok();
        assert_eq!(names, if nameless { 1 } else { 2 }, "while it is written, only what is replaced is there");
        let made = std::fs::symlink_metadata(dir.path().join("a")).unwrap();
        assert!(made.is_file() && made.mode() & 0o7777 == 0o640);
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), text);
    }
    assert_eq!(std::fs::read_to_string(elsewhere.path().join("x")).unwrap(), "kept");
    assert!(root.replace_when_whole(Path::new("b"), 0o644, |_| Err(std::io::Error::other("no"))).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_replace_that_fails_leaves_no_trace() {
    let (dir, root) = root();
    std::fs::write(dir.path().join("a"), "old").unwrap();
    let failed = root.replace(Path::new("a"), 0o644, |file| {
        file.write_all(b"half")?;
        Err(std::io::Error::other("no"))
    });
    assert!(matches!(failed, Err(Error::Io { .. })));
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn create_new_never_touches_what_exists() {
    let (dir, root) = root();
    std::fs::write(dir.path().join("a"), "old").unwrap();
    assert!(matches!(root.create_new(Path::new("a"), 0o644), Err(Error::Exists { .. })));
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"old");
}

#[test]
fn directories_links_and_listings_work_by_any_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let (_dir, root) = root();
    let name = OsStr::from_bytes(b"\xff\n\\odd");
    let inner = root.make_dirs(&Path::new("x/y").join(name), 0o755).unwrap();
    inner.symlink(OsStr::from_bytes(b"/no\xfewhere"), Path::new("link")).unwrap();
    assert_eq!(inner.read_link(Path::new("link")).unwrap().as_bytes(), b"/no\xfewhere");
    let entries: Vec<_> = root.dir(Path::new("x/y")).unwrap().entries().unwrap().map(Result::unwrap).collect();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].name.as_os_str(), entries[0].kind), (name, Kind::Directory));
    assert!(!root.remove_dir(Path::new("x")).unwrap());
    root.rename(&Path::new("x/y").join(name).join("link"), Path::new("moved")).unwrap();
    assert_eq!(root.stat(Path::new("moved")).unwrap().kind, Kind::Symlink);
}

#[test]
fn a_file_opened_for_reading_reads() {
    let (dir, root) = root();
    std::fs::write(dir.path().join("a"), "text").unwrap();
    let mut text = String::new();
    root.open_file(Path::new("a")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "text");
    assert!(matches!(root.open_file(Path::new("b")), Err(Error::NotFound { .. })));
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
fn a_leased_file_is_busy_and_all_leases_together_cost_one_patience() {
    use std::time::{Duration, Instant};
    let (dir, root) = root();
    let files: Vec<_> = (0..20)
        .map(|number| {
            let path = dir.path().join(format!("f{number}"));
            std::fs::write(&path, "x").unwrap();
            path
        })
        .collect();
    let lease = "import fcntl,os,sys,signal\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\n\
        fds=[os.open(p,os.O_RDWR) for p in sys.argv[1:]]\n\
        [fcntl.fcntl(fd,fcntl.F_SETLEASE,fcntl.F_WRLCK) for fd in fds]\nprint('ready',flush=True)\nsys.stdin.read()";
    let Ok(mut holder) = Command::new("python3")
        .arg("-c")
        .arg(lease)
        .args(&files)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
    else {
        eprintln!("SKIPPED: python3 is not there to take leases");
        return;
    };
    let mut ready = [0; 6];
    holder.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let start = Instant::now();
    for path in &files {
        let name = Path::new(path.file_name().unwrap());
        assert!(matches!(root.open_file(name), Err(Error::Busy { .. })));
    }
    assert!(start.elapsed() < fs::Patience::DEFAULT + Duration::from_secs(3), "{:?}", start.elapsed());
    drop(holder.stdin.take());
    holder.wait().unwrap();
}
