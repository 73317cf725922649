//! The files that programs on this computer run or obey, as the policy that comes with the program lists them.

use std::sync::LazyLock;

use history::Obeyed;

pub(super) fn policy() -> &'static Obeyed {
    static POLICY: LazyLock<Obeyed> = LazyLock::new(|| {
        let rules = templates::obeyed();
        Obeyed::new(
            rules.iter().flat_map(|rule| rule.files.iter().map(|(pattern, _)| (pattern.as_str(), rule.why.as_str()))),
        )
    });
    &POLICY
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test per row, made of the data.
    #[test]
    fn each_row_matches_its_example_for_its_reason_at_any_depth_and_in_any_case() {
        let mut rows = 0;
        for rule in templates::obeyed() {
            for (pattern, example) in &rule.files {
                let alone = Obeyed::new([(pattern.as_str(), rule.why.as_str())].into_iter());
                for path in [example.clone(), format!("vendor/deep/{example}"), example.to_uppercase()] {
                    assert_eq!(alone.flag(path.as_bytes()), Some(rule.why.as_str()), "{pattern} {path}");
                    assert!(policy().flag(path.as_bytes()).is_some(), "{path}");
                }
                rows += 1;
            }
        }
        assert!(rows > 200, "{rows}");
        for path in
            ["src/main.rs", "README.md", "github/workflows", ".vscodex/a", "docs/index.md", "a.txt", "src/lib.py"]
        {
            assert_eq!(policy().flag(path.as_bytes()), None, "{path}");
        }
    }
}
