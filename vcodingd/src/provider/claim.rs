//! Whether what carries our labels is ours.
//!
//! Anyone may write a label. Ours is what has a well-formed id, our state directory, and exactly
//! the binds that the id gives (the helper's directory is the one part that varies), and the
//! nonce that our own record of it holds, where no guest and no other user can read it.

use std::path::{Path, PathBuf};

use protocol::WorkspaceId;

use super::guest::binds;

/// What an engine reports of something that says it is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub id: Option<String>,
    pub state_dir: Option<String>,
    pub nonce: Option<String>,
    pub binds: Vec<ClaimedBind>,
}

/// A mount that is not a tmpfs. A volume has its name for a source and is never ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedBind {
    pub target: String,
    pub source: PathBuf,
    pub writable: bool,
}

/// The nonce of our own record of a guest, if there is one.
pub fn recorded_nonce(state_dir: &Path, id: &WorkspaceId) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Record {
        nonce: String,
    }
    let path = state_dir.join("workspaces").join(id.as_str()).join("host/record.json");
    let record: Record = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    Some(record.nonce)
}

/// The id of a guest of this state directory, or why it is none; `nonce_of` tells what is
/// recorded of it ([`recorded_nonce`]).
///
/// # Errors
/// The first part of the claim that does not hold.
pub fn is_ours(
    state_dir: &Path,
    claim: &Claim,
    nonce_of: impl Fn(&WorkspaceId) -> Option<String>,
) -> Result<WorkspaceId, String> {
    let id = claim.id.as_deref().ok_or("it has no label vcoding.id")?;
    let id: WorkspaceId = id.parse().map_err(|_| "its id is not one of ours".to_owned())?;
    let theirs = claim.state_dir.as_deref().ok_or("it has no label vcoding.state-dir")?;
    if Path::new(theirs) != state_dir {
        return Err(format!("it belongs to the state directory {theirs:?}"));
    }
    match nonce_of(&id) {
        Some(nonce) if claim.nonce.as_ref() == Some(&nonce) => {}
        Some(_) => return Err("its nonce is not the one of our record".to_owned()),
        None => return Err("there is no record of it".to_owned()),
    }
    let store = state_dir.join("store/guest");
    let helper = claim
        .binds
        .iter()
        .find(|bind| bind.target == "/opt/vcoding/bin")
        .and_then(|bind| bind.source.strip_prefix(&store).ok())
        .and_then(Path::to_str)
        .filter(|hash| is_helper_hash(hash))
        .ok_or("its helper is not from our store")?;

    let mut expected: Vec<_> =
        binds(state_dir, &id, helper).into_iter().map(|bind| (bind.target, bind.source, bind.writable)).collect();
    let mut found: Vec<_> =
        claim.binds.iter().map(|bind| (bind.target.clone(), bind.source.clone(), bind.writable)).collect();
    expected.sort();
    found.sort();
    if expected == found {
        return Ok(id);
    }
    let odd =
        found.iter().find(|bind| !expected.contains(bind)).or_else(|| expected.iter().find(|b| !found.contains(b)));
    Err(match odd {
        Some((target, source, _)) => format!("its mount {} on {target} is not as ours", source.display()),
        None => "one of its mounts is there twice".to_owned(),
    })
}

/// One path component of letters and digits.
pub(super) fn is_helper_hash(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01jd0000000000000000000000";

    fn claim() -> Claim {
        let binds = binds(Path::new("/state"), &ID.parse().unwrap(), "abc123")
            .into_iter()
            .map(|b| ClaimedBind { target: b.target, source: b.source, writable: b.writable })
            .collect();
        Claim { id: Some(ID.into()), state_dir: Some("/state".into()), nonce: Some("n".into()), binds }
    }

    fn verdict(change: impl FnOnce(&mut Claim)) -> Result<WorkspaceId, String> {
        let mut claim = claim();
        change(&mut claim);
        is_ours(Path::new("/state"), &claim, |id| (id.as_str() == ID).then(|| "n".to_owned()))
    }

    #[test]
    fn a_true_claim_is_believed_in_any_order() {
        assert_eq!(verdict(|_| {}).unwrap().as_str(), ID);
        assert!(verdict(|c| c.binds.reverse()).is_ok());
    }

    #[test]
    fn every_part_of_a_claim_is_checked() {
        assert!(verdict(|c| c.id = None).is_err());
        assert!(verdict(|c| c.id = Some("../../../etc".into())).is_err());
        assert!(verdict(|c| c.id = Some(ID.to_uppercase())).is_err());
        assert!(verdict(|c| c.id = Some("01jd0000000000000000000001".into())).is_err());
        assert!(verdict(|c| c.state_dir = None).is_err());
        assert!(verdict(|c| c.state_dir = Some("/other".into())).is_err());
        assert!(verdict(|c| c.nonce = None).is_err());
        assert!(verdict(|c| c.nonce = Some("m".into())).is_err());
        assert!(is_ours(Path::new("/state"), &claim(), |_| None).is_err(), "there is no record");
        assert!(verdict(|c| c.binds.clear()).is_err());
        for i in 0..8 {
            assert!(
                verdict(|c| {
                    c.binds.remove(i);
                })
                .is_err(),
                "bind {i} missing"
            );
            assert!(verdict(|c| c.binds[i].source = "/etc".into()).is_err(), "bind {i} from elsewhere");
            assert!(verdict(|c| c.binds[i].writable ^= true).is_err(), "bind {i} with another right");
            assert!(
                verdict(|c| {
                    let twin = c.binds[i].clone();
                    c.binds.push(twin);
                })
                .is_err(),
                "bind {i} twice"
            );
        }
        let extra = ClaimedBind { target: "/mnt".into(), source: "/".into(), writable: false };
        assert!(verdict(|c| c.binds.push(extra)).is_err());
        assert!(verdict(|c| c.binds[6].source = "/state/store/guest/../../secrets".into()).is_err());
        assert!(verdict(|c| c.binds[6].source = "/state/store/guest".into()).is_err());
    }
}
