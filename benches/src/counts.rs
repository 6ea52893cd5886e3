//! How many allocations, bytes, context switches and instructions does an operation take? Noise cannot touch these
//! counts, so they have bounds, and this fails when one is exceeded. Peers are counted beside, without bounds.
//!
//! `cargo bench --bench counts`; with `-- --lines` it prints lines for programs. Instructions need valgrind, switches
//! need taskset; where they are not installed this says so, and fails only if the variable `CI` is set.

mod allocations;
#[allow(dead_code, reason = "the bench `compare` uses the rest")]
mod count;
mod counted;
#[allow(dead_code, reason = "`compare` uses the rest")]
mod error;
#[allow(dead_code, reason = "`compare` uses the rest")]
mod pools;
mod probe;
mod status;

use std::env;
use std::process::ExitCode;

use crate::counted::Counted;
use crate::error::Error;

/// Makes the output one for programs.
const LINES: &str = "--lines";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => run(false),
        [LINES] => run(true),
        [probe::OPTION, name, times] => probe::answer(&counted::probes(), name, times).map(|()| true),
        [option, ..] => Err(Error::Option(option.to_owned())),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Counts everything; whether all bounds are kept, and in CI all is there.
fn run(lines: bool) -> Result<bool, Error> {
    let in_ci = env::var_os("CI").is_some();
    let mut kept = true;
    for counted in counted::all() {
        match counted {
            Counted::Count(count) => {
                kept &= count.is_kept();
                println!("{}", if lines { count.to_line() } else { count.to_text() });
            }
            Counted::Absent { name, error } => {
                kept &= !in_ci;
                eprintln!("NOT COUNTED: {name}: {error}");
            }
        }
    }
    Ok(kept)
}
