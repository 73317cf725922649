//! What git would not check out, on some system: it stays out of the branch, or nobody could merge it.
//!
//! Names by which a file system takes a file for `.git` (git checks for NTFS and HFS+ everywhere), a `.gitmodules` that is no file,
//! and links that lead into `.git`: whoever writes through one writes what git obeys.

use crate::names::is_git_directory;
use crate::tree::Mode;

/// Why an entry must not stand in a published tree.
pub(super) fn name(name: &[u8], mode: Mode) -> Option<&'static str> {
    if parts(name).any(is_git_directory) {
        return Some("some systems take its name for git's own directory");
    }
    let is_file = matches!(mode, Mode::File | Mode::Executable);
    if !is_file && parts(name).any(|part| is_disguise_of(part, MODULES)) {
        return Some("git takes it for .gitmodules, and it is no file");
    }
    // Git takes a link of that name for a file that is not obeyed.
    let is_place = matches!(mode, Mode::Directory | Mode::Commit);
    (is_place && parts(name).any(|part| is_disguise_of(part, ATTRIBUTES)))
        .then_some("git takes it for .gitattributes, and it is no file")
}

/// Why a link with this target must not.
pub(super) fn link(target: &[u8]) -> Option<&'static str> {
    let mut components = target.split(|&byte| byte == b'/').flat_map(parts);
    components.any(is_git_directory).then_some("it is a link that leads into git's own directory")
}

/// A name as systems may read it: parted by backslashes, as on Windows; and up to what is no UTF-8, where git stops reading when it
/// compares as HFS+ does.
fn parts(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let valid = std::str::from_utf8(name).map_or_else(|error| error.valid_up_to(), str::len);
    // U+FFFE and U+FFFF are no characters to git.
    let odd = name.windows(3).position(|bytes| matches!(bytes, [0xef, 0xbf, 0xbe | 0xbf])).unwrap_or(name.len());
    name.split(|&byte| byte == b'\\').chain([&name[..valid.min(odd)]])
}

/// A file's name, the beginning of its short one, and of that where the first four are taken.
type Disguised = (&'static [u8], &'static [u8], &'static [u8]);
const MODULES: Disguised = (b".gitmodules", b"gitmod", b"gi7eba");
const ATTRIBUTES: Disguised = (b".gitattributes", b"gitatt", b"gi7d29");

/// Whether NTFS or HFS+ take a name for this one.
fn is_disguise_of(name: &[u8], (long, short, hashed): Disguised) -> bool {
    let visible = crate::names::without_hfs_ignored(name);
    let stem = visible.split(|&byte| byte == b':').next().unwrap_or_default();
    let end = stem.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
    let stem = stem[..end].to_ascii_lowercase();
    if stem == long {
        return true;
    }
    // A short name is of eight characters, and ends in a number.
    let Some(tilde) = stem.iter().position(|&byte| byte == b'~') else { return false };
    let (begin, number) = (&stem[..tilde], &stem[tilde + 1..]);
    let is_number = number.first().is_some_and(|&byte| byte != b'0') && number.iter().all(u8::is_ascii_digit);
    stem.len() == 8 && is_number && (begin == short || hashed.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::names;
    use crate::tree::{Entry, Strict};

    #[test]
    fn what_git_refuses_is_left_out_and_what_only_looks_so_is_not() {
        for bad in [
            &b".git\\config"[..],
            b"a\\.GIT",
            b"x\\git~1\\y",
            b".git\xffx",
            b".git\xef\xbf\xbe",
            b".git::$INDEX_ALLOCATION\\x",
        ] {
            assert!(name(bad, Mode::File).is_some(), "{}", names::show(bad));
        }
        for bad in [&b".gitmodules"[..], b".GITMODULES ", b"gitmod~1", b"gi7eba~1", b"gi7~1234", b".gitmodules:x"] {
            assert!(name(bad, Mode::Symlink).is_some() && name(bad, Mode::File).is_none(), "{}", names::show(bad));
        }
        for good in [&b"a\\b"[..], b".gitignore", b"git~2", b".github", b"gitmodules", b"x~1", b"~1", b"~"] {
            assert!(name(good, Mode::Symlink).is_none(), "{}", names::show(good));
        }
        for bad in [&b".git"[..], b".git/config", b"../.GIT/hooks/x", b"a/../.git", b"/p/.git", b"x\\.git\\y"] {
            assert!(link(bad).is_some(), "{}", names::show(bad));
        }
        for good in [&b"a/b"[..], b"../.github", b".gitignore", b"/etc"] {
            assert!(link(good).is_none(), "{}", names::show(good));
        }
    }

    fn git(directory: &Path, args: &[&str], input: &[u8]) -> Result<String, String> {
        let mut command = Command::new("git");
        command.current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        let child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn names_of_all_kinds() -> impl Strategy<Value = Vec<u8>> {
        let pieces: Vec<&'static [u8]> = vec![
            b".git",
            b".GiT",
            b"git~1",
            b"GIT~1",
            b".gitmodules",
            b"modules",
            b"gitmod~",
            b"gi7eba~",
            b"gi7~",
            b"~",
            b"1",
            b"12345",
            b"\\",
            b":",
            b"::$INDEX_ALLOCATION",
            b" ",
            b".",
            b"x",
            b"a",
            b"\xff",
            b"\xe2\x80\x8c",
            b"\xef\xbf\xbe",
            b"\xef\xbb\xbf",
            b".gitattributes",
            b"gitatt~",
            b"gi7d29~",
            b"config",
        ];
        prop::collection::vec(prop::sample::select(pieces), 1..5).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// git itself takes whatever is published.
        #[test]
        fn git_takes_what_is_left(
            names in prop::collection::vec((names_of_all_kinds(), prop::sample::select(vec![Mode::File, Mode::Symlink, Mode::Directory])), 1..150)
        ) {
            let dir = tempfile::tempdir().unwrap();
            git(dir.path(), &["init", "-q"], b"").unwrap();
            let blob = git(dir.path(), &["hash-object", "-w", "--stdin"], b"x").unwrap();
            let inner = git(dir.path(), &["mktree"], format!("100644 blob {blob}\tx\n").as_bytes()).unwrap();
            let names: BTreeMap<Vec<u8>, Mode> = names.into_iter()
                .filter(|(one, mode)| crate::names::refused(one).is_none() && name(one, *mode).is_none())
                .collect();
            let mut entries: Vec<Entry> = names.into_iter().map(|(name, mode)| {
                let id = if mode.is_directory() { &inner } else { &blob };
                Entry { name, mode, id: id.parse().unwrap() }
            }).collect();
            let tree = crate::tree::write(&mut entries, Strict::Project).unwrap();
            let id = git(dir.path(), &["hash-object", "-t", "tree", "-w", "--literally", "--stdin"], &tree).unwrap();
            let strict = git(dir.path(), &["fsck", "--strict", "--no-dangling"], b"");
            prop_assert!(strict.is_ok(), "{strict:?}");
            let read = git(dir.path(), &["-c", "core.protectNTFS=true", "-c", "core.protectHFS=true", "read-tree", &id], b"");
            prop_assert!(read.is_ok(), "{read:?}");
        }
    }
}
