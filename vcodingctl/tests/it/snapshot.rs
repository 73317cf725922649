//! Files that hold what was seen when somebody last looked: `SNAPSHOTS=write cargo test -p
//! vcodingctl` writes them anew, and `git diff` shows what changed.

use std::path::Path;

use crate::fake::Fake;
use crate::vcodingctl;

/// Runs a command with pipes, on terminals of 80 and of 200 columns, and with `--json`; compares all of it.
pub fn check(name: &str, fake: &Fake, args: &[&str]) {
    let piped = vcodingctl::piped(fake, args);
    let json = vcodingctl::piped(fake, &[&["--json"], args].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let [narrow, wide] = [80, 200].map(|columns| vcodingctl::on_terminal(fake, args, columns));
    let seen = [
        ("command", format!("vcodingctl {}\n", args.join(" "))),
        ("status", format!("{}\n", piped.status.code().unwrap())),
        ("stdout", text(piped.stdout)),
        ("stderr", text(piped.stderr)),
        ("terminal, 80 columns", narrow.clone()),
        ("terminal, 200 columns", if wide == narrow { "the same\n".into() } else { wide }),
        ("--json, stdout", text(json.stdout)),
        ("--json, stderr", text(json.stderr)),
    ];
    assert_eq!(piped.status.code(), json.status.code(), "--json changes the exit status of {args:?}");
    let seen: String = seen.into_iter().map(|(title, text)| format!("──── {title}\n{text}")).collect();
    compare(name, &redacted(&seen, fake));
}

/// Paths of the test's own and moments, which differ each time.
fn redacted(text: &str, fake: &Fake) -> String {
    let text = text.replace(&*fake.directory.path().to_string_lossy(), "[DIR]");
    let mut out = String::new();
    let mut rest = &*text;
    while let Some(at) = rest.find("20") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let moment = from.get(..24).filter(|m| m.ends_with('Z') && m.as_bytes()[10] == b'T' && m.as_bytes()[4] == b'-');
        let length = moment.map_or(2, str::len);
        out.push_str(moment.map_or("20", |_| "[TIME]"));
        rest = &from[length..];
    }
    out + rest
}

pub fn compare(name: &str, seen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("SNAPSHOTS").is_some_and(|v| v == "write") {
        std::fs::write(&path, seen).unwrap();
        return;
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == seen,
        "{} differs from what was seen; SNAPSHOTS=write accepts it.\n{}",
        path.display(),
        first_difference(&stored, seen)
    );
}

fn first_difference(stored: &str, seen: &str) -> String {
    let mut lines = stored
        .lines()
        .map(Some)
        .chain(std::iter::repeat(None))
        .zip(seen.lines().map(Some).chain(std::iter::repeat(None)));
    let number = lines.by_ref().take_while(|(a, b)| a == b && a.is_some()).count();
    format!(
        "line {}:\n  stored: {:?}\n  seen:   {:?}\n\nseen in full:\n{seen}",
        number + 1,
        stored.lines().nth(number),
        seen.lines().nth(number)
    )
}
