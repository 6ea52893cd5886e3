//! Counts what the sources of the tests say: scenarios, and the faults that tests pin.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The numbers of the catalogue of faults that apply to what is built, by section.
const FAULTS: &[(&str, &[&str])] = &[
    ("submit and queue", &["1-10", "13", "16-19"]),
    ("execution and panics", &["20-39"]),
    ("handles and waits", &["40-46", "48", "51-63"]),
    ("groups and scopes", &["64-69", "71-75", "79-82", "84-86", "88-92"]),
    ("shutdown and drop", &["93-110"]),
    ("threads and resources", &["111-115", "118-124"]),
    ("time, delays, retries", &["125-135"]),
    ("the event bus", &["136a", "136b", "136c", "136d", "136e", "136f"]),
    ("futures", &["137a", "137b", "137c", "137d", "137e", "137f", "137g", "137h"]),
];

/// Faults without a test of their own, and why.
const EXCUSED: &[(&str, &str)] = &[
    ("36", "builds that abort on panic are a step of L11"),
    ("37", "a task left by longjmp or pthread_exit is outside of the contract; the crate's docs say so"),
    ("51", "two tasks that wait for each other are the program's own fault; the docs of `join` say what is helped"),
    ("82", "does not compile: src/misuse.rs"),
    ("106", "a flag set without its lock is a seeded defect of the models' score, L3c"),
    ("110", "a pool is not used again after its shutdown: there is no such method"),
    ("137e", "a handle keeps a `std::task::Waker`, which is `Send` and `'static`: nothing to get wrong"),
    ("137h", "there is no async scope, and a scope does not leave its body: src/misuse.rs"),
];

/// One test of the sources.
struct Test {
    file: String,
    name: String,
    faults: Vec<String>,
    /// How many scenarios it runs.
    scenarios: usize,
}

/// How many scenarios at least.
const SCENARIOS: usize = 300;

/// Counts scenarios: each test once, or once for each of the six pools of the grid; an error if they are too few.
pub(crate) fn check_scenarios() -> Result<String, String> {
    let tests = tests();
    let scenarios: usize = tests.iter().map(|test| test.scenarios).sum();
    let words = format!("{scenarios} scenarios in {} tests, at least {SCENARIOS} wanted", tests.len());
    if scenarios >= SCENARIOS { Ok(words) } else { Err(words) }
}

/// Which faults have a test, or the reason for having none; an error if one has neither.
pub(crate) fn check_faults() -> Result<String, String> {
    let pinned = pinned();
    let all: Vec<String> = FAULTS.iter().flat_map(|(_, ranges)| numbers(ranges)).collect();
    let is_excused = |fault: &str| EXCUSED.iter().any(|(excused, _)| *excused == fault);
    let missing: Vec<_> = all.iter().filter(|fault| !pinned.contains_key(*fault) && !is_excused(fault)).collect();
    let unknown: Vec<_> = pinned.keys().filter(|fault| !all.contains(fault)).collect();
    let needless: Vec<_> = EXCUSED.iter().filter(|(fault, _)| pinned.contains_key(*fault)).collect();
    if missing.is_empty() && unknown.is_empty() && needless.is_empty() {
        let excused = EXCUSED.len();
        return Ok(format!("{} faults: {} pinned by tests, {excused} excused", all.len(), all.len() - excused));
    }
    Err(format!("without a test: {missing:?}; not in the catalogue: {unknown:?}; excused and pinned: {needless:?}"))
}

/// The faults and their tests, as text.
pub(crate) fn table() -> String {
    let pinned = pinned();
    let mut text = String::new();
    for (section, ranges) in FAULTS {
        let _ = writeln!(text, "{section}");
        for fault in numbers(ranges) {
            let excuse = EXCUSED.iter().find(|(excused, _)| *excused == fault).map(|(_, reason)| *reason);
            let tests = pinned.get(&fault).map(|tests| tests.join(", "));
            let _ =
                writeln!(text, "  {fault:5} {}", tests.or(excuse.map(str::to_owned)).unwrap_or("NOTHING".to_owned()));
        }
    }
    text
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

/// The numbers of ranges such as `3-5`.
fn numbers(ranges: &[&str]) -> Vec<String> {
    let range = |range: &&str| match range.split_once('-').map(|(first, last)| (first.parse(), last.parse())) {
        Some((Ok(first), Ok(last))) => (first..=last).map(|number: u32| number.to_string()).collect(),
        _ => vec![(*range).to_owned()],
    };
    ranges.iter().flat_map(range).collect()
}

/// The tests of the package that the harness runs by itself, those beside the code and those in `tests/`.
fn tests() -> Vec<Test> {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    sources(Path::new("tests"), &mut files);
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

/// What a test's name begins with: `timers` for `tests/timers.rs`, `timer` for `src/timer/tests.rs`.
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
            faults.extend(marks.trim_end_matches('.').split(", ").map(str::to_owned));
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
