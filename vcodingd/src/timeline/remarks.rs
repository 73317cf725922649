//! What a history has to say of a work tree, in words, with the way out.

use history::{Class, Leftovers, Notes};

/// Paths that a line names.
const NAMED: usize = 3;

/// What a reader should know: what is in no checkpoint and may be work, what could not be read, and how to take it.
pub fn lines(notes: &Notes) -> Vec<String> {
    let mut lines = notes.lines();
    let mut ways: Vec<&str> = Class::ALL.into_iter().filter(|class| notes.count(*class) > 0).filter_map(way).collect();
    ways.dedup();
    lines.extend(ways.into_iter().map(str::to_owned));
    lines
}

/// What is only told who asks for it.
pub fn asides(notes: &Notes) -> Vec<String> {
    let caches = summed(notes, Class::Cache, "cache", "caches");
    caches.into_iter().chain(ignored(notes)).map(|what| format!("left out: {what}")).collect()
}

/// What the project's own rules keep out, in a line.
pub fn ignored(notes: &Notes) -> Option<String> {
    let why = "that the project's own rules ignore";
    summed(notes, Class::ProjectIgnored, &format!("name {why}"), &format!("names {why}"))
}

fn summed(notes: &Notes, class: Class, one: &str, many: &str) -> Option<String> {
    let count = notes.count(class);
    let named: Vec<Vec<u8>> = notes.listed(|c| c == class).iter().map(|note| note.path.clone()).collect();
    (count > 0).then(|| format!("{count} {}: {}", if count == 1 { one } else { many }, names(&named, count)))
}

/// What only the work tree has and may be somebody's work; `None` if there is nothing.
pub fn only_here(notes: &Notes) -> Option<String> {
    let total = notes.total(Class::is_work);
    let listed = notes.listed(Class::is_work);
    let named: Vec<String> = listed.iter().take(NAMED).map(|note| note.text()).collect();
    let more = total.saturating_sub(named.len() as u64);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    (total > 0).then(|| format!("{}{more}", named.join("; ")))
}

/// What a rollback to `to` left, or moved into `directory`.
pub fn of_rollback(to: &str, left: &Leftovers, moved: &Leftovers, directory: &std::path::Path) -> Vec<String> {
    let mut lines = Vec::new();
    if moved.names > 0 {
        lines.push(format!(
            "{} in no checkpoint and made after {to}, moved to {} for 30 days: {}",
            counted(moved),
            directory.display(),
            names(&moved.first, moved.names)
        ));
    }
    lines.extend(moved.unmoved.iter().map(|(path, why)| format!("{} was not moved: {why}", show(path))));
    if left.names > 0 {
        lines.push(format!(
            "{} in no checkpoint and made after {to}, left as it was: {}; vcodingctl rollback {to} --clean moves all of it \
             to the trash",
            counted(left),
            names(&left.first, left.names)
        ));
    }
    lines
}

fn counted(leftovers: &Leftovers) -> String {
    let word = |count: u64, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let most = if leftovers.uncounted { "more than " } else { "" };
    format!("{} ({most}{})", word(leftovers.names, "name"), word(leftovers.files, "file"))
}

fn names(named: &[Vec<u8>], total: u64) -> String {
    let shown: Vec<String> = named.iter().take(NAMED).map(|path| show(path)).collect();
    let more = total.saturating_sub(shown.len() as u64);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn show(path: &[u8]) -> String {
    history::show(path)
}

/// How what a class holds is taken home all the same.
fn way(class: Class) -> Option<&'static str> {
    match class {
        Class::TooLarge => Some(
            "vcodingctl collect PATH takes a large file home; a larger max_file under [history] in vcoding.toml lets it into \
             checkpoints",
        ),
        Class::OtherRepository
        | Class::BadName
        | Class::MovedAside
        | Class::TooDeep
        | Class::TooMany
        | Class::Unreadable => Some("vcodingctl exec -- tar -c PATH > FILE.tar takes home what no checkpoint holds"),
        Class::Cache | Class::ProjectIgnored | Class::Secret | Class::Special | Class::Temporary | Class::Remark => {
            None
        }
    }
}
