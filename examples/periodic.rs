//! A debounced job, as editors save: each change puts the save off, and it happens when nothing has changed for a while.
//! Beside it a periodic job looks at the pool.

use std::error::Error;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use workcrew::{TimerHandle, WorkerPool};

const QUIET: Duration = Duration::from_millis(60);

/// Saves what was written, once it stays as it is.
struct Document<'a> {
    pool: &'a WorkerPool,
    text: String,
    pending: Option<TimerHandle>,
    saved: Sender<String>,
}

impl Document<'_> {
    fn write(&mut self, word: &str) -> Result<(), Box<dyn Error>> {
        self.text.push_str(word);
        if let Some(timer) = self.pending.take() {
            timer.cancel(); // if it is not too late, the save before this change never happens
        }
        let (text, saved) = (self.text.clone(), self.saved.clone());
        self.pending = Some(self.pool.execute_after(QUIET, move || saved.send(text).expect("the receiver is alive"))?);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = WorkerPool::builder().workers(1).build()?;
    let mut ticks = 0;
    let beat = pool.execute_every(Duration::from_millis(25), move || {
        ticks += 1;
        println!("tick {ticks}");
    })?;

    let (saved, saves) = channel();
    let mut document = Document { pool: &pool, text: String::new(), pending: None, saved };
    for word in ["to ", "be ", "or ", "not "] {
        document.write(word)?;
        thread::sleep(QUIET / 20);
    }
    println!("saved: {:?}", saves.recv()?);
    document.write("to be")?;
    println!("saved: {:?}", saves.recv()?);
    document.write("…")?; // never saved: the pool is closed before it is time
    beat.cancel();
    let report = pool.shutdown_timeout(Duration::from_secs(5));
    println!("{report}");
    assert_eq!((report.tasks_cancelled, saves.try_iter().count()), (1, 0));
    Ok(())
}
