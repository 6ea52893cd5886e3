//! The catalogue of faults, compared with the marks of the tests, and the count of scenarios.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The catalogue of faults, from the root of the repository.
const CATALOGUE: &str = "docs/faults.md";

/// Marks the reason for a fault without a test.
const NO_TEST: &str = "*No test*";

/// One fault of the catalogue.
struct Fault {
    section: String,
    number: String,
    /// Whether the catalogue gives a reason for having no test.
    is_excused: bool,
}

/// A test of the sources.
struct Test {
    file: String,
    name: String,
    faults: Vec<String>,
    /// How many scenarios it runs.
    scenarios: usize,
}

/// The number of scenarios that there must be.
const SCENARIOS: usize = 300;

/// Counts scenarios: one for each test, or six for a test that runs on the grid of pools. Returns
/// an error if they are too few.
pub(crate) fn check_scenarios() -> Result<String, String> {
    let tests = tests();
    let scenarios: usize = tests.iter().map(|test| test.scenarios).sum();
    let words = format!("{scenarios} scenarios in {} tests, at least {SCENARIOS} are required", tests.len());
    if scenarios >= SCENARIOS { Ok(words) } else { Err(words) }
}

/// Returns how many faults have a test or a reason for having none, or an error if one has neither.
pub(crate) fn check_faults() -> Result<String, String> {
    let (pinned, faults) = (pinned(), faults());
    let number = |fault: &Fault| fault.number.clone();
    let missing: Vec<_> =
        faults.iter().filter(|fault| !fault.is_excused && !pinned.contains_key(&fault.number)).map(number).collect();
    let needless: Vec<_> =
        faults.iter().filter(|fault| fault.is_excused && pinned.contains_key(&fault.number)).map(number).collect();
    let unknown: Vec<_> = pinned.keys().filter(|number| faults.iter().all(|fault| fault.number != **number)).collect();
    if !faults.is_empty() && missing.is_empty() && unknown.is_empty() && needless.is_empty() {
        let excused = faults.iter().filter(|fault| fault.is_excused).count();
        return Ok(format!("{} faults: {} pinned by tests, {excused} excused", faults.len(), faults.len() - excused));
    }
    Err(format!("without a test: {missing:?}; not in {CATALOGUE}: {unknown:?}; excused and pinned: {needless:?}"))
}

/// Returns the faults and their tests as text.
pub(crate) fn table() -> String {
    let pinned = pinned();
    let (mut text, mut section) = (String::new(), String::new());
    for fault in faults() {
        if fault.section != section {
            let _ = writeln!(text, "{}", fault.section);
            section.clone_from(&fault.section);
        }
        let tests = pinned.get(&fault.number).map(|tests| tests.join(", "));
        let otherwise = if fault.is_excused { "no test, for a reason" } else { "NO TEST" };
        let _ = writeln!(text, "  {:5} {}", fault.number, tests.as_deref().unwrap_or(otherwise));
    }
    text
}

/// Reads the catalogue: a section begins with `## `, a fault with `140. ` and may span several lines.
fn faults() -> Vec<Fault> {
    let text = fs::read_to_string(CATALOGUE).unwrap_or_default();
    let (mut found, mut section) = (Vec::<Fault>::new(), String::new());
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
        } else if let Some((number, _)) = line.split_once(". ").filter(|(number, _)| is_number(number)) {
            found.push(Fault { section: section.clone(), number: number.to_owned(), is_excused: false });
        }
        if line.contains(NO_TEST)
            && let Some(fault) = found.last_mut()
        {
            fault.is_excused = true;
        }
    }
    found
}

/// Returns whether this is the number of a fault: digits, and at most one letter after them.
fn is_number(word: &str) -> bool {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_lowercase());
    word.len() - digits.len() <= 1 && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn pinned() -> BTreeMap<String, Vec<String>> {
    let mut pinned = BTreeMap::<_, Vec<String>>::new();
    for test in tests() {
        for fault in test.faults {
            pinned.entry(fault).or_default().push(format!("{}::{}", test.file, test.name));
        }
    }
    pinned
}

/// Returns the tests that the harness runs by itself: those beside the code and those in `tests/`.
fn tests() -> Vec<Test> {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    sources(Path::new("tests"), &mut files);
    sources(Path::new("interop/tests"), &mut files);
    files.sort();
    files.iter().flat_map(|path| tests_of(path, &fs::read_to_string(path).unwrap_or_default())).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module of a test: `timers` for `tests/timers.rs`, `timer` for `src/timer/tests.rs`.
fn module(path: &Path) -> String {
    let words: Vec<_> =
        path.with_extension("").iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    words
        .iter()
        .filter(|word| !["tests", "mod", "lib"].contains(&word.as_str()))
        .cloned()
        .collect::<Vec<_>>()
        .join("::")
}

fn tests_of(path: &Path, text: &str) -> Vec<Test> {
    let file = module(path);
    let (mut found, mut faults, mut is_test, mut is_ignored) = (Vec::<Test>::new(), Vec::new(), false, false);
    for line in text.lines().map(str::trim_start) {
        if let Some(marks) = line.strip_prefix("/// Fault ").or(line.strip_prefix("/// Faults ")) {
            // Text may follow the numbers.
            let numbers = marks.split('.').next().unwrap_or_default().replace(" and ", ", ");
            faults.extend(numbers.split(", ").map(str::to_owned));
        } else if line == "#[test]" {
            is_test = true;
        } else if line.starts_with("#[ignore") {
            is_ignored = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            if is_test && !is_ignored {
                let name = rest.split('(').next().unwrap_or_default().to_owned();
                found.push(Test { file: file.clone(), name, faults: faults.clone(), scenarios: 1 });
            }
            (faults, is_test, is_ignored) = (Vec::new(), false, false);
        } else if line.contains("grid(")
            && let Some(test) = found.last_mut()
        {
            test.scenarios = 6;
        }
    }
    found
}
