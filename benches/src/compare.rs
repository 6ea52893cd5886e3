//! How does workcrew compare with its peers, if noise of the machine affects all alike?
//!
//! `cargo bench --bench compare -- --full` measures; `-- --help` lists the options. The candidates
//! of a workload take samples in turn, for many rounds, in one process. Candidates in other
//! languages run in processes of their own, which sleep between their samples. A ratio is the
//! median over the rounds of a candidate's time divided by the first candidate's in that round.
//!
//! There are two placements: *free*, where the system places the threads, and *one*, where the
//! process is pinned to one CPU. CPU time and context switches are those of the whole process from
//! the start of a sample until its threads are idle. CPU time beside the median tells how many
//! CPUs the threads really had: small jobs are cheapest when producer and workers share one.

mod candidate;
mod chart;
#[allow(dead_code, reason = "the bench `counts` uses the rest")]
mod count;
mod error;
mod external;
mod figures;
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

use clap::Parser;

use crate::candidate::Scale;
use crate::count::Count;
use crate::error::Error;
use crate::external::Peers;
use crate::options::Options;
use crate::placement::{Placement, VERSION};
use crate::pools::Pools;
use crate::results::Results;
use crate::workloads::{Entry, WORKLOADS, spinning};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Error> {
    if options.list {
        WORKLOADS.iter().for_each(|entry| println!("{:16}{}", entry.name, entry.title));
    } else if options.chart {
        publish::draw_chart()?;
    } else if options.run.is_some() {
        measure(options)?;
    } else {
        let results = compare(options)?;
        println!("{}", if options.scale() == Scale::Full { everything(&results) } else { short(&results) });
        if options.write {
            publish::write(&results)?;
        }
    }
    Ok(())
}

/// Returns the report and the tables.
fn everything(results: &Results) -> String {
    format!("{}{}", markdown::report(results), markdown::tables(results))
}

/// Returns the report of a short run.
fn short(results: &Results) -> String {
    format!(
        "One short sample of each candidate. Everything works, but DO NOT RELY ON THESE FIGURES.\n\n{}",
        markdown::summary(results)
    )
}

/// Measures at the placement of this process and prints the figures.
fn measure(options: &Options) -> Result<(), Error> {
    let peers = Peers::start()?;
    peers.versions().for_each(|version| println!("{VERSION}{version}"));
    let pools = Pools::start(pools::workers()?);
    for Entry { name, make, .. } in WORKLOADS.iter().filter(|entry| options.includes(entry.name)) {
        let mut workload = make(pools, options.scale());
        workload.candidates.extend(peers.candidates(name, pools.workers));
        eprintln!("{name}: {}", workload.question);
        for figures in rounds::run(name, &mut workload, options.time())? {
            println!("{}", serde_json::to_string(&figures).expect("it has no maps"));
        }
    }
    Ok(())
}

/// Starts a process for each placement and collects its figures. A missing candidate is reported
/// and is not an error.
fn compare(options: &Options) -> Result<Results, Error> {
    let mut absences = Vec::new();
    let mut absent = |absence: String| {
        eprintln!("NOT MEASURED: {absence}");
        absences.push(absence);
    };
    let mut variables = vec![(spinning::STEPS_VARIABLE, spinning::steps_per_microsecond().to_string())];
    let mut counts = Vec::new();
    match options.scale() {
        Scale::Full => {
            variables.push(external::build(&mut absent));
            match count() {
                Ok(counted) => counts = counted,
                Err(error) => absent(format!("exact counts; {error}")),
            }
        }
        Scale::Short => absent("other languages and exact counts, which need --full".to_owned()),
    }
    let mut external = Vec::new();
    let mut placements = Vec::new();
    for placement in Placement::ALL {
        eprintln!("\nplacement {}", placement.name());
        let on_version = |version: &str| external.push(version.to_owned());
        match placement.run(options, &variables, on_version) {
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

/// Runs the bench `counts`. Its counts are used even if one exceeds its bound.
fn count() -> Result<Vec<Count>, Error> {
    let failed = |reason: String| Error::Process { name: "cargo bench --bench counts".to_owned(), reason };
    let cargo = env::var_os("CARGO").ok_or_else(|| failed("this was not started by cargo".to_owned()))?;
    let mut command = Command::new(cargo);
    command.args(["bench", "--package", "workcrew-benches", "--bench", "counts", "--", "--lines"]);
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| failed(error.to_string()))?;
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let parse = |line: &str| serde_json::from_str(line).map_err(|_| Error::Line(line.to_owned()));
    let counts: Vec<Count> = lines.lines().map(parse).collect::<Result<_, _>>()?;
    if counts.is_empty() { Err(failed(output.status.to_string())) } else { Ok(counts) }
}
