//! Names that mean a cache only where a file inside says so: `target` is cargo's where cargo has marked it, and anything elsewhere.

use std::io::Read;
use std::path::Path;

use fs::Root;

use super::Verdict;
use crate::names;

struct Marker {
    directory: &'static [u8],
    file: &'static str,
    /// How the file begins.
    head: &'static [u8],
}

const MARKERS: [Marker; 2] = [
    // The signature of https://bford.info/cachedir/, which cargo writes when it makes the directory.
    Marker { directory: b"target", file: "CACHEDIR.TAG", head: b"Signature: 8a477f597d28d172789f06886806bc55" },
    Marker { directory: b"venv", file: "pyvenv.cfg", head: b"" },
];

/// The verdict on the directory `name` in `parent`, once its marker has been looked for where its name needs one.
pub(crate) fn settle(verdict: Verdict, parent: &Root, name: &[u8]) -> Verdict {
    match verdict {
        Verdict::Cache if !is_marked(parent, name) => Verdict::In,
        Verdict::Ignored { cache: true } => Verdict::Ignored { cache: is_marked(parent, name) },
        verdict => verdict,
    }
}

fn is_marked(parent: &Root, name: &[u8]) -> bool {
    let Some(marker) = MARKERS.iter().find(|marker| marker.directory == name) else { return true };
    let mut head = vec![0; marker.head.len()];
    let opened = parent.open_file(&names::as_path(name).join(Path::new(marker.file)));
    opened.is_ok_and(|mut file| file.read_exact(&mut head).is_ok()) && head == marker.head
}
