//! The shape of the crate, held against its sources: ranks, doors, unsafe code, sizes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod imports;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use imports::code;

/// The folders and files directly below `src`, by rank, lowest first. Code imports only from lower ranks and from its own
/// folder. Within a rank no folder imports another.
const RANKS: &[&[&str]] = &[
    &["sync"],
    &["unwind", "failpoint", "priority", "time"],
    &["nesting"],
    &["error"],
    &["queue", "cancel", "observe", "snapshot"],
    &["task"],
    &["timer"],
    &["pool"],
    &["group", "io"],
    &["keyed"],
    &["retry"],
    &["driver", "events", "grpc", "nats"],
    &["prometheus", "timeline"],
    &["models", "compile_fail", "doctests"],
];

/// The roots of the workspace's crates, in none of which files import each other in a circle.
const CRATES: [&str; 5] = ["src", "benches/src", "interop/src/bin/nats-drill", "verify/src", "xtask/src"];

/// What may be named in one module only, or in two that have a bar between them.
const DOORS: [(&str, &str); 18] = [
    ("crossbeam_channel", "queue"),
    ("parking_lot", "sync/native"),
    ("loom::", "sync"),
    ("shuttle::", "sync"),
    ("std::thread", "sync"),
    ("std::sync", "sync"),
    ("num_cpus", "pool/builder"),
    ("backon", "retry"),
    ("tokio::", "io"),
    ("tonic::", "grpc"),
    ("h2::", "grpc"),
    ("http_body::", "grpc"),
    ("async_nats", "nats"),
    ("futures_core", "nats|group/stream"),
    ("prometheus_client", "prometheus"),
    ("tracing::", "observe/task_span"),
    ("catch_unwind", "unwind"),
    ("resume_unwind", "unwind"),
];

/// The only modules with unsafe code, and how many lines of each say so.
const UNSAFE: [(&str, usize); 2] = [("group/scope", 2), ("task/closure", 15)];

/// Files that may be longer than 450 lines, and why.
const LONG: [(&str, &str); 0] = [];

const LINES_OF_A_FILE: usize = 450;
const LINES_OF_A_FUNCTION: usize = 70;

fn sources() -> Vec<(PathBuf, String)> {
    let files = imports::files(Path::new("src"));
    assert!(files.len() > 20, "the sources were not found");
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The path of a file below `src`, without its ending; a folder stands for its `mod.rs`.
fn place(path: &Path) -> String {
    let place = path.strip_prefix("src").unwrap().with_extension("");
    place.to_str().unwrap().trim_end_matches("/mod").to_owned()
}

#[test]
fn folders_import_lower_ranks_only() {
    let ranks: BTreeMap<_, _> =
        RANKS.iter().enumerate().flat_map(|(rank, names)| names.iter().map(move |name| (*name, rank))).collect();
    let folder = |module: &str| module.split("::").next().unwrap().to_owned();
    let rank = |folder: &str| *ranks.get(folder).unwrap_or_else(|| panic!("{folder} has no rank"));
    for (module, used) in imports::imports(&imports::modules(Path::new("src"))) {
        if module.is_empty() {
            continue;
        }
        let own = folder(&module);
        for used in used {
            let other = folder(&used);
            let is_lower = own == other || rank(&other) < rank(&own);
            assert!(is_lower, "{module} imports {used}, which does not rank below it");
        }
    }
}

#[test]
fn no_files_import_each_other() {
    for root in CRATES {
        let modules = imports::modules(Path::new(root));
        assert!(modules.len() > 3, "{root}: the sources were not found");
        let circles = imports::circles(&imports::imports(&modules));
        assert!(circles.is_empty(), "{root}: {circles:#?}");
    }
}

#[test]
fn outside_things_come_through_their_doors() {
    for (path, text) in sources() {
        let place = place(&path);
        for (number, line) in code(&text) {
            for (thing, doors) in DOORS {
                let inside = doors.split('|').any(|door| place == door || place.starts_with(&format!("{door}/")));
                assert!(inside || !line.contains(thing), "{}:{number}: {thing} belongs to {doors}", path.display());
            }
        }
    }
}

#[test]
fn unsafe_code_lives_where_it_may() {
    let mut lines = BTreeMap::new();
    for (path, text) in sources() {
        let is_unsafe =
            |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        let count = code(&text).iter().filter(|(_, line)| is_unsafe(line)).count();
        *lines.entry(place(&path)).or_insert(0) += count;
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
    let traits = ["HandlerResult", "Observer", "ScopeResult", "TaskResult", "TickResult"];
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
