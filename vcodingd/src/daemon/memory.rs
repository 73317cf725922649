//! Memory that is given back to the kernel.
//!
//! A scan holds a work tree's names for a moment, in pieces that are large. glibc's allocator learns from the first large piece that
//! is freed to keep the next ones, and has a heap for each core's threads, each of which keeps what it once had. Three of its
//! documented settings (mallopt(3)) end that; they are read from the environment before a program begins, so it begins once more.

use std::os::unix::process::CommandExt;
use std::process::Command;

const SETTINGS: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "524288"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// Begins the program once more with the allocator's settings, in the same process; whoever has set one of them is left alone. Returns
/// where that cannot be done, which costs no more than memory. To be called before there is anything to lose.
pub fn settle() {
    if SETTINGS.iter().any(|(name, _)| std::env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // Only comes back when it failed: the program was replaced, or may not be executed any more.
    let _failed = again.args(arguments).envs(SETTINGS).exec();
}
