//! A broker's worst day, in one command: workers are killed each second, the server is stopped and killed, its stream
//! and its consumer are deleted, the network delays, swallows and stalls, and four jobs are bad. Every good job must
//! be done, and each bad one must end as a dead letter or as an event that names it.
//!
//! ```sh
//! cargo run -p workcrew-interop --bin nats-drill -- --seed 7
//! cargo run -p workcrew-interop --bin nats-drill -- --seed 7 --cluster   # three servers, leaders are killed
//! cargo run -p workcrew-interop --bin nats-drill -- --slice              # two minutes, for CI
//! ```
//!
//! The program is its own worker process: it starts itself with `work` as the first argument. A worker writes what it
//! has done and heard into a file, a line at a time, so a SIGKILL loses nothing. The seed determines the order of
//! kills and of the network's faults, not the schedule.

mod crew;
mod drill;
mod feed;
mod jobs;
mod journal;
mod network;
mod options;
mod servers;
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
        Ok(options) => drill::run(&options),
        Err(words) => {
            eprintln!("{words}\n{}", options::USAGE);
            ExitCode::from(2)
        }
    }
}
