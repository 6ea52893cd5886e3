//! The command line of the comparison.

use std::time::Duration;

use clap::Parser;

use crate::candidate::Scale;
use crate::workloads::WORKLOADS;

/// Compares workcrew with other pools.
///
/// Without options, each candidate takes one short sample. That shows that everything works, but
/// the figures are not reliable.
#[derive(Clone, Debug, Parser)]
#[command(bin_name = "cargo bench --bench compare --")]
pub(crate) struct Options {
    /// Parts of the names of the workloads that run; all run by default
    #[arg(value_parser = selection)]
    pub(crate) names: Vec<String>,
    /// Take long samples for 8 seconds, also in other languages, and count exactly
    #[arg(long)]
    full: bool,
    /// How long each workload runs at each placement; implies --full
    #[arg(long, value_name = "N", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Write the tables and the chart into README.md and docs/; implies --full
    #[arg(long)]
    pub(crate) write: bool,
    /// Measure nothing, and draw the chart again from the tables in docs/
    #[arg(long)]
    pub(crate) chart: bool,
    /// List the workloads
    #[arg(long)]
    pub(crate) list: bool,
    /// Measures at the placement of this process, for this number of seconds, and prints lines
    #[arg(long, hide = true, value_parser = seconds)]
    pub(crate) run: Option<Duration>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long a workload runs by default.
const TIME_FOR_A_WORKLOAD: Duration = Duration::from_secs(8);

impl Options {
    /// Returns whether a workload is selected.
    pub(crate) fn includes(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(&**part))
    }

    /// Returns how long a workload runs at each placement; zero for one round.
    pub(crate) fn time(&self) -> Duration {
        let default = if self.full || self.write { TIME_FOR_A_WORKLOAD } else { Duration::ZERO };
        self.run.or(self.seconds).unwrap_or(default)
    }

    pub(crate) fn scale(&self) -> Scale {
        if self.time().is_zero() { Scale::Short } else { Scale::Full }
    }
}

fn selection(part: &str) -> Result<String, &'static str> {
    let exists = WORKLOADS.iter().any(|entry| entry.name.contains(part));
    exists.then(|| part.to_owned()).ok_or("no workload has this in its name")
}

fn seconds(value: &str) -> Result<Duration, String> {
    let seconds = value.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
