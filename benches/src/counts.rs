//! How many allocations, bytes, context switches and instructions does an operation take?
//!
//! Noise does not change these counts, so they have bounds, and `cargo bench --bench counts` fails
//! when one is exceeded. Peers are counted as well, without bounds. Instructions need valgrind,
//! switches need taskset. A missing tool is reported, and is an error only if `CI` is set.

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

use clap::Parser;

use crate::counted::Counted;
use crate::error::Error;

/// Counts what operations take, and fails when a bound is exceeded.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench --bench counts --")]
struct Options {
    /// Print lines for programs
    #[arg(long)]
    lines: bool,
    /// Performs an operation a number of times, and prints the count
    #[arg(long, hide = true, num_args = 2)]
    probe: Vec<String>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.probe[..] {
        [name, times] => probe::answer(&counted::probes(), name, times).map(|()| true),
        _ => run(options.lines),
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

/// Counts everything. Returns whether all bounds are kept, and in CI nothing is missing.
fn run(lines: bool) -> Result<bool, Error> {
    let in_ci = env::var_os("CI").is_some();
    let mut kept = true;
    for counted in counted::all() {
        match counted {
            Counted::Count(count) => {
                kept &= count.is_kept();
                println!(
                    "{}",
                    if lines { serde_json::to_string(&count).expect("it has no maps") } else { count.to_text() }
                );
            }
            Counted::Absent { name, error } => {
                kept &= !in_ci;
                eprintln!("NOT COUNTED: {name}: {error}");
            }
        }
    }
    Ok(kept)
}
