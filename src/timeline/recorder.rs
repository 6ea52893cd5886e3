//! The recorder: an observer that keeps the latest spans of each worker.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::time::Instant;

use super::spans::{Span, Track};
use super::{svg, trace};
use crate::observe::observer::Observer;
use crate::observe::task_info::{TaskInfo, TaskOutcome};
use crate::pool::current_worker::current_worker;
use crate::sync::{Arc, Mutex, RwLock};

/// A recorder of what each worker of a pool ran.
///
/// Clones share what is recorded, so one clone is the observer, and another one exports. Give each
/// pool a timeline of its own, and call [`timing`](crate::WorkerPoolBuilder::timing): without it a
/// span has no length.
///
/// Each task that ends adds one span to its worker, and so does each failed attempt of a task that
/// is retried. A worker keeps its latest spans, up to the limit of [`new`](Self::new). Tasks that
/// did not run on a worker share one more row: futures, tasks that their submitter has run, and
/// tasks that were cancelled. A span takes about 100 bytes, and recording one takes a lock that
/// only an export contends for.
///
/// # Examples
///
/// ```
/// use workcrew::WorkerPool;
/// use workcrew::timeline::Timeline;
///
/// let timeline = Timeline::new(10_000);
/// let pool = WorkerPool::builder().workers(2).timing(true).observer(timeline.clone()).build()?;
/// let group = pool.group::<()>();
/// for _ in 0..8 {
///     group.spawn(|| ());
/// }
/// group.wait()?;
///
/// assert_eq!(timeline.len(), 8);
/// let mut json = Vec::new();
/// timeline.write_trace(&mut json)?; // opens in ui.perfetto.dev
/// assert!(json.starts_with(b"{"));
/// assert!(timeline.to_svg().starts_with("<svg"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Timeline {
    inner: Arc<TimelineInner>,
}

struct TimelineInner {
    /// How many spans each row keeps.
    limit: usize,
    /// Times are relative to this moment.
    epoch: Instant,
    /// The row of other threads, and one row for each worker.
    rows: RwLock<Vec<Arc<Row>>>,
}

/// The spans of one worker, or of all other threads, the oldest first.
#[derive(Default)]
struct Row(Mutex<State>);

#[derive(Default)]
struct State {
    spans: VecDeque<Span>,
    /// How many spans were discarded to make room.
    discarded: u64,
}

impl Timeline {
    /// Creates a timeline that keeps the latest `spans` spans of each worker, at least one.
    #[must_use]
    pub fn new(spans: usize) -> Self {
        let inner = TimelineInner { limit: spans.max(1), epoch: Instant::now(), rows: RwLock::new(Vec::new()) };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the number of recorded spans.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.rows().iter().map(|row| row.0.lock().spans.len()).sum()
    }

    /// Returns `true` if no span is recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many spans were discarded to make room for later ones.
    #[must_use]
    pub fn discarded(&self) -> u64 {
        self.inner.rows().iter().map(|row| row.0.lock().discarded).sum()
    }

    /// Forgets all spans.
    pub fn clear(&self) {
        for row in self.inner.rows() {
            let old = std::mem::take(&mut *row.0.lock());
            drop(old); // without a lock
        }
    }

    /// Writes all spans as JSON, in the trace event format that Perfetto and Chromium open.
    ///
    /// Each worker is a thread of the trace. A span has the task's label, or its place of
    /// submission, as its name. A counter shows how many of the recorded tasks were queued at each
    /// time. Recording goes on meanwhile; the spans are copied first.
    ///
    /// # Errors
    ///
    /// The error of the writer.
    pub fn write_trace(&self, to: impl Write) -> io::Result<()> {
        trace::write(&self.tracks(), to)
    }

    /// Returns a picture of all spans, as an SVG of 960 by about 24 pixels for each worker.
    ///
    /// Its colours suit light and dark pages. Of a row with more than 500 spans it joins
    /// neighbours that lie in the same pixel.
    #[must_use]
    pub fn to_svg(&self) -> String {
        svg::draw(&self.tracks())
    }

    /// Returns a copy of what is recorded, the workers first.
    fn tracks(&self) -> Vec<Track> {
        let rows = self.inner.rows();
        let copy = |(index, row): (usize, &Arc<Row>)| {
            let mut spans: Vec<_> = row.0.lock().spans.iter().cloned().collect();
            spans.sort_by_key(|span| span.start);
            Track { worker: index.checked_sub(1), spans }
        };
        let mut tracks: Vec<_> = rows.iter().enumerate().map(copy).collect();
        if !tracks.is_empty() {
            tracks.rotate_left(1);
        }
        tracks.retain(|track| track.worker.is_some() || !track.spans.is_empty());
        tracks
    }

    fn record(&self, task: &TaskInfo<'_>, outcome: Option<TaskOutcome>) {
        let started_at = task.started_at().unwrap_or_else(Instant::now);
        let span = Span {
            id: task.id(),
            label: task.origin.label.cloned(),
            location: task.location(),
            start: started_at.saturating_duration_since(self.inner.epoch),
            run_time: task.run_time().unwrap_or_default(),
            queue_wait: task.queue_wait().unwrap_or_default(),
            outcome,
        };
        // A cancelled task did not run, on whichever thread it was cancelled.
        let ran = task.run_time().is_some() || !matches!(outcome, Some(TaskOutcome::Cancelled(_)));
        let worker = current_worker().filter(|_| ran).map(|worker| worker.index());
        let row = self.inner.row(worker.map_or(0, |index| index + 1));
        let oldest = row.0.lock().add(span, self.inner.limit);
        drop(oldest); // without the lock
    }
}

impl TimelineInner {
    /// Returns the rows, so that the caller looks at each without the lock of the list.
    fn rows(&self) -> Vec<Arc<Row>> {
        self.rows.read().clone()
    }

    /// Returns a row. Creates it if it does not exist.
    fn row(&self, index: usize) -> Arc<Row> {
        if let Some(row) = self.rows.read().get(index) {
            return Arc::clone(row);
        }
        let mut rows = self.rows.write();
        let missing = (index + 1).saturating_sub(rows.len());
        rows.extend((0..missing).map(|_| Arc::default()));
        Arc::clone(&rows[index])
    }
}

impl State {
    /// Adds a span. Returns the one that it displaces.
    fn add(&mut self, span: Span, limit: usize) -> Option<Span> {
        let oldest = if self.spans.len() >= limit { self.spans.pop_front() } else { None };
        self.discarded += u64::from(oldest.is_some());
        self.spans.push_back(span);
        oldest
    }
}

impl Observer for Timeline {
    fn attempt_failed(&self, task: &TaskInfo<'_>) {
        self.record(task, None);
    }

    fn task_ended(&self, task: &TaskInfo<'_>, outcome: TaskOutcome) {
        self.record(task, Some(outcome));
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Timeline");
        shown.field("spans", &self.len()).field("discarded", &self.discarded()).finish()
    }
}
