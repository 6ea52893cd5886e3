//! What the comparison is asked to do.

use std::time::Duration;

use crate::contender::Scale;
use crate::failure::Failure;
use crate::workloads::WORKLOADS;

pub(crate) const HELP: &str = "\
cargo bench --bench compare -- [OPTIONS] [NAMES]

Compares workcrew with other pools. Each name selects the workloads that contain it; without names all are played.

  --full         long turns for some seconds, pools of other languages, exact counts; else each contender takes one
                 short turn, which shows that all of it works, but no figure to rely on
  --seconds N    how long a workload is played at each placement; means --full
  --write        writes the tables and the chart into README.md and docs/; means --full
  --list         names the workloads
  --help         prints this";

/// For how long a workload is played unless told otherwise.
const TIME_FOR_A_WORKLOAD: Duration = Duration::from_secs(8);

/// What to do.
#[derive(Debug)]
pub(crate) enum Task {
    Help,
    List,
    /// Play at all placements, and report.
    Compare {
        selection: Selection,
        write: bool,
    },
    /// Play where this process has been placed, and write lines: what the above starts for each placement.
    Play(Selection),
}

/// Which workloads are played, and how.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Parts of names; none for all.
    pub(crate) parts: Vec<String>,
    pub(crate) scale: Scale,
    /// Zero for one round.
    pub(crate) time: Duration,
}

/// The option by which a process is told to play; its value is that of `--seconds`.
pub(crate) const PLAY: &str = "--play";

impl Task {
    /// # Errors
    ///
    /// If an option does not exist, lacks its value, or nothing is selected by a name.
    pub(crate) fn from_arguments(arguments: impl IntoIterator<Item = String>) -> Result<Self, Failure> {
        let mut selection = Selection { parts: Vec::new(), scale: Scale::Short, time: Duration::ZERO };
        let (mut write, mut play) = (false, false);
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
                PLAY => {
                    play = true;
                    selection.set_time(seconds(PLAY, arguments.next())?);
                }
                option if option.starts_with('-') => return Err(Failure::Option(argument)),
                _ => selection.parts.push(argument),
            }
        }
        selection.check()?;
        Ok(if play { Self::Play(selection) } else { Self::Compare { selection, write } })
    }
}

impl Selection {
    pub(crate) fn includes(&self, name: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|part| name.contains(&**part))
    }

    /// Full turns, and at least a default time.
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

    fn check(&self) -> Result<(), Failure> {
        let selects = |part: &&String| WORKLOADS.iter().any(|entry| entry.name.contains(&***part));
        match self.parts.iter().find(|part| !selects(part)) {
            Some(part) => Err(Failure::Selection(part.clone())),
            None => Ok(()),
        }
    }
}

fn seconds(option: &'static str, value: Option<String>) -> Result<Duration, Failure> {
    let time = value.as_ref().and_then(|value| Duration::try_from_secs_f64(value.parse().ok()?).ok());
    time.ok_or(Failure::Value { option, value })
}
