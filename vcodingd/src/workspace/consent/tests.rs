use super::*;

fn agree(state: &Path, project: &Path) {
    let asked = show(state, project).unwrap();
    assert!(set(state, project, &asked.hash, true).unwrap().agreed);
}

struct World {
    _dir: tempfile::TempDir,
    state: PathBuf,
    project: PathBuf,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (state, project) = (dir.path().join("state"), dir.path().join("project"));
        std::fs::create_dir_all(&project).unwrap();
        std::fs::create_dir_all(&state).unwrap();
        Self { _dir: dir, state, project }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.project.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Files that ask for consent now.
    fn asks(&self) -> Vec<String> {
        let asked = show(&self.state, &self.project).unwrap();
        assert_eq!(settings(&self.state, &self.project).is_ok(), asked.agreed);
        asked.files
    }

    fn propose(&self, what: &[(&str, Option<&str>)]) {
        let proposed = what.iter().map(|(path, text)| ((*path).to_owned(), text.map(|text| hash_of(text.as_bytes()))));
        let recipe = Recipe::of(&self.project);
        propose(&self.state, &self.project, &recipe, &Proposed(proposed.collect())).unwrap();
    }

    /// What a diff of these two work trees watches.
    fn propose_change(&self, change: impl FnOnce(&Path)) {
        let dir = tempfile::tempdir().unwrap();
        let [from, tree, host] = ["from", "tree", "host"].map(|name| dir.path().join(name));
        std::fs::create_dir(&from).unwrap();
        std::fs::create_dir(&tree).unwrap();
        let mut history = History::create(&host, history::Settings { max_file: 50 << 20, most: 200_000 }).unwrap();
        let meta = history::Meta { cause: "up".into(), label: None, run: None, time_ms: 0 };
        history.import(&from, &tree, None, &meta, &|_| false, &mut |_| {}).unwrap();
        change(&tree);
        history.checkpoint(&tree, &meta, history::Activity::Still).unwrap();
        let (base, head) = (history.base().unwrap().unwrap(), history.head().unwrap().unwrap());
        let recipe = Recipe::of(&self.project);
        let proposed = Proposed::between(&history, base, head, &recipe).unwrap();
        propose(&self.state, &self.project, &recipe, &proposed).unwrap();
    }
}

const EVIL: &str = "FROM b\nRUN evil\n";

#[test]
fn nothing_asks_where_nothing_came_home() {
    let world = World::new();
    for text in ["FROM a\n", "FROM b\n"] {
        world.write("Dockerfile", text);
        world.write(".dockerignore", text);
        assert!(world.asks().is_empty());
    }
    world.propose(&[]);
    world.write("Dockerfile", "FROM c\n");
    assert!(world.asks().is_empty());
}

#[test]
fn from_an_apply_on_any_content_that_was_not_agreed_to_asks() {
    let world = World::new();
    world.write("Dockerfile", "FROM a\n");
    world.propose(&[("Dockerfile", Some(EVIL))]);
    assert!(world.asks().is_empty(), "the user's own is still there");
    for turned in [EVIL, "FROM b\r\nRUN evil\r\n", "FROM b # $Id: 0123 $\n"] {
        world.write("Dockerfile", turned);
        assert_eq!(world.asks(), ["Dockerfile"]);
    }
    std::fs::remove_file(world.project.join("Dockerfile")).unwrap();
    assert_eq!(world.asks(), ["Dockerfile"], "that it is gone is a change too");
    world.write("Dockerfile", "FROM a\n");
    assert!(world.asks().is_empty(), "back to what it was");
    world.write("Dockerfile", EVIL);
    agree(&world.state, &world.project);
    assert!(world.asks().is_empty());
    world.write("Dockerfile", "FROM mine\n");
    assert!(world.asks().is_empty(), "the watch ended with the consent");
    world.propose(&[("Dockerfile", Some(EVIL))]);
    world.write("Dockerfile", "FROM mine, again\n");
    assert!(world.asks().is_empty(), "what was agreed to may come home again");
}

#[test]
fn an_agreement_to_the_earlier_is_none_to_what_came_later() {
    let world = World::new();
    world.write("Dockerfile", "FROM a\n");
    world.propose(&[("Dockerfile", Some("FROM fine\n"))]);
    world.write("Dockerfile", "FROM fine\n");
    world.propose(&[("Dockerfile", Some(EVIL))]);
    agree(&world.state, &world.project);
    world.write("Dockerfile", "FROM b\r\nRUN evil\r\n");
    assert_eq!(world.asks(), ["Dockerfile"]);
}

#[test]
fn every_file_that_decides_asks() {
    for path in [
        "Dockerfile",
        "Dockerfile.dockerignore",
        "sub/.dockerignore",
        ".dockerignore",
        "vcoding.toml",
        ".vcodinginclude",
        ".vcodingignore",
    ] {
        let world = World::new();
        let toml = "[workspace]\ncontext = \"sub\"\n";
        world.write("vcoding.toml", toml);
        world.propose(&[(path, Some("# other\n"))]);
        assert!(world.asks().is_empty(), "{path}");
        let new = if path == "vcoding.toml" { format!("{toml}# turned\n") } else { "# turned\n".to_owned() };
        world.write(path, &new);
        assert_eq!(world.asks(), [path]);
    }
}

#[test]
fn a_file_that_came_by_another_name_asks_once_it_is_obeyed() {
    let world = World::new();
    world.propose(&[("ci/dev.dockerfile", Some(EVIL))]);
    world.write("ci/dev.dockerfile", "turned");
    assert!(world.asks().is_empty(), "nobody obeys it");
    world.write("vcoding.toml", "[workspace]\ndockerfile = \"ci/dev.dockerfile\"\n");
    assert_eq!(world.asks(), ["ci/dev.dockerfile"]);
    // The content itself is known wherever it turns up.
    let elsewhere = World { state: world.state.clone(), ..World::new() };
    elsewhere.write("Dockerfile", EVIL);
    assert_eq!(elsewhere.asks(), ["Dockerfile"]);
}

#[test]
fn a_marker_of_an_earlier_version_still_holds() {
    let world = World::new();
    world.write("Dockerfile", EVIL);
    mark(&marker(&world.state, &hash_of(EVIL.as_bytes()))).unwrap();
    assert_eq!(world.asks(), ["Dockerfile"]);
    world.propose(&[("Dockerfile", None)]);
    assert_eq!(world.asks(), ["Dockerfile"], "it is not taken for the user's own");
    agree(&world.state, &world.project);
    assert!(world.asks().is_empty());
}

#[test]
fn attributes_that_turn_a_deciding_file_have_it_watched() {
    let world = World::new();
    world.write("Dockerfile", "FROM a # $Id$\n");
    world.write("sub/Dockerfile", "FROM a\n");
    world.propose_change(|tree| std::fs::write(tree.join(".gitattributes"), "*.c ident\nREADME text\n").unwrap());
    world.write("Dockerfile", "FROM mine # $Id$\n");
    assert!(world.asks().is_empty(), "they turn another file");
    world.propose_change(|tree| std::fs::write(tree.join(".gitattributes"), "Dock* ident\n").unwrap());
    assert!(world.asks().is_empty());
    world.write("Dockerfile", "FROM mine # $Id: 0123 $\n");
    assert_eq!(world.asks(), ["Dockerfile"]);
}

#[test]
fn deciding_files_of_any_size_and_number_are_watched_unread() {
    let world = World::new();
    world.write("Dockerfile", "FROM a\n");
    world.propose_change(|tree| {
        for number in 0..60 {
            let dir = tree.join(format!("d{number}"));
            std::fs::create_dir(&dir).unwrap();
            std::fs::File::create(dir.join("Dockerfile")).unwrap().set_len(2 << 20).unwrap();
        }
        std::fs::File::create(tree.join("Dockerfile")).unwrap().set_len(2 << 20).unwrap();
    });
    assert!(!world.state.join("proposed").exists(), "nothing of them was read");
    world.write("Dockerfile", "FROM b\n");
    assert_eq!(world.asks(), ["Dockerfile"]);
    // Larger than anybody reads: it can be looked at, not agreed to.
    std::fs::File::create(world.project.join("Dockerfile")).unwrap().set_len(5 << 20).unwrap();
    let asked = show(&world.state, &world.project).unwrap();
    assert!(!asked.agreed);
    assert_eq!(set(&world.state, &world.project, &asked.hash, true).unwrap_err().kind(), Kind::ConsentNeeded);
}

#[test]
fn what_is_taken_back_from_the_gate_for_secrets_needs_consent_by_name() {
    let world = World::new();
    world.write(".env", "KEY=x\n");
    world.write("dist/big", "ignored, no secret");
    world.write(".gitignore", "dist/\n");
    world.write(".vcodinginclude", "dist/\n");
    assert!(show(&world.state, &world.project).unwrap().agreed, "it is ignored only");
    world.write(".vcodinginclude", "dist/\n.env\n");
    let refused = settings(&world.state, &world.project).unwrap_err();
    assert_eq!(refused.kind(), Kind::ConsentNeeded);
    assert!(refused.message.contains(".vcodinginclude lets in") && refused.message.contains(".env"), "{refused}");
    agree(&world.state, &world.project);
    let lets = |path: &str| let_in(&world.state, &world.project).unwrap()(path.as_bytes());
    assert!(lets(".env") && !lets("other.env"));
    world.write("sub/.env", "KEY=y\n");
    assert!(settings(&world.state, &world.project).is_err(), "another file");
    let asked = show(&world.state, &world.project).unwrap();
    set(&world.state, &world.project, &asked.hash, false).unwrap();
    assert!(!lets(".env"), "taken back");
}

#[test]
fn a_wish_holds_only_with_consent_for_this_project_and_this_value() {
    let dir = tempfile::tempdir().unwrap();
    let (state, here, there) = (dir.path().join("state"), dir.path().join("here"), dir.path().join("there"));
    let wish = |project: &Path, memory: &str| {
        std::fs::create_dir_all(project).unwrap();
        std::fs::write(project.join("vcoding.toml"), format!("[limits]\nmemory = {memory:?}\n")).unwrap();
    };
    wish(&here, "8g");
    wish(&there, "8g");
    let refused = settings(&state, &here).unwrap_err();
    assert_eq!(refused.kind(), Kind::ConsentNeeded);
    assert!(refused.message.contains("[limits] memory = 8g"), "{}", refused.message);
    agree(&state, &here);
    assert_eq!(settings(&state, &here).unwrap().limits.memory, 8 << 30);
    assert!(settings(&state, &there).is_err(), "another project");
    wish(&here, "9g");
    assert!(settings(&state, &here).is_err(), "another value");
    wish(&here, "2g");
    assert!(settings(&state, &here).is_ok(), "nothing beyond the default");
    wish(&here, "8g");
    let asked = show(&state, &here).unwrap();
    assert!(asked.agreed, "it was agreed to before");
    set(&state, &here, &asked.hash, false).unwrap();
    assert!(settings(&state, &here).is_err(), "taken back");
}

#[test]
fn what_changed_since_it_was_shown_is_not_agreed_to() {
    let dir = tempfile::tempdir().unwrap();
    let (state, project) = (dir.path().join("state"), dir.path());
    std::fs::write(project.join("vcoding.toml"), "[limits]\ncpus = 4.0\n").unwrap();
    let shown = show(&state, project).unwrap();
    std::fs::write(project.join("vcoding.toml"), "[limits]\ncpus = 64.0\n").unwrap();
    assert_eq!(set(&state, project, &shown.hash, true).unwrap_err().kind(), Kind::ConsentNeeded);
    assert!(settings(&state, project).is_err());
}
