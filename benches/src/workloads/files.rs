//! A mix of system calls and computation, as in real uses of pools.
//!
//! The limit is a static split, as for the jobs that compute.

use std::env;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process;

use sha2::{Digest, Sha256};

use super::batches::Batch;
use crate::candidate::{Scale, Workload};
use crate::pools::Pools;

const FILES: usize = 20_000;
const FILES_IN_A_DIRECTORY: usize = 200;
/// The sizes of the files lie between these.
const BYTES: [usize; 2] = [512, 1536];

pub(super) fn checksums(pools: &'static Pools, scale: Scale) -> Workload {
    let files = scale.of(FILES);
    let tree = Tree::write(files);
    let paths = tree.paths;
    let batch = Batch { jobs: files, producers: 1, make_job: move |number: usize| move || hash(&paths[number]) };
    let mut candidates = batch.candidates(pools);
    let mut split = batch.static_split(pools);
    // Dropping the candidates removes the files.
    split.run = Box::new({
        let mut run = split.run;
        move || {
            let _lives = &tree;
            run()
        }
    });
    candidates.push(split);
    Workload {
        question: "How long does the SHA-256 of a small file take, for 20,000 files of about 1 KiB?",
        candidates,
    }
}

/// Files in a temporary directory. Dropping it removes them.
struct Tree {
    root: PathBuf,
    /// Made before the run, so that jobs allocate no paths. Never freed, so that jobs can refer to
    /// them.
    paths: &'static [PathBuf],
}

impl Tree {
    fn write(files: usize) -> Self {
        let root = env::temp_dir().join(format!("workcrew-bench-{}", process::id()));
        let path = |number: usize| root.join((number / FILES_IN_A_DIRECTORY).to_string()).join(number.to_string());
        let paths: &[PathBuf] = Vec::leak((0..files).map(path).collect::<Vec<_>>());
        for (number, path) in paths.iter().enumerate() {
            let directory = path.parent().expect("each file is in a directory");
            let [least, most] = BYTES;
            let contents = vec![number as u8; least + number * 37 % (most - least)];
            fs::create_dir_all(directory).expect("the directory for temporary files can be written to");
            fs::write(path, contents).expect("the directory for temporary files can be written to");
        }
        Self { root, paths }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            eprintln!("{} is left behind: {error}", self.root.display());
        }
    }
}

fn hash(path: &Path) {
    let contents = fs::read(path).expect("the file was written");
    black_box(Sha256::digest(contents));
}
