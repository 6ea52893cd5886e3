//! The shape of the crate, held against its sources: ranks, doors, unsafe code, sizes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the lowest rank to the highest. A module may use modules of lower ranks only.
const RANKS: &[&str] = &[
    "hope",
    "sync",
    "defect",
    "fault",
    "thread_name",
    "deadline",
    "clock",
    "agenda",
    "unwind",
    "nesting",
    "closure",
    "panic",
    "error",
    "cancel",
    "awaiting",
    "seats",
    "queue",
    "observer",
    "metrics",
    "record",
    "ledger",
    "local",
    "waits",
    "lifecycle",
    "supervisor",
    "idle",
    "job",
    "task",
    "handle",
    "roster",
    "timekeeper",
    "room",
    "engine",
    "worker",
    "shutdown",
    "pool",
    "ending",
    "submission",
    "group",
    "scope",
    "map",
    "timer",
    "retry",
    "bus",
    "io",
    "grpc",
    "nats",
    "builder",
    "models",
    "misuse",
    "readme",
    "events_page",
    "grpc_page",
    "nats_page",
];

/// What may be named in one module only.
const DOORS: [(&str, &str); 16] = [
    ("crossbeam_channel", "queue"),
    ("parking_lot", "sync"),
    ("loom::", "sync"),
    ("shuttle::", "sync"),
    ("std::thread", "sync"),
    ("std::sync", "sync"),
    ("num_cpus", "builder"),
    ("backon", "retry"),
    ("tokio::", "io"),
    ("tonic::", "grpc"),
    ("h2::", "grpc"),
    ("http_body::", "grpc"),
    ("async_nats", "nats"),
    ("futures_core", "nats"),
    ("catch_unwind", "unwind"),
    ("resume_unwind", "unwind"),
];

/// The only modules with unsafe code, and how many lines of each say so.
const UNSAFE: [(&str, usize); 2] = [("closure", 15), ("scope", 1)];

/// Files that may be longer than 450 lines, and why.
const LONG: [(&str, &str); 0] = [];

const LINES_OF_A_FILE: usize = 450;
const LINES_OF_A_FUNCTION: usize = 70;

fn sources() -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    collect(Path::new("src"), &mut files);
    files.sort();
    assert!(files.len() > 20, "the sources were not found");
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The module of rank that a file belongs to; `None` for the root.
fn module(path: &Path) -> Option<String> {
    let first = path.strip_prefix("src").unwrap().components().next().unwrap();
    let name = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
    (name != "lib").then_some(name)
}

/// The lines of code: no comments, no unit tests.
fn code(text: &str) -> Vec<(usize, String)> {
    let product = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = product.lines().enumerate();
    let code = lines.map(|(number, line)| (number + 1, line.split("//").next().unwrap().to_owned()));
    code.filter(|(_, line)| !line.trim().is_empty()).collect()
}

#[test]
fn modules_use_lower_ranks_only() {
    let ranks: BTreeMap<_, _> = RANKS.iter().enumerate().map(|(rank, name)| (*name, rank)).collect();
    for (path, text) in sources() {
        let Some(module) = module(&path) else { continue };
        let own = *ranks.get(&*module).unwrap_or_else(|| panic!("{module} has no rank"));
        for (number, line) in code(&text) {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if let Some(rank) = ranks.get(&*used) {
                    let lower = *rank < own || used == module;
                    assert!(lower, "{}:{number}: {module} uses {used}, which ranks above it", path.display());
                } else {
                    assert!(used.is_empty(), "{}:{number}: {used} has no rank", path.display());
                }
            }
        }
    }
}

#[test]
fn outside_things_come_through_their_doors() {
    for (path, text) in sources() {
        let module = module(&path).unwrap_or_default();
        for (number, line) in code(&text) {
            for (thing, door) in DOORS {
                let inside = module == door;
                assert!(inside || !line.contains(thing), "{}:{number}: {thing} belongs to {door}", path.display());
            }
        }
    }
}

#[test]
fn unsafe_code_lives_where_it_may() {
    let mut lines = BTreeMap::new();
    for (path, text) in sources() {
        let module = module(&path).unwrap_or_default();
        let is_unsafe =
            |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        let count = code(&text).iter().filter(|(_, line)| is_unsafe(line)).count();
        *lines.entry(module).or_insert(0) += count;
    }
    lines.retain(|_, count| *count > 0);
    assert_eq!(lines, UNSAFE.map(|(module, count)| (module.to_owned(), count)).into());
}

#[test]
fn the_root_defines_nothing() {
    let root = fs::read_to_string("src/lib.rs").unwrap();
    for keyword in ["fn ", "struct ", "enum ", "trait ", "impl ", "const ", "static ", "macro_rules!"] {
        let defined = code(&root).into_iter().find(|(_, line)| line.trim_start().contains(keyword));
        assert!(defined.is_none(), "src/lib.rs: {defined:?}");
    }
}

#[test]
fn files_are_short_or_say_why() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        let excused = LONG.iter().any(|(file, _)| Path::new(file) == path);
        assert!(lines <= LINES_OF_A_FILE || excused, "{} has {lines} lines", path.display());
        assert!(lines > LINES_OF_A_FILE || !excused, "{} needs its excuse no more", path.display());
        assert!(text.starts_with("//!") || text.starts_with("#![doc"), "{} does not say what it is", path.display());
    }
}

#[test]
fn functions_are_short() {
    for (path, text) in sources() {
        let mut open: Vec<(usize, usize)> = Vec::new(); // where a function began, and how far it is indented
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim_start();
            let begins = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "pub(crate) const fn "];
            if begins.iter().any(|begin| code.starts_with(begin)) && !code.ends_with(';') {
                open.push((number, indent));
            }
            if let Some((began, of)) = open.last().copied()
                && code.starts_with('}')
                && indent == of
            {
                let lines = number + 1 - began;
                assert!(lines <= LINES_OF_A_FUNCTION, "{}:{}: {lines} lines", path.display(), began + 1);
                open.pop();
            }
        }
    }
}

#[test]
fn the_auto_traits_of_every_public_type_are_asserted() {
    let (root, errors) = (fs::read_to_string("src/lib.rs").unwrap(), fs::read_to_string("tests/errors.rs").unwrap());
    let traits = ["HandlerResult", "Observer", "TaskResult"];
    let faults = ["FailGuard", "Failpoint", "configure"]; // of builds for checks alone
    let exports: Vec<_> = root.split("\npub use ").skip(1).filter_map(|export| export.split(';').next()).collect();
    let exports = exports.join(" ");
    let names = exports.split(|c: char| !c.is_alphanumeric()).filter(|name| name.starts_with(char::is_uppercase));
    let mut count = 0;
    for name in names.filter(|name| !traits.contains(name) && !faults.contains(name)) {
        let asserted =
            ["is_send_sync::<", "travels::<", "is_send_sync::<(", ", "].map(|before| format!("{before}{name}"));
        assert!(asserted.iter().any(|assertion| errors.contains(assertion)), "{name} is in no assertion");
        count += 1;
    }
    assert!(count > 25, "only {count} public types were found");
}
