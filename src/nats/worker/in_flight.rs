//! The deliveries that a run has in its hands, and their heartbeats.
//!
//! A heartbeat tells the server that a delivery is being worked on, so that it starts its clock anew. It is due when a
//! third of `ack_wait` has passed since the delivery or the last one; some that are nearly due go with it.
//!
//! | state of a delivery | task | verdict | next |
//! |---|---|---|---|
//! | *looked up*: what the fleet knows of it is read | none | none | *with the pool*; *ended* |
//! | *with the pool*: queued or running | some | none | *ended*; *stuck* |
//! | *ended*: the outcome waits to be told, or is being told | none | some, or none while it is told | gone |
//! | *stuck*: the handler outlasts `stuck_after` | some | as above, and then `told` | gone, when the handler has returned as well |

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::Subject;

use super::job::Delivered;
use super::job_task::{Started, Verdict};
use crate::cancel::token::CancellationToken;
use crate::sync::Arc;
use crate::task::job::Task;

/// Those due within this part of the period go along.
const NEARLY: u32 = 8;

/// One delivery.
pub(crate) struct Hand {
    pub(crate) delivered: Arc<Delivered>,
    /// Cancelled when the job counts as stuck, and with the run's token.
    pub(crate) token: CancellationToken,
    /// The task of the pool, while the handler has not ended.
    pub(crate) task: Option<Arc<dyn Task>>,
    /// When its handler began.
    pub(crate) started: Started,
    /// The outcome that waits to be told.
    pub(crate) verdict: Option<Verdict>,
    /// When the outcome is given up; `None`: there is none yet, or never.
    pub(crate) give_up_at: Option<Instant>,
    /// When the next heartbeat is due.
    beat_at: Instant,
    /// When to look whether it is stuck; `None`: never, or it is already, or there is a verdict.
    stuck_at: Option<Instant>,
    pub(crate) is_stuck: bool,
    /// Of one that is stuck: whether its outcome has been told. It still holds its slot.
    pub(crate) is_told: bool,
    /// Of one that is stuck and told: whether its dead letter is stored.
    pub(crate) is_dead: bool,
    /// Whether what comes before its last word has been done: a return is written down, a letter is stored.
    pub(crate) is_ready: bool,
    /// Whether it holds a slot: it was given to the pool.
    has_slot: bool,
    /// Whether its outcome is with the server, for the first time.
    is_leaving: bool,
}

/// All of them.
pub(crate) struct Hands {
    held: BTreeMap<u64, Hand>,
    next_number: u64,
    /// How many hold a slot.
    slots_taken: usize,
    /// How many are queued in the pool, or run.
    with_pool: usize,
    /// How many are leaving.
    leaving: usize,
    /// Between two heartbeats; `None`: there are none.
    period: Option<Duration>,
    stuck_after: Option<Duration>,
    /// When to look for what is due, at the latest.
    look_at: Option<Instant>,
}

/// What is due.
#[derive(Default)]
pub(crate) struct Due {
    /// Deliveries that a heartbeat is due for.
    pub(crate) beats: Vec<u64>,
    /// Which have become stuck.
    pub(crate) stuck: Vec<u64>,
}

impl Hands {
    pub(crate) fn new(period: Option<Duration>, stuck_after: Option<Duration>) -> Self {
        Self {
            held: BTreeMap::new(),
            next_number: 0,
            slots_taken: 0,
            with_pool: 0,
            leaving: 0,
            period,
            stuck_after,
            look_at: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many hold a slot: they were given to the pool, and their outcome is not confirmed.
    pub(crate) fn slots_taken(&self) -> usize {
        self.slots_taken
    }

    /// How many are queued in the pool, or run.
    pub(crate) fn with_pool(&self) -> usize {
        self.with_pool
    }

    /// How many no next job may be asked for yet: all but those whose outcome is with the server.
    pub(crate) fn staying(&self) -> usize {
        self.held.len() - self.leaving
    }

    /// How many handlers have outlasted `stuck_after` and still run.
    pub(crate) fn stuck(&self) -> usize {
        if self.stuck_after.is_none() {
            return 0;
        }
        self.held.values().filter(|hand| hand.is_stuck).count()
    }

    /// Takes a delivery; returns its number.
    pub(crate) fn hold(&mut self, delivered: Arc<Delivered>, token: CancellationToken) -> u64 {
        let now = Instant::now();
        let beat_at = self.period.and_then(|period| now.checked_add(period));
        self.look_at = self.look_at.into_iter().chain(beat_at).min();
        let hand = Hand {
            delivered,
            token,
            task: None,
            started: Started::default(),
            verdict: None,
            give_up_at: None,
            beat_at: beat_at.unwrap_or(now),
            stuck_at: None,
            is_stuck: false,
            is_told: false,
            is_dead: false,
            is_ready: false,
            has_slot: false,
            is_leaving: false,
        };
        let number = self.next_number;
        self.held.insert(number, hand);
        self.next_number += 1;
        number
    }

    /// The pool has the delivery. Its handler has `stuck_after` from the moment it begins.
    pub(crate) fn begin(&mut self, number: u64, task: Arc<dyn Task>) {
        let Some(hand) = self.held.get_mut(&number) else { return };
        hand.task = Some(task);
        hand.has_slot = true;
        self.slots_taken += 1;
        self.with_pool += 1;
        hand.stuck_at = self.stuck_after.and_then(|time| Instant::now().checked_add(time));
        self.look_at = self.look_at.into_iter().chain(hand.stuck_at).min();
    }

    /// Whether an earlier delivery of the same job is in hand: then it has not ended this process.
    pub(crate) fn has_twin(&self, number: u64) -> bool {
        let Some(hand) = self.held.get(&number) else { return false };
        let (sequence, origin) = (hand.delivered.sequence, hand.delivered.origin);
        let mut others = self.held.iter().filter(|(other, _)| **other != number);
        others.any(|(_, other)| (other.delivered.sequence, other.delivered.origin) == (sequence, origin))
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Hand> {
        self.held.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Hand> {
        self.held.get_mut(&number)
    }

    /// The handler of a delivery has ended, or never began.
    pub(crate) fn ended(&mut self, number: u64) -> Option<&mut Hand> {
        let hand = self.held.get_mut(&number)?;
        self.with_pool -= usize::from(hand.task.take().is_some());
        hand.stuck_at = None;
        Some(hand)
    }

    /// The outcome of a delivery is with the server. Its slot is as good as free, unless its handler still runs.
    pub(crate) fn leave(&mut self, number: u64) {
        if let Some(hand) = self.held.get_mut(&number)
            && !hand.is_stuck
            && !std::mem::replace(&mut hand.is_leaving, true)
        {
            self.leaving += 1;
        }
    }

    /// The server has not taken the outcome of a delivery.
    pub(crate) fn stay(&mut self, number: u64) {
        if let Some(hand) = self.held.get_mut(&number) {
            self.leaving -= usize::from(std::mem::take(&mut hand.is_leaving));
        }
    }

    /// Forgets a delivery; returns whether it held a slot.
    pub(crate) fn release(&mut self, number: u64) -> Option<bool> {
        let hand = self.held.remove(&number)?;
        self.leaving -= usize::from(hand.is_leaving);
        self.with_pool -= usize::from(hand.task.is_some());
        self.slots_taken -= usize::from(hand.has_slot);
        Some(hand.has_slot)
    }

    /// The delivery whose outcome is told, or waits to be told, to this subject.
    pub(crate) fn told_by(&self, subject: &str) -> Option<u64> {
        let is_told =
            |hand: &Hand| hand.give_up_at.is_some() && hand.delivered.message.reply.as_deref() == Some(subject);
        self.held.iter().find(|(_, hand)| is_told(hand)).map(|(number, _)| *number)
    }

    /// The tasks that may not have started.
    pub(crate) fn tasks(&self) -> Vec<Arc<dyn Task>> {
        self.held.values().filter_map(|hand| hand.task.clone()).collect()
    }

    /// The numbers of all.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.held.keys().copied().collect()
    }

    /// When to ask [`due`](Self::due) again.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Every heartbeat is due: the server may not have heard of us for a while.
    pub(crate) fn hurry(&mut self) {
        let now = Instant::now();
        self.held.values_mut().for_each(|hand| hand.beat_at = now);
        self.look_at = Some(now);
    }

    /// What is due, if it is time to look.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        if self.look_at.is_none_or(|moment| moment > now) {
            return due;
        }
        self.look_at = None;
        for (number, hand) in &mut self.held {
            if hand.stuck_at.is_some_and(|moment| moment <= now) {
                // Waiting for a worker of the pool is not being stuck.
                let since = hand.started.get().copied().unwrap_or(now);
                hand.stuck_at = self.stuck_after.and_then(|time| since.checked_add(time));
                if hand.stuck_at.is_some_and(|moment| moment <= now) {
                    (hand.stuck_at, hand.is_stuck) = (None, true);
                    due.stuck.push(*number);
                }
            }
            let mut next = hand.stuck_at;
            if let Some(period) = self.period.filter(|_| !hand.is_stuck) {
                if hand.beat_at <= now + period / NEARLY {
                    due.beats.push(*number);
                    hand.beat_at = now + period;
                }
                next = next.into_iter().chain([hand.beat_at]).min();
            }
            self.look_at = self.look_at.into_iter().chain(next).min();
        }
        due
    }

    /// The subjects by which the server hears of these deliveries.
    pub(crate) fn subjects(&self, numbers: &[u64], is_meant: impl Fn(&Delivered) -> bool) -> Vec<Subject> {
        let meant = numbers.iter().filter_map(|number| self.held.get(number)).filter(|hand| is_meant(&hand.delivered));
        meant.filter_map(|hand| hand.delivered.message.reply.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::worker::incarnation::Origin;
    use crate::nats::worker::server_clock::ServerClock;

    const PERIOD: Duration = Duration::from_secs(8);

    fn hold(hands: &mut Hands) -> u64 {
        let message = async_nats::Message {
            subject: "jobs".into(),
            reply: Some("$JS.ACK.JOBS.worker.1.1.1.1.0".into()),
            payload: "".into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        let origin = Origin { stream: 1, consumer: 1 };
        let delivered = Delivered::read(message, origin, &Arc::new(ServerClock::new())).expect("a job");
        hands.hold(Arc::new(delivered), CancellationToken::new())
    }

    /// A task that a test only holds.
    struct Idle;

    impl Task for Idle {
        fn run(&self, _: &crate::task::executor::Executor) {}

        fn cancel(&self, _: crate::error::CancelReason, _: &crate::task::executor::Executor) -> bool {
            false
        }
    }

    #[test]
    fn a_heartbeat_is_due_after_each_period_and_none_when_nothing_is_held() {
        let mut hands = Hands::new(Some(PERIOD), None);
        let start = Instant::now();
        let _ = hold(&mut hands);
        assert_eq!(hands.due(start).beats.len(), 0);
        let later = start + PERIOD + Duration::from_secs(1);
        assert_eq!(hands.due(later).beats.len(), 1);
        assert_eq!(hands.due(later).beats.len(), 0, "only once");
        assert_eq!(hands.look_at(), Some(later + PERIOD));
        hands.release(0);
        assert_eq!(hands.due(later + PERIOD).beats.len(), 0);
        assert_eq!(hands.look_at(), None, "an idle run does not look at the clock");
    }

    #[test]
    fn a_stuck_job_has_no_more_heartbeats_and_one_with_a_verdict_is_never_stuck() {
        let mut hands = Hands::new(Some(PERIOD), Some(3 * PERIOD));
        let start = Instant::now();
        for number in [hold(&mut hands), hold(&mut hands), hold(&mut hands)] {
            hands.begin(number, Arc::new(Idle));
        }
        let _ = hands.get(0).expect("held").started.set(start);
        let _ = hands.get(1).expect("held").started.set(start);
        hands.ended(1);
        let due = hands.due(start + 4 * PERIOD);
        assert_eq!((due.stuck, due.beats.len()), (vec![0], 2));
        let due = hands.due(start + 6 * PERIOD);
        assert_eq!((due.stuck, due.beats.len()), (vec![], 2), "the third waits for a worker of the pool");
    }
}
