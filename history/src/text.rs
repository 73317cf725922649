//! Text from a stranger, made harmless for a terminal or a commit.

/// Replaces control characters and those that reorder or hide text; newlines stay out too.
pub(crate) fn neutral(text: &str) -> String {
    text.chars().map(|character| if hidden(character) { '\u{fffd}' } else { character }).collect()
}

/// The same for text of several lines.
pub(crate) fn neutral_lines(text: &str) -> String {
    text.replace("\r\n", "\n").split('\n').map(neutral).collect::<Vec<_>>().join("\n")
}

fn hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_and_direction_marks_are_replaced_and_lines_stay() {
        assert_eq!(neutral_lines("a\x1b[31m\nb\u{202e}c\td"), "a\u{fffd}[31m\nb\u{fffd}c\u{fffd}d");
        assert_eq!(neutral("a\nb"), "a\u{fffd}b");
        assert_eq!(neutral("übung 日本"), "übung 日本");
    }
}
