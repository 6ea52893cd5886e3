//! The data of one run of a worker.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::health::Health;
use super::lease::Lease;
use super::pending_acks::PendingAcks;
use crate::cancel::token::CancellationToken;
use crate::io::{self, Sleep, mpsc};
use crate::nats::core::inner::ConnectionInner;
use crate::nats::error::WorkerError;
use crate::nats::event::Event;
use crate::nats::worker::ack_preparer::AckPreparer;
use crate::nats::worker::command::Command;
use crate::nats::worker::config::{BatchLimits, ConsumerConfig};
use crate::nats::worker::credit::Credit;
use crate::nats::worker::in_flight::InFlight;
use crate::nats::worker::inbox::{Inbox, Prepared};
use crate::nats::worker::incarnation::Origin;
use crate::nats::worker::job_task::{Dispatcher, Disposition, DispositionSender};
use crate::nats::worker::key_queues::KeyQueues;
use crate::nats::worker::metrics::Counters;
use crate::nats::worker::order::Order;
use crate::nats::worker::rate_turns::{RateTurns, SharedRate};
use crate::nats::worker::server_clock::ServerClock;
use crate::sync::Arc;
use crate::task::executor::Executor;

/// What a run works with.
pub(crate) struct RunContext {
    pub(crate) connection: Arc<ConnectionInner>,
    pub(crate) config: Arc<ConsumerConfig>,
    pub(crate) slots: usize,
    pub(crate) counters: Arc<Counters>,
    pub(crate) preparer: Arc<AckPreparer>,
    pub(crate) dispatcher: Box<dyn Dispatcher>,
    pub(crate) executor: Arc<Executor>,
    /// The limits of batches, in a run of batches.
    pub(crate) batch: Option<BatchLimits>,
    /// The order of the worker, if it has one.
    pub(crate) order: Option<Arc<Order>>,
    /// The rate of the worker, if it has one.
    pub(crate) rate: Option<Arc<SharedRate>>,
    pub(crate) commands: (mpsc::UnboundedSender<Command>, mpsc::UnboundedReceiver<Command>),
}

/// The data of one run.
pub(crate) struct WorkerRun {
    pub(crate) context: RunContext,
    pub(crate) dispositions: (DispositionSender, mpsc::UnboundedReceiver<(u64, Disposition)>),
    pub(crate) in_flight: InFlight,
    pub(crate) credit: Credit,
    /// Deliveries that wait for a slot, the oldest first. A slot is confirmed free soon for each.
    pub(crate) pending: VecDeque<u64>,
    /// The jobs by their keys, if the worker has an order.
    pub(crate) key_queues: KeyQueues,
    /// The earliest time of the next request beyond the look-ahead.
    pub(crate) probe_at: Option<Instant>,
    pub(crate) acks: PendingAcks,
    pub(crate) state: State,
    /// The stream and the consumer of current deliveries, once they are known.
    pub(crate) origin: Option<Origin>,
    /// Whether jobs that are older than the consumer may have a history.
    pub(crate) has_history: bool,
    /// How often the connection or the consumer was lost. The server may have returned with an
    /// older state of the stream.
    pub(crate) doubts: u64,
    pub(crate) clock: Arc<ServerClock>,
    /// The turns of the rate that this run has reserved.
    pub(crate) turns: Option<RateTurns>,
    pub(crate) lease: Lease,
    pub(crate) solo: Solo,
    /// Whether the user paused the worker: no jobs are requested.
    pub(crate) is_paused: bool,
    pub(crate) health: Health,
    /// Inboxes that are being closed and may still receive messages.
    pub(crate) closing: Vec<Inbox>,
    /// The number of attempts to prepare; the result of an earlier one is stale.
    pub(crate) prepare_count: u64,
    /// The number of failures to prepare since the last success.
    pub(crate) failures: u32,
    /// Whether the connection was lost since the last success.
    pub(crate) was_disconnected: bool,
    /// Whether a report about the end of the pool has left a task behind.
    pub(crate) is_left_behind: bool,
    /// The parent of all jobs' tokens; cancelled when a drain takes too long.
    pub(crate) token: CancellationToken,
    /// When what the last step has decided by the clock must be decided again: whether there is a
    /// turn, a batch to start, or a job to request. The step itself sets it, so that no time passes
    /// between the decision and the timer.
    pub(crate) look_again_at: Option<Instant>,
    pub(crate) sleep: Pin<Box<Sleep>>,
    /// The deadline of `sleep`.
    pub(crate) wakes_at: Instant,
}

/// The phase of a run. See the table in `run`.
pub(crate) enum State {
    Preparing,
    Pausing {
        until: Instant,
    },
    Open(Box<Prepared>),
    /// The run is ending, with the error that ended it, if there is one.
    Draining {
        /// When the tokens are cancelled; `None` if they have been, or never are.
        last_call: Option<Instant>,
        until: Option<Instant>,
        error: Option<WorkerError>,
    },
}

impl WorkerRun {
    pub(crate) fn new(context: RunContext) -> Self {
        let config = &context.config;
        let in_flight = InFlight::new(config.heartbeat_period(), config.stuck_after);
        let credit = Credit::new(context.slots);
        context.counters.change_slots(0, context.slots);
        let now = Instant::now();
        Self {
            dispositions: mpsc::unbounded_channel(),
            in_flight,
            credit,
            pending: VecDeque::new(),
            key_queues: KeyQueues::default(),
            probe_at: None,
            acks: PendingAcks::default(),
            state: State::Pausing { until: now },
            origin: None,
            has_history: false,
            doubts: 0,
            clock: Arc::new(ServerClock::new()),
            turns: context.rate.clone().map(RateTurns::new),
            lease: Lease::default(),
            solo: Solo::None,
            is_paused: false,
            health: Health::default(),
            closing: Vec::new(),
            prepare_count: 0,
            failures: 0,
            was_disconnected: false,
            is_left_behind: false,
            token: CancellationToken::new(),
            look_again_at: None,
            sleep: Box::pin(io::sleep(Duration::ZERO)),
            wakes_at: now,
            context,
        }
    }

    /// Returns `true` if jobs may still be started.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.state, State::Draining { .. })
    }

    /// Has the next step happen at this moment, or earlier.
    pub(crate) fn look_again(&mut self, at: Option<Instant>) {
        self.look_again_at = self.look_again_at.into_iter().chain(at).min();
    }

    pub(crate) fn emit(&self, event: &Event) {
        self.context.connection.callback.call(event);
    }
}

/// The job that runs alone, if there is one. See the table in `solo`.
pub(crate) enum Solo {
    None,
    Waiting { number: u64, until: Option<Instant> },
    Running { number: u64 },
}

impl Solo {
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        if let Self::Waiting { until, .. } = self { *until } else { None }
    }

    /// Notes that a delivery is no longer in flight.
    pub(crate) fn note_end(&mut self, ended: u64) {
        if let Self::Waiting { number, .. } | Self::Running { number } = self
            && *number == ended
        {
            *self = Self::None;
        }
    }
}
