//! The texts that the compiler shows for common mistakes, as far as they are this crate's own.
//!
//! Each program in `tests/ui` makes one mistake. Its `//~` lines are texts of an error or a warning
//! that the compiler must show. The rest of the compiler's output is not compared, so the test holds
//! for every release of the compiler.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A package that is checked on its own: its programs must not compile, or compile with warnings.
fn make_package(folder: &Path, programs: &Path) {
    let manifest = format!(
        "[package]\nname = \"mistakes\"\nedition = \"2024\"\n[workspace]\n[dependencies]\nworkcrew = {{ path = {:?} }}\n",
        programs.ancestors().nth(3).unwrap()
    );
    let bins = folder.join("src/bin");
    let _ = fs::remove_dir_all(&bins);
    fs::create_dir_all(&bins).unwrap();
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    // The versions of the workspace, which have been downloaded.
    fs::copy(programs.ancestors().nth(3).unwrap().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    for program in fs::read_dir(programs).unwrap() {
        let program = program.unwrap().path();
        fs::copy(&program, bins.join(program.file_name().unwrap())).unwrap();
    }
}

/// The text with every run of white space as one blank.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_mistake_is_explained_by_the_crate() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mistakes");
    make_package(&folder, &programs);
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["check", "--offline", "--keep-going", "--bins", "--message-format=json"])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .output()
        .unwrap();
    // One line for each message of the compiler, which names the program and holds the rendered text.
    let messages = String::from_utf8(output.stdout).unwrap();
    let mut texts = 0;
    for program in fs::read_dir(&programs).unwrap() {
        let program = program.unwrap().path();
        let name = program.file_stem().unwrap().to_str().unwrap();
        let target = format!("\"kind\":[\"bin\"],\"crate_types\":[\"bin\"],\"name\":\"{name}\"");
        let shown: Vec<_> = messages
            .lines()
            .filter(|line| line.contains("\"reason\":\"compiler-message\"") && line.contains(&target))
            .map(|line| flat(&line.replace("\\n", " ").replace("\\\"", "\"").replace(" = note:", " ")))
            .collect();
        for expected in fs::read_to_string(&program).unwrap().lines().filter_map(|line| line.strip_prefix("//~ ")) {
            texts += 1;
            let is_shown = shown.iter().any(|message| message.contains(expected));
            let shown = shown.join("\n\n");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(is_shown, "{name}: not shown: {expected}\n\n{shown}\n\n{errors}");
        }
    }
    assert!(texts >= 24, "the programs were not found");
}
