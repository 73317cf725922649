use history::Standing;

use crate::arena::{Arena, link, write};

#[test]
fn what_changed_is_read_one_at_a_time_and_not_beyond_the_bound() {
    let (arena, mut history) = Arena::with(|root| {
        write(root, "gone", "x");
        write(root, "same", "x");
    });
    std::fs::remove_file(arena.tree.join("gone")).unwrap();
    write(&arena.tree, "small", "1234");
    write(&arena.tree, "large", "12345");
    write(&arena.tree, "d/other", "1");
    link(&arena.tree, "link", "small");
    let base = history.base().unwrap().unwrap();
    let to = arena.checkpoint(&mut history).checkpoint.id;
    let mut seen = Vec::new();
    let mut look = |path: &[u8], standing| seen.push((String::from_utf8_lossy(path).into_owned(), standing));
    history.each_changed(base, to, 4, &|path| path != b"d/other", &mut look).unwrap();
    let expected = [
        ("gone", Standing::Gone),
        ("large", Standing::TooLarge),
        ("link", Standing::Other),
        ("small", Standing::File(b"1234".to_vec())),
    ];
    assert_eq!(seen, expected.map(|(path, standing)| (path.to_owned(), standing)));
}
