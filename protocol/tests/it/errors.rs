//! docs/errors.md is what `protocol::error::Kind` says: `DOCS=write cargo test -p protocol` writes
//! it anew.

use std::fmt::Write;

use protocol::Kind;

const HEAD: &str = "\
# Errors

Every failure is `{code, message, data: {kind, hint, details}}` on the socket and `{\"error\": …}` with `--json`. `message`
says what happened to what and may change; `kind` is one of the words below and does not; `hint`, where there is one, is the
next command to type. `code` is JSON-RPC's own (-32600 to -32603) for a malformed call and for `internal`, else 1000 plus the
exit status.

This page is made from the source (`protocol/src/error.rs`): `DOCS=write cargo test -p protocol`.

## Exit statuses of vcodingctl

| status | meaning |
|---|---|
| 0 | done; for `exec`, `shell` and `run -- CMD` the command's own status, 128 + N if it died of signal N |
| 1 | failed |
| 2 | wrong usage or configuration |
| 3 | not found |
| 4 | refused by a rule |
| 5 | conflict, or busy |
| 6 | the engine, the network or the model endpoint did not do its part |
| 7 | the daemon cannot be reached |
| 124 | the time limit passed |
| 125 | `exec` or `shell` failed before the command started |
| 126, 127 | as in shells: the command cannot be run, the command is not there |
| 130 | interrupted |

## Kinds

| kind | exit status | when |
|---|---|---|
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for kind in Kind::ALL {
        writeln!(page, "| `{kind}` | {} | {} |", kind.exit(), kind.about().trim()).unwrap();
    }
    page
}

#[test]
fn the_page_lists_every_kind_as_the_source_has_it() {
    crate::compare("errors.md", &page());
}
