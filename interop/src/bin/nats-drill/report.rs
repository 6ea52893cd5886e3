//! The report that is printed in the end.

use std::fmt::Display;

/// The rules of a drill that held, and those that did not.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) violations: Vec<String>,
}

impl Report {
    /// Prints a rule, and whether it held.
    pub(crate) fn must(&mut self, holds: bool, words: &dyn Display) {
        println!("{} {words}", if holds { "ok       " } else { "VIOLATION" });
        if !holds {
            self.violations.push(words.to_string());
        }
    }

    /// Prints a rule that a number is at most another.
    pub(crate) fn at_most(&mut self, number: usize, limit: usize, what: &dyn Display) {
        self.must(number <= limit, &format_args!("{number} {what}, at most {limit}"));
    }

    /// Prints a rule that a number is not zero.
    pub(crate) fn some(&mut self, number: usize, what: &dyn Display) {
        self.must(number > 0, &format_args!("{number} {what}, at least 1"));
    }
}
