//! A broker's worst day, in one command.
//!
//! One of three worker processes is killed each second. Servers are stopped and killed, the stream
//! and the consumer are deleted, the network delays, swallows, stalls and cuts, and four jobs are
//! bad. Every good job must be done, each bad one must end as a dead letter or as an event that
//! names it, and each run that was one too many must follow from something that the drill did.
//!
//! ```sh
//! cargo run -p workcrew-interop --bin nats-drill -- --seed 7
//! cargo run -p workcrew-interop --bin nats-drill -- --seed 7 --cluster      # leaders are killed
//! cargo run -p workcrew-interop --bin nats-drill -- --seed 7 --sync-always  # servers from 2.10 on
//! cargo run -p workcrew-interop --bin nats-drill -- --slice                 # at most two minutes, for CI
//! ```
//!
//! The program is its own worker process: it starts itself with `work` as the first argument. A
//! worker appends a line to a file for each job that it has done and each event that it has heard,
//! so a SIGKILL loses nothing. The seed determines the order of kills, of faults of the network and
//! of calls. It does not determine the schedule.
//!
//! - [`plan`] lists the deeds, [`evils`] performs them.
//! - [`crew`] kills worker processes, [`network`] holds the proxies, [`storms`] chooses their
//!   faults.
//! - [`record`] reads the journals of the workers, [`store`] lists the jobs that a server has
//!   stored.
//! - [`calls`] times each call through the crate, and ends a drill that hangs.
//! - [`repeats`] finds the cause of each further run of a job, [`checks`] holds the rules for the
//!   end, [`report`] prints it.

mod calls;
mod checks;
mod crew;
mod day;
mod drill;
mod evils;
mod feed;
mod jobs;
mod network;
mod options;
mod plan;
mod process;
mod record;
mod repeats;
mod report;
mod servers;
mod store;
mod storms;
mod visitor;
mod worker;

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["work", urls, journal] = words[..] {
        return worker::run(urls, journal);
    }
    match options::read(&words) {
        Ok(options) => day::run(&options),
        Err(words) => {
            eprintln!("{words}\n{}", options::USAGE);
            ExitCode::from(2)
        }
    }
}
