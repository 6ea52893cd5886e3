//! The state of one run of a worker.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::health::Watch;
use crate::cancel::token::CancellationToken;
use crate::io;
use crate::io::Sleep;
use crate::io::mpsc;
use crate::nats::core::inner::Link;
use crate::nats::error::WorkerError;
use crate::nats::event::Event;
use crate::nats::worker::ack::Registrar;
use crate::nats::worker::command::Note;
use crate::nats::worker::config::Terms;
use crate::nats::worker::credit::Credit;
use crate::nats::worker::in_flight::Hands;
use crate::nats::worker::inbox::Inbox;
use crate::nats::worker::inbox::Prepared;
use crate::nats::worker::incarnation::Origin;
use crate::nats::worker::job_task::Crew;
use crate::nats::worker::job_task::Verdict;
use crate::nats::worker::job_task::Verdicts;
use crate::nats::worker::metrics::Counters;
use crate::nats::worker::run::lease::Lease;
use crate::nats::worker::run::pending_acks::Acks;
use crate::nats::worker::server_clock::ServerClock;
use crate::sync::Arc;
use crate::task::executor::Executor;

/// What a run is given.
pub(crate) struct Outfit {
    pub(crate) link: Arc<Link>,
    pub(crate) terms: Arc<Terms>,
    pub(crate) slots: usize,
    pub(crate) counters: Arc<Counters>,
    pub(crate) registrar: Arc<Registrar>,
    pub(crate) crew: Box<dyn Crew>,
    pub(crate) executor: Arc<Executor>,
    pub(crate) notes: (mpsc::UnboundedSender<Note>, mpsc::UnboundedReceiver<Note>),
}

/// One run.
pub(crate) struct Course {
    pub(crate) outfit: Outfit,
    pub(crate) verdicts: (Verdicts, mpsc::UnboundedReceiver<(u64, Verdict)>),
    pub(crate) hands: Hands,
    pub(crate) credit: Credit,
    /// Deliveries that wait for a slot, the oldest first. A slot is confirmed free soon for each of them.
    pub(crate) line: VecDeque<u64>,
    pub(crate) acks: Acks,
    pub(crate) state: State,
    /// The stream and the consumer that deliveries come from, once there are any.
    pub(crate) origin: Option<Origin>,
    pub(crate) clock: Arc<ServerClock>,
    pub(crate) lease: Lease,
    pub(crate) solo: Solo,
    /// Whether nothing is asked for since a caller wants it so.
    pub(crate) is_paused: bool,
    pub(crate) watch: Watch,
    /// Inboxes that are given up and not yet empty.
    pub(crate) old: Vec<Inbox>,
    /// Counts the tries to prepare; the answer to an earlier one is stale.
    pub(crate) tries: u64,
    /// Failures to prepare since the last success.
    pub(crate) failures: u32,
    /// Whether the connection was lost since the last success.
    pub(crate) was_disconnected: bool,
    /// The parent of all jobs' tokens; cancelled when a drain takes too long.
    pub(crate) token: CancellationToken,
    pub(crate) sleep: Pin<Box<Sleep>>,
    /// When `sleep` ends.
    pub(crate) wakes_at: Instant,
}

/// See the table above.
pub(crate) enum State {
    Preparing,
    Pausing {
        until: Instant,
    },
    Open(Box<Prepared>),
    /// With what went wrong, if that is why.
    Draining {
        /// When the tokens are cancelled; `None`: they are, or never.
        last_call: Option<Instant>,
        until: Option<Instant>,
        error: Option<WorkerError>,
    },
}

impl Course {
    pub(crate) fn new(outfit: Outfit) -> Self {
        let terms = &outfit.terms;
        let hands = Hands::new(terms.heartbeat_period(), terms.stuck_after);
        let credit = Credit::new(outfit.slots);
        outfit.counters.change_slots(0, outfit.slots);
        let now = Instant::now();
        Self {
            verdicts: mpsc::unbounded_channel(),
            hands,
            credit,
            line: VecDeque::new(),
            acks: Acks::default(),
            state: State::Pausing { until: now },
            origin: None,
            clock: Arc::new(ServerClock::new()),
            lease: Lease::default(),
            solo: Solo::None,
            is_paused: false,
            watch: Watch::default(),
            old: Vec::new(),
            tries: 0,
            failures: 0,
            was_disconnected: false,
            token: CancellationToken::new(),
            sleep: Box::pin(io::sleep(Duration::ZERO)),
            wakes_at: now,
            outfit,
        }
    }

    /// Whether jobs may still be begun.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.state, State::Draining { .. })
    }

    pub(crate) fn tell(&self, event: &Event) {
        self.outfit.link.listener.tell(event);
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

    pub(crate) fn due_at(&self) -> Option<Instant> {
        if let Self::Waiting { until, .. } = self { *until } else { None }
    }

    /// A delivery is out of the run's hands.
    pub(crate) fn note_end(&mut self, ended: u64) {
        if let Self::Waiting { number, .. } | Self::Running { number } = self
            && *number == ended
        {
            *self = Self::None;
        }
    }
}
