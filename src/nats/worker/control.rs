//! What can be changed while a worker runs: its slots, and whether it asks for jobs.

use super::command::Command;
use super::metrics::WorkerMetrics;
use crate::io::mpsc;
use crate::sync::Mutex;

/// Where a run hears of changes.
type Run = mpsc::UnboundedSender<Command>;

/// What the clones of a worker and its runs share.
pub(crate) struct Control(Mutex<State>);

struct State {
    /// `None`: as many as the pool has workers.
    slots: Option<usize>,
    is_paused: bool,
    /// Those that go on, and some that have ended.
    runs: Vec<Run>,
}

impl Control {
    pub(crate) fn new(slots: Option<usize>) -> Self {
        Self(Mutex::new(State { slots, is_paused: false, runs: Vec::new() }))
    }

    /// Tells a run of each change from now on; returns the slots that are set. A run of a worker that is paused
    /// hears so first.
    pub(crate) fn join(&self, run: &Run) -> Option<usize> {
        let mut state = self.0.lock();
        state.runs.retain(|other| !other.is_closed());
        state.runs.push(run.clone());
        if state.is_paused {
            let _ = run.send(Command::Pause(true));
        }
        state.slots
    }

    pub(crate) fn slots(&self) -> Option<usize> {
        self.0.lock().slots
    }

    pub(crate) fn set_slots(&self, slots: usize) {
        let mut state = self.0.lock();
        state.slots = Some(slots);
        state.notify(|| Command::Slots(slots));
    }

    pub(crate) fn pause(&self, is_paused: bool) {
        let mut state = self.0.lock();
        if state.is_paused != is_paused {
            state.is_paused = is_paused;
            state.notify(|| Command::Pause(is_paused));
        }
    }

    pub(crate) fn add_to(&self, metrics: &mut WorkerMetrics) {
        metrics.is_paused = self.0.lock().is_paused;
    }
}

impl State {
    /// Tells all runs. It is called under the lock, so that each run hears of all changes in their order.
    fn notify(&mut self, make: impl Fn() -> Command) {
        self.runs.retain(|run| run.send(make()).is_ok());
    }
}
