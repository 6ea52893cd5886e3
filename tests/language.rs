//! The language of comments, docs and texts: plain English, held against a list of words that it does without.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Words and phrases that the crate's prose does not use, each with what to write instead.
const DENIED: &[(&str, &str)] = &[
    ("who", "name the actor: a worker, a task, a submitter, a waiter, a publisher, a caller"),
    ("whom", "name the actor"),
    ("whoever", "name the actor"),
    ("whatever", "say which"),
    ("nobody", "no worker, no task, no caller"),
    ("somebody", "a worker, a task, a caller"),
    ("anybody", "any worker, any task, any caller"),
    ("everybody", "every worker, every task, every caller"),
    ("shall", "must, will, or the present tense"),
    ("fate", "outcome"),
    ("fates", "outcomes"),
    ("books", "counts"),
    ("trouble", "failure, or what it is"),
    ("troubles", "failures, or what they are"),
    ("dear", "expensive"),
    ("in vain", "without effect, without success"),
    ("so many", "a number, or as many as"),
    ("so long", "a time, or as long as"),
    ("lets go", "releases, drops"),
    ("let go", "released, dropped"),
    ("comes to", "reaches, is"),
    ("word of", "notification"),
    ("for ever", "forever"),
    ("unless told otherwise", "Default: x"),
    ("out of date when it arrives", "may be stale when it returns"),
    ("foreign code", "user code"),
    ("had better", "should"),
    ("should it", "if it"),
];

/// What is read: sources, and pages for readers.
const READ: &[&str] = &[
    "src",
    "tests",
    "benches",
    "examples",
    "interop",
    "verify",
    "xtask",
    "fuzz",
    "docs",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
];

/// Files that quote the list.
const QUOTES: &[&str] = &["tests/language.rs"];

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        if path.ends_with("target") {
            return;
        }
        for entry in fs::read_dir(path).unwrap() {
            files(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "md") {
        found.push(path.to_owned());
    }
}

/// The part of a line that is prose: all of a page; of a source, its comments and the texts in quotation marks.
fn prose(line: &str, is_source: bool) -> String {
    if !is_source {
        return line.to_owned();
    }
    if let Some((_, comment)) = line.split_once("//") {
        return comment.to_owned();
    }
    line.split('"').skip(1).step_by(2).filter(|text| text.contains(' ')).collect::<Vec<_>>().join(" . ")
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower
        .split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '_')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn prose_does_without_the_words_of_the_list() {
    let mut found = Vec::new();
    READ.iter().for_each(|path| files(Path::new(path), &mut found));
    assert!(found.len() > 100, "the sources were not found");
    let mut offences = Vec::new();
    for path in found {
        if QUOTES.iter().any(|quote| path == Path::new(quote)) {
            continue;
        }
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let words = words(&prose(line, is_source));
            for (denied, instead) in DENIED {
                let phrase: Vec<_> = denied.split(' ').collect();
                if words.windows(phrase.len()).any(|window| window.iter().zip(&phrase).all(|(word, part)| word == part))
                {
                    offences.push(format!("{}:{}: \"{denied}\" ({instead})", path.display(), number + 1));
                }
            }
        }
    }
    assert!(offences.is_empty(), "{} places:\n{}", offences.len(), offences.join("\n"));
}

/// The most columns of a line of code in an example: what a page of the rendered documentation shows.
const CODE_COLUMNS: usize = 95;

/// The lines of code in the examples of a page, or in the doc comments of a source, each with its number.
fn example_lines(text: &str, is_source: bool) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // Inside a block, whether its lines are code.
    let mut block = None;
    for (index, line) in text.lines().enumerate() {
        let comment = line.trim_start().strip_prefix("///").or_else(|| line.trim_start().strip_prefix("//!"));
        let line = match (is_source, comment) {
            (false, _) => line,
            (true, Some(comment)) => comment.strip_prefix(' ').unwrap_or(comment),
            (true, None) => {
                // A feature can decide whether an example is compiled: `#![cfg_attr(feature = "retry", doc = "```")]`.
                block = line.contains("doc = \"```").then_some(true);
                continue;
            }
        };
        match (line.trim_start().strip_prefix("```"), block) {
            (Some(language), None) => block = Some(language != "text"),
            (Some(_), Some(_)) => block = None,
            (None, Some(true)) => found.push((index + 1, line.to_owned())),
            (None, _) => {}
        }
    }
    found
}

#[test]
fn code_of_examples_is_not_cut_off() {
    let mut found = Vec::new();
    ["src", "docs", "README.md"].iter().for_each(|path| files(Path::new(path), &mut found));
    let (mut count, mut offences) = (0, Vec::new());
    for path in found {
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        for (number, line) in example_lines(&fs::read_to_string(&path).unwrap(), is_source) {
            count += 1;
            if line.chars().count() > CODE_COLUMNS {
                offences.push(format!("{}:{number}: {line}", path.display()));
            }
        }
    }
    assert!(count > 1_000, "only {count} lines of examples were found");
    assert!(offences.is_empty(), "more than {CODE_COLUMNS} columns:\n{}", offences.join("\n"));
}
