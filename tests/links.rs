//! Links of the README and the pages: each leads to a file, a heading, or a known site.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Sites that links may lead to. A test cannot reach them, so a new one is added after a look.
const SITES: &[&str] = &[
    "crates.io",
    "doc.rust-lang.org",
    "docs.nats.io",
    "docs.rs",
    "github.com",
    "grpc.io",
    "keepachangelog.com",
    "nats.io",
    "rust-lang.github.io",
    "semver.org",
];

fn pages(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && depth > 0 && name != "target" && !name.starts_with('.') {
            pages(&path, depth - 1, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// The text without blocks and spans of code.
fn without_code(text: &str) -> String {
    let prose = text.split("```").step_by(2).collect::<Vec<_>>().join("\n");
    prose.split('`').step_by(2).collect::<Vec<_>>().join("x")
}

/// The targets of `[text](target)` and `[name]: target`.
fn targets(text: &str) -> Vec<String> {
    let text = without_code(text);
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned());
    let named = text.lines().filter(|line| line.starts_with('[')).filter_map(|line| line.split_once("]: "));
    inline.chain(named.map(|(_, target)| target.trim().to_owned())).collect()
}

/// The name by which a link reaches a heading.
fn anchor(heading: &str) -> String {
    let kept = heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.replace(' ', "-")
}

fn has_heading(page: &Path, name: &str) -> bool {
    let text = fs::read_to_string(page).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#')));
    headings.into_iter().any(|heading| heading == name)
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let mut found = Vec::new();
    pages(Path::new("."), 2, &mut found);
    let mut count = 0;
    for page in found {
        for target in targets(&fs::read_to_string(&page).unwrap()) {
            count += 1;
            let place = format!("{}: {target}", page.display());
            if let Some((_, site)) = target.split_once("://") {
                let host = site.split('/').next().unwrap();
                assert!(SITES.contains(&host), "{place}: the site is not known");
                continue;
            }
            let (file, heading) =
                target.split_once('#').map_or((&*target, None), |(file, heading)| (file, Some(heading)));
            // Pages that are compiled with the crate link to its items.
            if file.contains("::") || !file.contains(['.', '/']) && !file.is_empty() {
                continue;
            }
            let path = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(path.exists(), "{place}: there is no such file");
            assert!(heading.is_none_or(|heading| has_heading(&path, heading)), "{place}: there is no such heading");
        }
    }
    assert!(count > 20, "only {count} links were found");
}

#[test]
fn the_manifest_names_no_place_that_does_not_exist() {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    for key in ["repository", "documentation", "homepage"] {
        assert!(
            !manifest.lines().any(|line| line.starts_with(key)),
            "{key}: add it when the place exists, and remove it here"
        );
    }
}

/// The most lines of a recipe.
const RECIPE_LINES: usize = 30;

#[test]
fn each_recipe_of_the_cookbook_is_short_and_says_what_happens_on_an_error_and_on_shutdown() {
    let Ok(text) = fs::read_to_string("docs/cookbook.md") else { return }; // not in the package
    let recipes: Vec<_> = text.split("\n## ").skip(1).collect();
    assert!(recipes.len() >= 15);
    for recipe in recipes {
        let name = recipe.lines().next().unwrap();
        let code = recipe.split("```").nth(1).unwrap_or_else(|| panic!("{name} has no code"));
        assert!(code.lines().count() <= RECIPE_LINES + 1, "{name} is too long"); // with the line of the fence
        for point in ["- *On an error*", "- *On shutdown*"] {
            assert!(recipe.contains(point), "{name} has no {point}");
        }
    }
}
