//! What the command line asks for.

use std::time::Duration;

pub(crate) const USAGE: &str = "usage: nats-drill [--seed N] [--jobs N] [--seconds N] [--cluster] [--slice]";

/// One drill.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Determines the kills and the faults of the network.
    pub(crate) seed: u64,
    /// How many good jobs.
    pub(crate) jobs: usize,
    /// The drill fails when it takes longer.
    pub(crate) limit: Duration,
    /// Three servers instead of one.
    pub(crate) cluster: bool,
}

/// Reads the options.
///
/// # Errors
///
/// The text to print, if an option is unknown or lacks its number.
pub(crate) fn read(words: &[&str]) -> Result<Options, String> {
    let seed = fastrand::u64(..1_000_000);
    let mut options = Options { seed, jobs: 20_000, limit: Duration::from_secs(600), cluster: false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|value| value.parse::<u64>().ok());
            value.ok_or_else(|| format!("{word} needs a number"))
        };
        match *word {
            "--seed" => options.seed = number()?,
            "--jobs" => options.jobs = number()? as usize,
            "--seconds" => options.limit = Duration::from_secs(number()?),
            "--cluster" => options.cluster = true,
            "--slice" => (options.jobs, options.limit) = (8_000, Duration::from_secs(120)),
            _ => return Err(format!("there is no option {word}")),
        }
    }
    Ok(options)
}
