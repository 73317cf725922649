//! The image's passwd and group, parsed as a stranger's, and the guest's own made from them.

use std::collections::HashSet;
use std::fmt::Write;

use crate::provider::{Error, ImageId, Look, PathKind, Peeked, Provider, User};

/// More accounts than any image has; the rest is dropped.
const MAX_ACCOUNTS: usize = 4096;
/// The one login name of a guest.
const WORK: &str = "work";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub comment: String,
    pub home: String,
    pub shell: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub gid: u32,
    pub members: Vec<String>,
}

/// The well-formed lines of both files; a missing file has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    pub accounts: Vec<Account>,
    pub groups: Vec<Group>,
}

/// Reads both files of an image without running any of it.
///
/// # Errors
/// [`Error::Refused`] for a file over 1 MiB or one that is no file.
pub async fn accounts(provider: &dyn Provider, image: &ImageId) -> Result<Accounts, Error> {
    let peeked = provider.peek(image, &[Look::Into("/etc/passwd"), Look::Into("/etc/group")]).await?;
    let text = |peeked: Option<&Peeked>, path: &str| match peeked {
        Some(Peeked { kind: PathKind::Missing, .. }) | None => Ok(String::new()),
        Some(Peeked { content: Some(content), .. }) => Ok(String::from_utf8_lossy(content).into_owned()),
        Some(_) => {
            Err(Error::Refused { what: format!("the image's {path}"), why: "it is not a regular file".to_owned() })
        }
    };
    Ok(Accounts::parse(&text(peeked.first(), "/etc/passwd")?, &text(peeked.get(1), "/etc/group")?))
}

impl Accounts {
    /// Lines that are not in the form, or have the name of one before, are dropped.
    pub fn parse(passwd: &str, group: &str) -> Self {
        let mut names = HashSet::new();
        let accounts = passwd.lines().filter_map(account).filter(|a| names.insert(a.name.clone()));
        let accounts = accounts.take(MAX_ACCOUNTS).collect();
        let mut names = HashSet::new();
        let groups = group.lines().filter_map(self::group).filter(|g| names.insert(g.name.clone()));
        Self { accounts, groups: groups.take(MAX_ACCOUNTS).collect() }
    }

    /// The guest's passwd: ours first, then the image's without what would be us under another
    /// name or another under ours.
    pub fn passwd(&self, user: User, shell: &str) -> String {
        let mut text = format!("{WORK}:x:{}:{}::/home/work:{shell}\n", user.uid, user.gid);
        for a in self.accounts.iter().filter(|a| a.name != WORK && a.uid != user.uid) {
            let _never_fails = writeln!(text, "{}:x:{}:{}:{}:{}:{}", a.name, a.uid, a.gid, a.comment, a.home, a.shell);
        }
        text
    }

    /// The guest's group file, likewise.
    pub fn group(&self, user: User) -> String {
        let mut text = format!("{WORK}:x:{}:\n", user.gid);
        for g in self.groups.iter().filter(|g| g.name != WORK && g.gid != user.gid) {
            let members: Vec<_> = g.members.iter().map(String::as_str).filter(|m| *m != WORK).collect();
            let _never_fails = writeln!(text, "{}:x:{}:{}", g.name, g.gid, members.join(","));
        }
        text
    }
}

fn account(line: &str) -> Option<Account> {
    let fields: Vec<_> = line.split(':').collect();
    let [name, _password, uid, gid, comment, home, shell] = fields[..] else { return None };
    let path = |text: &str| is_plain(text) && (text.is_empty() || text.starts_with('/'));
    (is_name(name) && is_plain(comment) && path(home) && path(shell)).then_some(())?;
    Some(Account {
        name: name.to_owned(),
        uid: number(uid)?,
        gid: number(gid)?,
        comment: comment.to_owned(),
        home: home.to_owned(),
        shell: shell.to_owned(),
    })
}

fn group(line: &str) -> Option<Group> {
    let fields: Vec<_> = line.split(':').collect();
    let [name, _password, gid, members] = fields[..] else { return None };
    let members: Vec<_> = members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
    let fits = is_name(name) && members.len() <= MAX_ACCOUNTS && members.iter().all(|m| is_name(m));
    fits.then_some(Group { name: name.to_owned(), gid: number(gid)?, members })
}

/// Digits alone: `+0` and ` 0` are numbers to some readers.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn is_name(text: &str) -> bool {
    let body = text.strip_suffix('$').unwrap_or(text);
    (1..=32).contains(&text.len())
        && !body.is_empty()
        && !body.starts_with(['-', '.'])
        && body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn is_plain(text: &str) -> bool {
    text.len() <= 256 && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: User = User { uid: 231_000, gid: 231_000 };
    const SHELL: &str = "/opt/vcoding/bin/vcoding-guest";

    #[test]
    fn nobody_else_is_us_and_we_are_nobody_else() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nwork:x:0:0::/root:/bin/sh\nother:x:231000:5::/:/bin/sh\n\
                      root:x:7:7::/:/bin/sh\nnode:x:1000:1000:A, B:/home/node:/bin/bash\n";
        let group = "root:x:0:\nwork:x:0:\nmine:x:231000:\nsudo:x:27:work,node\n";
        let accounts = Accounts::parse(passwd, group);
        assert_eq!(
            accounts.passwd(ME, SHELL),
            "work:x:231000:231000::/home/work:/opt/vcoding/bin/vcoding-guest\n\
             root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000:A, B:/home/node:/bin/bash\n"
        );
        assert_eq!(accounts.group(ME), "work:x:231000:\nroot:x:0:\nsudo:x:27:node\n");
    }

    #[test]
    fn lines_out_of_form_are_dropped() {
        for line in [
            "",
            "a",
            "a:x:0",
            "a:x:-1:0::/:/",
            "a:x:+0:0::/:/",
            "a:x: 0:0::/:/",
            "a:x:4294967296:0::/:/",
            "-a:x:1:1::/:/",
            "+::::::",
            "a b:x:1:1::/:/",
            "a:x:1:1::rel:/",
            "a:x:1:1:\u{1b}[2J:/:/",
            "a:x:1:1::/:/:more",
            ":x:1:1::/:/",
            "a:x::1::/:/",
        ] {
            assert_eq!(Accounts::parse(line, "").accounts, [], "{line:?}");
        }
        for line in ["", "g:x", "g:x:0:a:b", "g:x:0:a b", "+:::", "g:x:x:", "g:x::"] {
            assert_eq!(Accounts::parse("", line).groups, [], "{line:?}");
        }
    }

    #[test]
    fn a_huge_file_is_bounded() {
        let passwd: String = (0..50_000).map(|i| format!("u{i}:x:{i}:1::/:/bin/sh\n")).collect();
        assert_eq!(Accounts::parse(&passwd, "").accounts.len(), MAX_ACCOUNTS);
    }
}
