//! Hashes all files below a folder, and writes what each worker did: `timeline.svg` and `timeline.json`.
//!
//! `cargo run --release --features timeline --example timeline -- FOLDER`. The JSON opens in
//! <https://ui.perfetto.dev>.

use std::error::Error;
use std::fs::{self, File};
use std::io::BufWriter;

use sha2::{Digest, Sha256};
use workcrew::WorkerPool;
use workcrew::timeline::Timeline;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let timeline = Timeline::new(100_000);
    let pool = WorkerPool::builder().timing(true).observer(timeline.clone()).build()?;

    let files = walkdir::WalkDir::new(&folder).into_iter().filter_map(Result::ok);
    let group = pool.group::<std::io::Result<()>>();
    for file in files.filter(|file| file.file_type().is_file()) {
        group.spawn(move || {
            let digest = Sha256::digest(fs::read(file.path())?);
            std::hint::black_box(digest);
            Ok(())
        });
    }
    println!("{} files hashed", group.wait()?.len());

    fs::write("timeline.svg", timeline.to_svg())?;
    timeline.write_trace(BufWriter::new(File::create("timeline.json")?))?;
    println!("{} spans in timeline.svg and timeline.json", timeline.len());
    Ok(())
}
