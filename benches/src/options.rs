//! What the comparison is asked to do.

use std::time::Duration;

use crate::candidate::Scale;
use crate::error::Error;
use crate::workloads::WORKLOADS;

pub(crate) const HELP: &str = "\
cargo bench --bench compare -- [OPTIONS] [NAMES]

Compares workcrew with other pools. Each name selects the workloads that contain it; without names all run.

  --full         long samples for some seconds, pools of other languages, exact counts; else each candidate takes one
                 short sample, which shows that all of it works, but no figure to rely on
  --seconds N    how long a workload runs at each placement; means --full
  --write        writes the tables and the chart into README.md and docs/; means --full
  --list         names the workloads
  --help         prints this";

/// For how long a workload runs by default.
const TIME_FOR_A_WORKLOAD: Duration = Duration::from_secs(8);

/// What to do.
#[derive(Debug)]
pub(crate) enum Task {
    Help,
    List,
    /// Run at all placements, and report.
    Compare {
        selection: Selection,
        write: bool,
    },
    /// Run at the placement of this process, and write lines. `Compare` starts such a process for each
    /// placement.
    Run(Selection),
}

/// Which workloads run, and how.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Parts of names; none for all.
    pub(crate) parts: Vec<String>,
    pub(crate) scale: Scale,
    /// Zero for one round.
    pub(crate) time: Duration,
}

/// The option of the processes that measure; its value is that of `--seconds`.
pub(crate) const RUN: &str = "--run";

impl Task {
    /// # Errors
    ///
    /// If an option does not exist, lacks its value, or nothing is selected by a name.
    pub(crate) fn from_arguments(arguments: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let mut selection = Selection { parts: Vec::new(), scale: Scale::Short, time: Duration::ZERO };
        let (mut write, mut run) = (false, false);
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match &*argument {
                // Added by cargo.
                "--bench" => {}
                "--help" => return Ok(Self::Help),
                "--list" => return Ok(Self::List),
                "--full" => selection.lengthen(TIME_FOR_A_WORKLOAD),
                "--write" => {
                    write = true;
                    selection.lengthen(TIME_FOR_A_WORKLOAD);
                }
                "--seconds" => selection.set_time(seconds("--seconds", arguments.next())?),
                RUN => {
                    run = true;
                    selection.set_time(seconds(RUN, arguments.next())?);
                }
                option if option.starts_with('-') => return Err(Error::Option(argument)),
                _ => selection.parts.push(argument),
            }
        }
        selection.check()?;
        Ok(if run { Self::Run(selection) } else { Self::Compare { selection, write } })
    }
}

impl Selection {
    pub(crate) fn includes(&self, name: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|part| name.contains(&**part))
    }

    /// Full samples, and at least a default time.
    fn lengthen(&mut self, time: Duration) {
        self.scale = Scale::Full;
        if self.time.is_zero() {
            self.time = time;
        }
    }

    fn set_time(&mut self, time: Duration) {
        self.time = time;
        self.scale = if time.is_zero() { Scale::Short } else { Scale::Full };
    }

    fn check(&self) -> Result<(), Error> {
        let selects = |part: &&String| WORKLOADS.iter().any(|entry| entry.name.contains(&***part));
        match self.parts.iter().find(|part| !selects(part)) {
            Some(part) => Err(Error::Selection(part.clone())),
            None => Ok(()),
        }
    }
}

fn seconds(option: &'static str, value: Option<String>) -> Result<Duration, Error> {
    let time = value.as_ref().and_then(|value| Duration::try_from_secs_f64(value.parse().ok()?).ok());
    time.ok_or(Error::Value { option, value })
}
