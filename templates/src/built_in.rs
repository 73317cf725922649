//! The templates that are part of the program.

type Files = &'static [(&'static str, &'static str)];

macro_rules! files {
    ($directory:literal: $($file:literal),+) => {
        &[$(($file, include_str!(concat!("../projects/", $directory, "/", $file)))),+]
    };
}

/// What every one of them has besides its own.
pub(crate) const COMMON: Files = files!("common": "vcoding.toml", ".vcodingignore");

/// The files of the template of this name.
pub(crate) fn files(name: &str) -> Option<Files> {
    Some(match name {
        "python" => files!("python": "template.toml", "Dockerfile", ".gitignore"),
        "node" => files!("node": "template.toml", "Dockerfile", ".gitignore"),
        "go" => files!("go": "template.toml", "Dockerfile", ".gitignore"),
        "rust" => files!("rust": "template.toml", "Dockerfile", ".gitignore", ".dockerignore"),
        "java" => files!("java": "template.toml", "Dockerfile", ".gitignore", ".dockerignore"),
        "plain" => files!("plain": "template.toml", "Dockerfile", ".gitignore"),
        _ => return None,
    })
}
