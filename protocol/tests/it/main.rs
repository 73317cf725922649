//! The pages of docs/ that are made from the types.

mod errors;
mod protocol;

/// A page is what the source says; `DOCS=write` makes it so.
fn compare(name: &str, page: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("DOCS").is_some_and(|v| v == "write") {
        std::fs::write(&path, page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "docs/{name} is not what the source says; DOCS=write cargo test -p protocol writes it");
}
