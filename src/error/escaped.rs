//! Writes strings of the user so that they stay on one line.

use std::fmt::{self, Write};

/// A string of the user, such as a label. Control characters, and the other characters that end a
/// line or change its direction, are written as escapes of Rust.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes_line = |c: char| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        self.0.chars().try_for_each(|c| match c {
            c if c.is_control() || changes_line(c) => write!(f, "{}", c.escape_default()),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_a_line_is_escaped() {
        assert_eq!(Escaped("\u{e9}t\u{e9} 'a' \"b\" \\").to_string(), "\u{e9}t\u{e9} 'a' \"b\" \\");
        assert_eq!(Escaped("a\nb\r\t\u{1b}[2J\u{202e}\u{2028}").to_string(), "a\\nb\\r\\t\\u{1b}[2J\\u{202e}\\u{2028}");
    }
}
