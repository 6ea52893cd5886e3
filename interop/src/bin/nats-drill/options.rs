//! The options of the command line.

use std::env;
use std::fmt;
use std::time::Duration;

pub(crate) const USAGE: &str = "usage: nats-drill [--seed N] [--jobs N] [--seconds N] [--cluster] [--sync-always] [--slice] [--keep]\n\
     NATS_SERVER_BIN names the server; otherwise it is nats-server on the path.";

/// The settings of a drill. Displayed as the command that runs it again.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Determines the kills, the faults of the network and the calls.
    pub(crate) seed: u64,
    /// How many good jobs.
    pub(crate) jobs: usize,
    /// The drill fails when all of it takes longer.
    pub(crate) limit: Duration,
    /// Three servers instead of one.
    pub(crate) cluster: bool,
    /// Servers write everything to disk before they confirm it (`sync_interval: always`).
    pub(crate) sync_always: bool,
    /// Journals and logs stay even if the drill passes.
    pub(crate) keep: bool,
    /// The program of the server.
    pub(crate) server: String,
}

/// Reads the options.
///
/// # Errors
///
/// The text to print, if an option is unknown or lacks its number.
pub(crate) fn read(words: &[&str]) -> Result<Options, String> {
    let mut options = Options {
        seed: fastrand::u64(..1_000_000),
        jobs: 20_000,
        limit: Duration::from_secs(600),
        cluster: false,
        sync_always: false,
        keep: false,
        server: env::var("NATS_SERVER_BIN").unwrap_or_else(|_| "nats-server".to_owned()),
    };
    let (mut words, mut is_slice) = (words.iter(), false);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|value| value.parse::<u64>().ok());
            value.ok_or_else(|| format!("{word} needs a number"))
        };
        match *word {
            "--seed" => options.seed = number()?,
            "--jobs" => options.jobs = usize::try_from(number()?).map_err(|error| error.to_string())?,
            "--seconds" => options.limit = Duration::from_secs(number()?),
            "--cluster" => options.cluster = true,
            "--sync-always" => options.sync_always = true,
            "--keep" => options.keep = true,
            "--slice" => is_slice = true,
            _ => return Err(format!("there is no option {word}")),
        }
    }
    if is_slice {
        options.jobs = if options.cluster { 1_500 } else { 6_000 };
        options.limit = Duration::from_secs(120);
    }
    Ok(options)
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, jobs, limit, server, .. } = self;
        let seconds = limit.as_secs();
        write!(f, "NATS_SERVER_BIN={server} cargo run -p workcrew-interop --bin nats-drill -- ")?;
        write!(f, "--seed {seed} --jobs {jobs} --seconds {seconds}")?;
        f.write_str(if self.cluster { " --cluster" } else { "" })?;
        f.write_str(if self.sync_always { " --sync-always" } else { "" })
    }
}
