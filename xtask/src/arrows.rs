//! The house's arrows: which room of `vcodingd` may use which, read from the table in ARCHITECTURE.md and held against the source.
//!
//! The table's header is `| room | may use |`. A row names one or more rooms; what they may use is `all`, `nothing above`, or a
//! list, in which `x (a only)` gives x to room a alone and any other remark in brackets is prose. A room is a top-level module of
//! `vcodingd/src`; one that the table does not name is a fault of its own, so a new room starts in the map.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The first line of the table, its spaces left out.
const HEADER: &str = "|room|mayuse|";
/// They begin the process and declare the rooms; they are no rooms.
const ROOTS: [&str; 2] = ["main", "lib"];

/// What one room may use.
#[derive(Debug, PartialEq, Eq)]
enum Allowed {
    All,
    Rooms(BTreeSet<String>),
}

type Table = BTreeMap<String, Allowed>;

/// Checks `vcodingd/src` below `root`; every fault is one line, beginning with where it is.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let map = root.join("ARCHITECTURE.md");
    let text = fs::read_to_string(&map).with_context(|| format!("cannot read {}", map.display()))?;
    let table = table(&text).with_context(|| format!("{}", map.display()))?;
    let source = root.join("vcodingd/src");
    let mut files = Vec::new();
    collect(&source, &mut files)?;
    files.sort();
    let rooms: BTreeSet<String> = files.iter().filter_map(|file| room(file.strip_prefix(&source).ok()?)).collect();
    let mut faults: Vec<String> = rooms
        .iter()
        .filter(|room| !table.contains_key(*room) && !ROOTS.contains(&room.as_str()))
        .map(|room| format!("vcodingd/src/{room}: this room is not in ARCHITECTURE.md's table"))
        .collect();
    for file in &files {
        let inside = file.strip_prefix(&source).expect("collected below it");
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        faults.extend(faults_in(&table, &rooms, inside, &text));
    }
    Ok(faults)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The top-level module a file belongs to.
fn room(inside: &Path) -> Option<String> {
    let first = Path::new(inside.components().next()?.as_os_str());
    Some(first.file_stem()?.to_string_lossy().into_owned())
}

/// How deep a file's module lies below the crate's root: `store.rs` and `store/mod.rs` 1, `store/tree.rs` 2.
fn depth(inside: &Path) -> usize {
    let parts = inside.components().count();
    match inside.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod") => parts - 1,
        Some("main" | "lib") if parts == 1 => 0,
        _ => parts,
    }
}

fn faults_in(table: &Table, rooms: &BTreeSet<String>, inside: &Path, text: &str) -> Vec<String> {
    let Some(here) = room(inside).filter(|room| !ROOTS.contains(&room.as_str())) else {
        return Vec::new();
    };
    let Some(Allowed::Rooms(allowed)) = table.get(&here) else {
        return Vec::new();
    };
    source::uses(text, depth(inside))
        .into_iter()
        // What is no room is an item of the crate's root.
        .filter(|used| used.name == "*" || rooms.contains(&used.name) || table.contains_key(&used.name))
        .filter(|used| used.name != here && !allowed.contains(&used.name))
        .map(|used| {
            let may = if allowed.is_empty() {
                "nothing above it".to_owned()
            } else {
                allowed.iter().cloned().collect::<Vec<_>>().join(", ")
            };
            format!(
                "vcodingd/src/{}:{}: room `{here}` uses `crate::{}`; it may use {may}",
                inside.display(),
                used.line,
                used.name
            )
        })
        .collect()
}

fn table(text: &str) -> Result<Table> {
    let mut rows = text
        .lines()
        .skip_while(|line| line.replace(' ', "").to_ascii_lowercase() != HEADER)
        .skip(2)
        .take_while(|line| line.trim_start().starts_with('|'))
        .peekable();
    if rows.peek().is_none() {
        bail!("no table with the header `| room | may use |`");
    }
    let mut table = Table::new();
    for row in rows {
        let cells: Vec<&str> = row.trim().trim_matches('|').split('|').collect();
        let [left, right] = cells[..] else {
            bail!("a row of the table has not two cells: {row}");
        };
        let items = split(right);
        for (room, _) in split(left) {
            let allowed = if right.trim() == "all" {
                Allowed::All
            } else {
                let given = |remark: &Option<String>| {
                    remark
                        .as_deref()
                        .and_then(|remark| remark.strip_suffix(" only"))
                        .is_none_or(|only| only.split([',', ' ']).any(|name| name == room))
                };
                let names = items.iter().filter(|(name, remark)| name != "nothing above" && given(remark));
                Allowed::Rooms(names.map(|(name, _)| name.clone()).collect())
            };
            if table.insert(room.clone(), allowed).is_some() {
                bail!("the table names the room {room} twice");
            }
        }
    }
    for (room, allowed) in &table {
        if let Allowed::Rooms(names) = allowed
            && let Some(name) = names.iter().find(|name| !table.contains_key(*name))
        {
            bail!("the table lets {room} use {name}, which is no room of it");
        }
    }
    Ok(table)
}

/// The items of a cell and the remarks in brackets behind them; commas in brackets divide nothing.
fn split(cell: &str) -> Vec<(String, Option<String>)> {
    let mut items = vec![String::new()];
    let mut inside = 0_u32;
    for c in cell.chars() {
        match c {
            '(' => inside += 1,
            ')' => inside = inside.saturating_sub(1),
            _ => {}
        }
        if c == ',' && inside == 0 {
            items.push(String::new());
        } else if let Some(item) = items.last_mut() {
            item.push(c);
        }
    }
    items
        .iter()
        .map(|item| {
            let (name, remark) = item.split_once('(').map_or((item.as_str(), None), |(name, rest)| {
                (name, Some(rest.trim().trim_end_matches(')').to_owned()))
            });
            (name.trim().trim_matches(['`', '/']).to_owned(), remark)
        })
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "# Map\n\n| other | table |\n|---|---|\n| x | y |\n\n| room | may use |\n|---|---|\n| daemon | all |\n\
        | rpc | runs, store |\n| runs, image | provider (image only), store (and the crates `fs`, `history`) |\n\
        | provider | store |\n| store | nothing above |\n\ntext\n";

    fn faults(file: &str, text: &str) -> Vec<String> {
        let table = table(MAP).expect("a table");
        let rooms = table.keys().cloned().collect();
        faults_in(&table, &rooms, Path::new(file), text)
    }

    #[test]
    fn a_forbidden_arrow_is_named_with_file_and_line() {
        let found = faults("store/tree.rs", "use std::fs;\n\nuse crate::runs::Run;\n");
        assert_eq!(
            found,
            ["vcodingd/src/store/tree.rs:3: room `store` uses `crate::runs`; it may use nothing above it"]
        );
    }

    #[test]
    fn arrows_of_the_table_and_the_room_itself_are_no_fault() {
        assert_eq!(
            faults("rpc/run.rs", "use crate::{runs::Run, store, rpc::x};\nfn f() { crate::store::g() }"),
            [""; 0]
        );
        assert_eq!(faults("daemon.rs", "use crate::rpc;"), [""; 0]);
        assert_eq!(faults("main.rs", "use crate::rpc;"), [""; 0]);
    }

    #[test]
    fn a_remark_gives_a_room_to_one_of_the_rows_rooms_only() {
        assert_eq!(faults("image/build.rs", "use crate::provider::P;"), [""; 0]);
        assert_eq!(faults("runs/mod.rs", "use crate::provider::P;").len(), 1);
    }

    #[test]
    fn no_way_of_writing_a_path_hides_it() {
        for text in [
            "use crate::{store, rpc::{self, x}};",
            "use crate::{\n    store,\n    rpc,\n};",
            "fn f() -> crate :: rpc :: X { todo() }",
            "fn f() { crate::rpc::x(\"}\") }",
            "use super::rpc;",
            "use super::{rpc};",
            "mod inner { use super::super::rpc; }",
            "pub(in crate::rpc) fn f() {}",
            "use crate::r#rpc::x;",
            "use crate::*;",
            "fn f<'a>(x: &'a str, c: char) { if c == '\"' { crate::rpc::x() } }",
            "use crate::{{rpc}};",
            "use {crate::rpc};",
        ] {
            assert_eq!(faults("store.rs", text).len(), 1, "{text}");
        }
        assert_eq!(faults("store/tree.rs", "use super::super::rpc;").len(), 1);
    }

    #[test]
    fn what_is_not_a_path_is_not_an_arrow() {
        for text in [
            "// use crate::rpc;",
            "/* crate::rpc /* nested */ crate::rpc */",
            "fn f() { g(\"crate::rpc\"); }",
            "fn f() { g(r#\"\"crate::rpc\"#); }",
            "use crate::Error;",
            "use super::Error;",
            "mod inner { use super::rpc; }",
            "use history::rpc;",
        ] {
            assert_eq!(faults("store.rs", text), [""; 0], "{text}");
        }
        assert_eq!(faults("store/tree.rs", "use super::rpc;"), [""; 0]);
    }

    #[test]
    fn a_map_without_its_table_or_with_a_room_that_is_none_is_refused() {
        assert!(table("# nothing").is_err());
        assert!(table("| room | may use |\n|---|---|\n| a | b |\n").is_err());
        assert!(table("| room | may use |\n|---|---|\n| a | all |\n| a | all |\n").is_err());
    }

    #[test]
    fn a_room_that_the_map_does_not_name_is_a_fault() {
        let root = std::env::temp_dir().join(format!("arrows-{}", std::process::id()));
        fs::create_dir_all(root.join("vcodingd/src/attic")).expect("a directory");
        fs::write(root.join("ARCHITECTURE.md"), MAP).expect("a map");
        fs::write(root.join("vcodingd/src/main.rs"), "mod attic;").expect("a file");
        fs::write(root.join("vcodingd/src/attic/mod.rs"), "").expect("a file");
        let found = check(&root);
        fs::remove_dir_all(&root).expect("removed");
        assert_eq!(found.expect("read"), ["vcodingd/src/attic: this room is not in ARCHITECTURE.md's table"]);
    }
}
