//! A page that shows live what a pool is doing, for the time when a program seems stuck.
//!
//! `cargo run -p workcrew-interop --example status_page -- [ADDRESS]` prints the address of the page
//! and serves it until Ctrl-C. The default is `127.0.0.1:8090`; port 0 takes a free port.
//!
//! | path | content |
//! |---|---|
//! | `/` | the page, which reads the snapshot each second |
//! | `/snapshot.json` | the snapshot of the pool |
//! | `/metrics` | the metrics of the pool and its bus, for Prometheus |
//!
//! The pages are served by a thread of their own, so they also work while all workers are stuck.

#[path = "status_page/server.rs"]
mod server;
#[path = "status_page/work.rs"]
mod work;

use std::process::ExitCode;
use std::sync::mpsc;

use prometheus_client::registry::Registry;
use workcrew::prometheus::Collector;

use server::{Server, Sources};
use work::Work;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8090".to_owned());
    if address.starts_with('-') || arguments.next().is_some() {
        eprintln!("usage: status_page [ADDRESS]");
        return ExitCode::from(2);
    }
    match run(&address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("status_page: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(address: &str) -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind(address).map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let work = Work::start()?;
    let collector = Collector::new();
    collector.add_pool("shop", work.pool());
    collector.add_bus("orders", work.bus());
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));

    // A weak reference: a request never keeps the pool open.
    let pool = work.pool().downgrade();
    let snapshot = move || pool.upgrade().map(|pool| pool.snapshot().to_json());
    let server = server.serve(Sources { registry, snapshot: Box::new(snapshot) });
    println!("http://{}/", server.address());

    let (stop, stopped) = mpsc::channel();
    ctrlc::set_handler(move || stop.send(()).unwrap_or(()))?;
    stopped.recv()?;
    work.stop();
    Ok(())
}
