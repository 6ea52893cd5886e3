//! How does workcrew compare with its peers, when noise of the machine affects all alike?
//!
//! `cargo bench --bench compare -- --full` measures; `-- --help` lists the options. The candidates of a workload take
//! samples in turn in one process for many rounds, those of other languages in processes of their own that sleep meanwhile. A ratio
//! is the median over the rounds of a candidate's time by that of the first candidate in the same round.
//!
//! All is measured twice, at two placements: *free*, where the system puts the threads, and *one*, where the process is
//! pinned to one CPU. CPU time and context switches are those of the whole process during a candidate's samples, until its
//! threads have come to rest. CPU time beside the median tells how many CPUs the threads really had: small jobs are
//! cheapest when producer and workers share one, and the system may put them there for a while or for good, all the more
//! when something else runs on the machine.

mod chart;
mod candidate;
#[allow(dead_code, reason = "the bench `counts` uses the rest")]
mod count;
mod error;
mod figures;
mod external;
mod machine;
mod markdown;
mod options;
mod placement;
mod pools;
mod publish;
mod results;
mod rounds;
mod statistics;
mod status;
mod targets;
mod usage;
mod waiting;
mod workloads;

use std::env;
use std::process::{Command, ExitCode, Stdio};

use crate::candidate::Scale;
use crate::count::Count;
use crate::error::Error;
use crate::external::Peers;
use crate::options::{HELP, Selection, Task};
use crate::placement::{Placement, VERSION};
use crate::pools::Pools;
use crate::results::Results;
use crate::workloads::{Entry, WORKLOADS, spinning};

fn main() -> ExitCode {
    match Task::from_arguments(env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<(), Error> {
    match task {
        Task::Help => println!("{HELP}"),
        Task::List => WORKLOADS.iter().for_each(|entry| println!("{:16}{}", entry.name, entry.title)),
        Task::Run(selection) => measure(&selection)?,
        Task::Compare { selection, write } => {
            let results = compare(&selection)?;
            println!("{}", if selection.scale == Scale::Full { everything(&results) } else { short(&results) });
            if write {
                for path in publish::write(&results)? {
                    println!("wrote {}", path.display());
                }
            }
        }
    }
    Ok(())
}

/// The report and the tables.
fn everything(results: &Results) -> String {
    format!("{}{}", markdown::report(results), markdown::tables(results))
}

/// Returns the report of a short run.
fn short(results: &Results) -> String {
    format!(
        "One short sample of each: it all works, but DO NOT RELY ON THESE FIGURES.\n\n{}",
        markdown::summary(results)
    )
}

/// Measures at the placement of this process, and prints the figures.
fn measure(selection: &Selection) -> Result<(), Error> {
    let peers = Peers::start()?;
    peers.versions().for_each(|version| println!("{VERSION}{version}"));
    let pools = Pools::start(pools::workers()?);
    for Entry { name, make, .. } in WORKLOADS.iter().filter(|entry| selection.includes(entry.name)) {
        let mut workload = make(pools, selection.scale);
        workload.candidates.extend(peers.candidates(name, pools.workers));
        eprintln!("{name}: {}", workload.question);
        for figures in rounds::run(name, &mut workload, selection.time)? {
            println!("{}", figures.to_line());
        }
    }
    Ok(())
}

/// Starts a process for each placement, and collects its figures. A candidate that is missing is reported
/// and is not an error.
fn compare(selection: &Selection) -> Result<Results, Error> {
    let mut absences = Vec::new();
    let mut absent = |absence: String| {
        eprintln!("NOT MEASURED: {absence}");
        absences.push(absence);
    };
    let mut variables = vec![(spinning::STEPS_VARIABLE, spinning::steps_per_microsecond().to_string())];
    let mut counts = Vec::new();
    match selection.scale {
        Scale::Full => {
            variables.push(external::build(&mut absent));
            match count() {
                Ok(counted) => counts = counted,
                Err(error) => absent(format!("exact counts; {error}")),
            }
        }
        Scale::Short => absent("other languages and exact counts, in a short run; --full has them".to_owned()),
    }
    let mut external = Vec::new();
    let mut placements = Vec::new();
    for placement in Placement::ALL {
        eprintln!("\nplacement {}", placement.name());
        let on_version = |version: &str| external.push(version.to_owned());
        match placement.run(selection, &variables, on_version) {
            Ok(figures) => placements.push((placement, figures)),
            Err(error) if placement == Placement::One => absent(format!("one CPU; {error}")),
            Err(error) => return Err(error),
        }
    }
    external.sort();
    external.dedup();
    let workers = pools::workers()?;
    Ok(Results { facts: machine::facts(workers, &external), workers, placements, counts, absences })
}

/// Lets the bench `counts` count. It fails when a bound is exceeded; what it has counted counts all the same.
fn count() -> Result<Vec<Count>, Error> {
    let failed = |reason: String| Error::Process { name: "cargo bench --bench counts".to_owned(), reason };
    let cargo = env::var_os("CARGO").ok_or_else(|| failed("this was not started by cargo".to_owned()))?;
    let mut command = Command::new(cargo);
    command.args(["bench", "--package", "workcrew-benches", "--bench", "counts", "--", "--lines"]);
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| failed(error.to_string()))?;
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let counts: Vec<Count> =
        lines.lines().filter_map(|line| Count::from_line(line).transpose()).collect::<Result<_, _>>()?;
    if counts.is_empty() { Err(failed(output.status.to_string())) } else { Ok(counts) }
}
