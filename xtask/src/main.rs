//! The verification levels as one command.
//!
//! ```sh
//! cargo xtask verify                 # a slice of every level
//! cargo xtask verify --full          # all of it, for a release
//! cargo xtask verify --full L2 L5    # some levels
//! cargo xtask faults                 # which test pins which fault
//! ```
//!
//! It prints each step that ran, with its figures and seconds, and each step that was skipped, with
//! the reason. The output of each step goes to `target/verify/`. The exit status is 1 if a step
//! failed. A skipped step is not a failure.

mod catalogue;
mod levels;
mod mutants;
mod run;

use std::env;
use std::process::ExitCode;

use levels::LEVELS;
use run::{Run, Size};

const USAGE: &str = "usage: cargo xtask verify [--slice|--full] [LEVEL…]\n       cargo xtask faults";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let mut words = arguments.iter().map(String::as_str);
    match words.next() {
        Some("verify") => verify(words),
        Some("faults") => {
            print!("{}", catalogue::table());
            let (faults, scenarios) = (catalogue::check_faults(), catalogue::check_scenarios());
            for words in [&faults, &scenarios] {
                println!("{}", words.as_ref().unwrap_or_else(|words| words));
            }
            if faults.and(scenarios).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        _ => usage(),
    }
}

fn verify<'a>(words: impl Iterator<Item = &'a str>) -> ExitCode {
    let (mut size, mut wanted) = (Size::Slice, Vec::new());
    for word in words {
        match word {
            "--slice" => size = Size::Slice,
            "--full" => size = Size::Full,
            level if LEVELS.iter().any(|(name, ..)| *name == level) => wanted.push(level),
            _ => return usage(),
        }
    }
    let mut run = Run::new(size);
    for (name, title, check) in LEVELS {
        if wanted.is_empty() || wanted.contains(name) {
            run.enter(name, title);
            check(&mut run);
        }
    }
    run.report()
}

fn usage() -> ExitCode {
    let levels: Vec<_> = LEVELS.iter().map(|(name, title, _)| format!("  {name:4} {title}")).collect();
    eprintln!("{USAGE}\nlevels:\n{}", levels.join("\n"));
    ExitCode::from(2)
}
