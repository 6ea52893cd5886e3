//! Which file of a crate imports which, read from the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The files of a crate by their modules: `queue::idle`, and `queue` for `queue/mod.rs`. The root is the empty name.
pub(crate) type Modules = BTreeMap<String, PathBuf>;

/// The modules that each module imports.
pub(crate) type Imports = BTreeMap<String, BTreeSet<String>>;

/// Returns every file below a folder, without build results.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Returns the modules below the folder of a crate's root.
pub(crate) fn modules(root: &Path) -> Modules {
    let module_of = |path: &Path| {
        let names = path.strip_prefix(root).unwrap().with_extension("");
        let mut names: Vec<_> = names.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
        if names.last().is_some_and(|name| name == "mod" || names.len() == 1 && (name == "lib" || name == "main")) {
            names.pop();
        }
        names.join("::")
    };
    files(root).into_iter().map(|path| (module_of(&path), path)).collect()
}

/// Returns the lines of code, with their numbers: no comments, no unit tests.
pub(crate) fn code(text: &str) -> Vec<(usize, String)> {
    let product = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = product.lines().enumerate();
    let code = lines.map(|(number, line)| (number + 1, line.split("//").next().unwrap().to_owned()));
    code.filter(|(_, line)| !line.trim().is_empty()).collect()
}

/// Reads the imports of every module, those by paths within the code included. Models and unit tests may import
/// anything.
pub(crate) fn imports(modules: &Modules) -> Imports {
    let is_test = |module: &str| module.split("::").any(|name| name == "tests" || name == "models");
    let mut imports = Imports::new();
    for (module, path) in modules.iter().filter(|(module, _)| !is_test(module)) {
        let text = fs::read_to_string(path).unwrap();
        let code = code(&text).into_iter().map(|(_, line)| line + "\n").collect::<String>();
        let used = paths(&code).into_iter().filter_map(|path| resolve(module, &path, modules));
        imports.insert(module.clone(), used.filter(|used| used != module).collect());
    }
    imports
}

/// Returns every path in the code that begins with `crate`, `super` or `self`, with braces taken apart.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let line = code[..at].lines().next_back().unwrap_or_default();
            // A module within a file has the file's module for its parent.
            let is_nested = line.starts_with(' ') && line.trim_end().ends_with("use") && start == "super::";
            if !is_nested {
                take_apart(String::new(), &code[at..], &mut found);
            }
        }
    }
    found
}

/// Reads one path or one tree of paths from the beginning of `text`, and returns how long it is.
fn take_apart(prefix: String, text: &str, found: &mut Vec<String>) -> usize {
    let length = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
    let path = prefix + &text[..length];
    if !text[length..].starts_with('{') {
        found.push(path.trim_end_matches(':').to_owned());
        return length;
    }
    let mut at = length + 1;
    while !text[at..].starts_with('}') {
        at += take_apart(path.clone(), &text[at..], found);
        at += text[at..].find([',', '}']).expect("a tree of paths ends");
        at += usize::from(text[at..].starts_with(','));
        at += text[at..].find(|c: char| !c.is_whitespace()).expect("a tree of paths ends");
    }
    at + 1
}

/// Returns the module that a path leads to: the longest part of it that is a file.
fn resolve(module: &str, path: &str, modules: &Modules) -> Option<String> {
    let mut names: Vec<&str> =
        if path.starts_with("crate") || module.is_empty() { Vec::new() } else { module.split("::").collect() };
    for name in path.split("::").filter(|name| !matches!(*name, "" | "crate" | "self")) {
        if name == "super" {
            names.pop();
        } else {
            names.push(name);
        }
    }
    while !names.is_empty() && !modules.contains_key(&names.join("::")) {
        names.pop();
    }
    (!names.is_empty()).then(|| names.join("::"))
}

/// Returns the modules that can be reached from each other, one list for each circle.
pub(crate) fn circles(imports: &Imports) -> Vec<Vec<String>> {
    let reach = |from: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            for used in imports.get(&module).into_iter().flatten() {
                if seen.insert(used.clone()) {
                    next.push(used.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = imports.keys().map(|module| (module.clone(), reach(module))).collect();
    let mut circles: Vec<Vec<String>> = Vec::new();
    for (module, reached_from) in &reached {
        if !reached_from.contains(module) || circles.iter().flatten().any(|known| known == module) {
            continue;
        }
        let others = reached_from.iter().filter(|other| reached.get(*other).is_some_and(|back| back.contains(module)));
        circles.push(others.cloned().collect());
    }
    circles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[(&str, &[&str])]) -> Imports {
        paths.iter().map(|(from, to)| ((*from).to_owned(), to.iter().map(|to| (*to).to_owned()).collect())).collect()
    }

    #[test]
    fn a_circle_is_found_whatever_its_length() {
        assert!(circles(&tree(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])).is_empty());
        assert_eq!(circles(&tree(&[("a", &["b"]), ("b", &["a"])])), [["a", "b"]]);
        assert_eq!(circles(&tree(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])])), [["b", "c"]]);
    }

    #[test]
    fn paths_are_read_with_braces_and_super() {
        let code = "use crate::a::{self, b::C, d::{E, F}};\nuse super::g::H;\nfn f() { crate::i::j(); }\n";
        let expected =
            ["crate::a::self", "crate::a::b::C", "crate::a::d::E", "crate::a::d::F", "crate::i::j", "super::g::H"];
        assert_eq!(paths(code), expected);
        let modules: Modules = ["a", "a::b", "x::g", "x::y"].map(|module| (module.to_owned(), PathBuf::new())).into();
        assert_eq!(resolve("x::y", "super::g::H", &modules).as_deref(), Some("x::g"));
        assert_eq!(resolve("x::y", "crate::a::b::C", &modules).as_deref(), Some("a::b"));
        assert_eq!(resolve("x::y", "crate::z::C", &modules), None);
    }
}
