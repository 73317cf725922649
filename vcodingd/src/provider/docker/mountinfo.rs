//! /proc/PID/mountinfo (proc(5)), parsed.

use std::path::Path;

/// More lines than any guest of ours has, and many hosts.
const MAX_MOUNTS: usize = 16_384;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// `major:minor`.
    pub device: String,
    /// Which directory of the device it shows.
    pub root: String,
    pub target: String,
    /// Of this mount.
    pub options: Vec<String>,
    pub fs_type: String,
    /// Of the file system.
    pub super_options: Vec<String>,
}

impl Mount {
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }

    /// A tmpfs' size in bytes. The kernel writes `size=16384k`.
    pub fn size(&self) -> Option<u64> {
        let text = self.super_options.iter().find_map(|o| o.strip_prefix("size="))?;
        text.strip_suffix('k')?.parse::<u64>().ok()?.checked_mul(1024)
    }
}

pub(super) fn parse(text: &str) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for line in text.lines() {
        if mounts.len() == MAX_MOUNTS {
            return Err(format!("it has more than {MAX_MOUNTS} lines"));
        }
        mounts.push(parse_line(line).ok_or_else(|| format!("a line that is no mount: {line:?}"))?);
    }
    if mounts.is_empty() { Err("it is empty".to_owned()) } else { Ok(mounts) }
}

fn parse_line(line: &str) -> Option<Mount> {
    // id parent device root target options [optional…] - type source super-options
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ');
    let device = head.nth(2)?.to_owned();
    let (root, target) = (unescape(head.next()?)?, unescape(head.next()?)?);
    let options = list(head.next()?);
    let mut tail = tail.split(' ');
    let fs_type = tail.next()?.to_owned();
    let super_options = list(tail.nth(1).unwrap_or_default());
    // A root need not be a path: a bound namespace shows as `net:[4026531833]`.
    target.starts_with('/').then_some(Mount { device, root, target, options, fs_type, super_options })
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

/// Space, tab, newline and backslash are written as `\` and three octal digits.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'\\' && after.len() >= 3 && after[..3].iter().all(|b| (b'0'..=b'7').contains(b)) {
            let code = after[..3].iter().fold(0u32, |n, b| n * 8 + u32::from(b - b'0'));
            bytes.push(u8::try_from(code).ok()?);
            rest = &after[3..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// The mount that `path` lies on: the deepest above it, and of several there the last.
pub(super) fn containing<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.target))
        .max_by_key(|mount| Path::new(&mount.target).components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_escapes_and_optional_fields_is_read() {
        assert!(parse("48 27 0:4 net:[4026531833] /run/docker/netns/default rw - nsfs nsfs rw").is_ok());
        let line = r"95 74 254:0 /a\040b /x\134y ro,relatime shared:1 master:2 - ext4 /dev/vda rw,size=64k";
        let mount = &parse(line).unwrap()[0];
        assert_eq!((mount.root.as_str(), mount.target.as_str()), ("/a b", r"/x\y"));
        assert!(mount.has("ro") && !mount.has("rw"));
        assert_eq!(mount.size(), Some(65_536));
        for bad in ["", "1 2 3", "95 74 254:0 / b ro - ext4 x rw", "95 74 254:0 / / ro ext4 x rw"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_deepest_and_last_mount_holds_a_path() {
        let text = "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /home rw - ext4 b rw\n3 1 8:3 /sub /home rw - ext4 c rw";
        let mounts = parse(text).unwrap();
        assert_eq!(containing(&mounts, Path::new("/home/x")).unwrap().device, "8:3");
        assert_eq!(containing(&mounts, Path::new("/homes")).unwrap().device, "8:1");
    }
}
