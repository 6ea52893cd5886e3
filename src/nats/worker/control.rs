//! The settings that can change while a worker runs: its slots, and whether it is paused.

use super::command::Command;
use super::metrics::WorkerMetrics;
use crate::io::mpsc;
use crate::sync::Mutex;

/// The channel to a run.
type Run = mpsc::UnboundedSender<Command>;

/// The changeable settings, shared by the clones of a worker and its runs.
pub(crate) struct Control(Mutex<State>);

struct State {
    /// `None`: as many as the pool has workers.
    slots: Option<usize>,
    /// Whether runs request no jobs.
    is_paused: bool,
    /// The current runs, and some that have ended.
    runs: Vec<Run>,
}

impl Control {
    pub(crate) fn new(slots: Option<usize>) -> Self {
        Self(Mutex::new(State { slots, is_paused: false, runs: Vec::new() }))
    }

    /// Adds a run, which is sent each change from now on. Returns the slots that are set. A run of
    /// a paused worker is first told to pause.
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

    /// Sends a command to all runs, if there are several.
    pub(crate) fn notify_runs(&self, make: impl Fn() -> Command) {
        let mut state = self.0.lock();
        if state.runs.len() > 1 {
            state.notify(make);
        }
    }

    pub(crate) fn add_to(&self, metrics: &mut WorkerMetrics) {
        metrics.is_paused = self.0.lock().is_paused;
    }
}

impl State {
    /// Sends a command to all runs. Called under the lock, so that each run receives all changes in
    /// their order.
    fn notify(&mut self, make: impl Fn() -> Command) {
        self.runs.retain(|run| run.send(make()).is_ok());
    }
}
