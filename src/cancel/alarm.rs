//! Wakes futures at points in time, on one thread for the whole process.
//!
//! A thread that waits with a deadline sleeps no longer than that. A future cannot sleep, so it
//! sets an *alarm*. The thread starts with the first alarm. It ends when there has been none for
//! [`LINGER`], so a process that sets no alarm has no such thread.
//!
//! Rules:
//! 1. While there is an alarm, the thread runs. It is started, and decides to end, under the lock
//!    under which alarms are set.
//! 2. The thread only wakes wakers, with no lock held. It cancels no token and calls no callback:
//!    the poll that follows does.
//! 3. Each alarm belongs to a future, and is removed with it. So there are at most as many alarms
//!    as futures that wait.
//!
//! Races, decided by the lock:
//! - *Set and fall asleep*: the thread checks the first alarm under the lock that it sleeps with.
//!   An alarm before the end of its sleep wakes it.
//! - *Remove and sleep*: the thread that removes the last alarm wakes a thread that sleeps until a
//!   distant alarm. So the thread ends in time, however distant that alarm was.
//! - *Set and end*: the thread finds the alarm, or the next alarm starts another thread.
//! - *Fire and remove*: the future is woken, or it is not. Both are without effect on a future that
//!   is gone.
//!
//! The thread is never joined. It ends with the process, and holds nothing that must be dropped. It
//! does not exist in a child process after a `fork` without `exec`, and neither do workers.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use super::waker_cell::WakerCell;
use crate::sync::{self, Arc, Condvar, Mutex, process_wide, thread};
use crate::time::deadline::Deadline;

/// How long the thread waits for a further alarm before it ends.
const LINGER: Duration = Duration::from_secs(1);

process_wide! {
    /// The alarms of the process.
    static ALARMS: Alarms = Alarms { state: Mutex::new(State::new()), changed: Condvar::new() };
}

/// An alarm that is set, or has fired. Removed when dropped.
pub(crate) struct Alarm {
    key: Key,
}

/// The time of an alarm, and a number that distinguishes equal times.
type Key = (Instant, u64);

/// All alarms, and their thread.
struct Alarms {
    state: Mutex<State>,
    /// Notified when the thread would sleep too long.
    changed: Condvar,
}

/// What the lock guards.
struct State {
    /// The alarms that have not fired, the first one first.
    pending: BTreeMap<Key, Arc<WakerCell>>,
    /// The number of the next alarm.
    next: u64,
    /// Whether the thread runs; see rule 1.
    has_thread: bool,
    /// The end of the thread's sleep. `None` while it is awake.
    sleeps_until: Option<Instant>,
}

impl Alarm {
    /// Sets an alarm, which wakes the waker in `cell` at the given time.
    ///
    /// # Errors
    ///
    /// The error of the system, if the thread could not be started. There is no alarm then.
    pub(crate) fn set(at: Instant, cell: Arc<WakerCell>) -> io::Result<Self> {
        Self::set_with(at, cell, start_thread)
    }

    fn set_with(at: Instant, cell: Arc<WakerCell>, start_thread: fn() -> io::Result<()>) -> io::Result<Self> {
        let mut state = ALARMS.state.lock();
        if !state.has_thread {
            if let Err(error) = start_thread() {
                drop(state); // before the cell, which may hold the last reference to a waker
                return Err(error);
            }
            state.has_thread = true;
        }
        let key = (at, state.next);
        state.next += 1;
        state.pending.insert(key, cell);
        let oversleeps = state.sleeps_until.is_some_and(|until| at < until);
        drop(state);
        if oversleeps {
            ALARMS.changed.notify_all();
        }
        Ok(Self { key })
    }

    /// Returns the time of the alarm.
    pub(crate) fn at(&self) -> Instant {
        self.key.0
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut state = ALARMS.state.lock();
        let removed = state.pending.remove(&self.key);
        let oversleeps = state.pending.is_empty() && state.sleeps_until.is_some_and(is_distant);
        drop(state);
        drop(removed); // without the lock: it may hold the last reference to a waker
        if oversleeps {
            ALARMS.changed.notify_all();
        }
    }
}

impl State {
    const fn new() -> Self {
        Self { pending: BTreeMap::new(), next: 0, has_thread: false, sleeps_until: None }
    }
}

impl Alarms {
    /// Fires alarms until there are none. The body of the thread.
    fn run(&self) {
        let mut state = self.state.lock();
        let mut end = Deadline::after(LINGER);
        loop {
            let first = state.pending.first_key_value().map(|(key, _)| key.0);
            match first {
                Some(at) if at <= sync::now() => {
                    let due = state.pending.pop_first();
                    drop(state);
                    due.into_iter().for_each(|(_, cell)| cell.wake());
                    state = self.state.lock();
                }
                None if end.is_past() => {
                    state.has_thread = false;
                    return;
                }
                _ => {
                    state.sleeps_until = first.or(end.instant());
                    let until = state.sleeps_until;
                    state = self.changed.wait_until(state, until);
                    state.sleeps_until = None;
                }
            }
            if first.is_some() {
                end = Deadline::after(LINGER);
            }
        }
    }
}

/// Returns `true` if the thread would end before this time if there were no alarm.
fn is_distant(at: Instant) -> bool {
    Deadline::at(at) > Deadline::after(LINGER)
}

/// Starts the thread.
fn start_thread() -> io::Result<()> {
    let thread = thread::Builder::new().name("workcrew-alarm".to_owned()).spawn(|| ALARMS.run())?;
    drop(thread); // detached
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn has_thread() -> bool {
        ALARMS.state.lock().has_thread
    }

    fn cell() -> Arc<WakerCell> {
        Arc::new(WakerCell::new(Waker::noop()))
    }

    /// Faults 335, 460.
    #[test]
    fn the_thread_ends_without_alarms_and_a_refused_thread_leaves_no_alarm() {
        let year = Duration::from_secs(365 * 24 * 3_600);
        let alarm = Alarm::set(sync::now() + year, cell()).expect("a thread");
        assert!(has_thread());
        while ALARMS.state.lock().sleeps_until.is_none_or(|until| until < alarm.at()) {
            thread::yield_now(); // until it sleeps for a year
        }
        drop(alarm);
        while has_thread() {
            thread::yield_now(); // as long as it lingers
        }
        let refused = Alarm::set_with(sync::now() + year, cell(), || Err(io::ErrorKind::WouldBlock.into()));
        assert!(refused.is_err() && !has_thread() && ALARMS.state.lock().pending.is_empty());
        drop(Alarm::set(sync::now(), cell()).expect("another thread"));
        assert!(has_thread());
    }
}
