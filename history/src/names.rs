//! Names of files: which a tree may hold, which are ours.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How deep a scan goes and how long its paths are. The length leaves room for one more name below the kernel's limit of 4096.
pub(crate) const MAX_DEPTH: usize = 256;
pub(crate) const MAX_PATH: usize = 3500;
/// No file system of ours has longer ones.
const MAX_NAME: usize = 255;

/// Why `name` must not stand in a tree.
pub(crate) fn refused(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("an empty name"),
        b"." | b".." => Some("a name that leads elsewhere"),
        _ if name.contains(&b'/') => Some("a name with a slash"),
        _ if name.contains(&0) => Some("a name with a NUL"),
        _ if name.len() > MAX_NAME => Some("a name that is too long"),
        _ if is_git_directory(name) => Some("a name that git takes for its own directory"),
        _ => None,
    }
}

/// Whether some file system or git would take `name` for `.git`: any case, trailing dots and spaces, an NTFS stream or short name,
/// code points that HFS ignores.
#[must_use]
pub fn is_git_directory(name: &[u8]) -> bool {
    // Nearly every name is told by its first byte: it is neither one of theirs nor begins a code point that HFS ignores.
    if !matches!(name.first(), Some(b'.' | b'g' | b'G' | 0xe2 | 0xef)) {
        return false;
    }
    let visible = without_hfs_ignored(name);
    let stem = visible.split(|&byte| byte == b':').next().unwrap_or_default();
    let end = stem.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
    let stem = &stem[..end];
    stem.eq_ignore_ascii_case(b".git") || stem.eq_ignore_ascii_case(b"git~1")
}

/// `name` without the code points that HFS leaves out when it compares names.
pub(crate) fn without_hfs_ignored(name: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, after)) = rest.split_first() {
        match rest {
            // U+200C–U+200F, U+202A–U+202E, U+206A–U+206F, U+FEFF in UTF-8.
            [0xe2, 0x80, 0x8c..=0x8f | 0xaa..=0xae, tail @ ..] | [0xe2, 0x81, 0xaa..=0xaf, tail @ ..] => rest = tail,
            [0xef, 0xbb, 0xbf, tail @ ..] => rest = tail,
            _ => {
                kept.push(first);
                rest = after;
            }
        }
    }
    kept
}

/// How a name goes on when a rollback moved it out of the way.
const ASIDE: &str = ".vcoding-kept-";

/// The name under which a rollback keeps what stood in its way and is in no checkpoint.
pub(crate) fn aside(name: &OsStr, number: u32) -> std::ffi::OsString {
    let mut new = name.to_os_string();
    new.push(format!("{ASIDE}{number}"));
    new
}

pub(crate) fn is_aside(name: &[u8]) -> bool {
    let Some(number) = name.iter().rposition(|byte| !byte.is_ascii_digit()).map(|last| last + 1) else {
        return false;
    };
    number < name.len() && name[..number].ends_with(ASIDE.as_bytes())
}

/// `directory/name`, or `name` at the top.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if !directory.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// The directory a path lies in, and its last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

pub(crate) fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// A path for a message: what is not printable is escaped, since the name may be a stranger's.
#[must_use]
pub fn show(path: &[u8]) -> String {
    crate::text::neutral(&String::from_utf8_lossy(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_disguise_of_the_git_directory_is_seen() {
        let disguises: [&[u8]; 12] = [
            b".git",
            b".GIT",
            b".Git",
            b".git ",
            b".git.",
            b".git . .",
            b".git::$INDEX_ALLOCATION",
            b".git:x",
            b"git~1",
            b"GIT~1",
            ".g\u{200c}it".as_bytes(),
            "\u{feff}.git".as_bytes(),
        ];
        for name in disguises {
            assert!(is_git_directory(name) && refused(name).is_some(), "{}", show(name));
        }
        let honest: [&[u8]; 8] =
            [b".gitignore", b".github", b"git", b"git~2", b".git2", b"x.git", b".gi\xffrt", "g\u{200d}it".as_bytes()];
        for name in honest {
            assert!(!is_git_directory(name) && refused(name).is_none(), "{}", show(name));
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = [b'x'; 256];
        let bad: [&[u8]; 6] = [b"", b".", b"..", b"a/b", b"a\0b", &long];
        for name in bad {
            assert!(refused(name).is_some());
        }
        let odd: [&[u8]; 5] = [b"...", b"\xff", b"a\nb", b"a\\b", b" "];
        for name in odd {
            assert!(refused(name).is_none());
        }
    }

    #[test]
    fn what_is_set_aside_is_known_again() {
        assert!(is_aside(aside(OsStr::new("a"), 12).as_bytes()));
        assert!(!is_aside(b"a.vcoding-kept-") && !is_aside(b"a.vcoding-kept-1x") && !is_aside(b"12"));
    }
}
