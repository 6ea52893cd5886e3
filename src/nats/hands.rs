//! The deliveries that a run has in its hands, and their heartbeats.
//!
//! A heartbeat tells the server that a delivery is being worked on, so that it starts its clock anew. It is due when a
//! third of `ack_wait` has passed since the delivery or the last one; some that are nearly due go with it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::Subject;

use super::job::Delivered;
use crate::cancel::CancellationToken;
use crate::job::Task;
use crate::sync::Arc;

/// Those due within this part of the period go along.
const NEARLY: u32 = 8;

/// One delivery.
pub(super) struct Hand {
    pub(super) delivered: Arc<Delivered>,
    /// Cancelled when the job counts as stuck, and with the run's token.
    pub(super) token: CancellationToken,
    /// The task of the pool; `None`, once there is a verdict.
    pub(super) task: Option<Arc<dyn Task>>,
    /// When the next heartbeat is due.
    beat_at: Instant,
    /// When it counts as stuck; `None`: never, or it does already, or there is a verdict.
    stuck_at: Option<Instant>,
    pub(super) is_stuck: bool,
}

/// All of them.
pub(super) struct Hands {
    held: BTreeMap<u64, Hand>,
    next_number: u64,
    /// Between two heartbeats; `None`: there are none.
    period: Option<Duration>,
    stuck_after: Option<Duration>,
    /// When to look for what is due, at the latest.
    look_at: Option<Instant>,
}

/// What is due.
#[derive(Default)]
pub(super) struct Due {
    /// Whom to send heartbeats to.
    pub(super) beats: Vec<Subject>,
    /// Which have become stuck.
    pub(super) stuck: Vec<u64>,
}

impl Hands {
    pub(super) fn new(period: Option<Duration>, stuck_after: Option<Duration>) -> Self {
        Self { held: BTreeMap::new(), next_number: 0, period, stuck_after, look_at: None }
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The number that the next delivery will have.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    pub(super) fn hold(&mut self, delivered: Arc<Delivered>, token: CancellationToken, task: Option<Arc<dyn Task>>) {
        let now = Instant::now();
        let beat_at = self.period.and_then(|period| now.checked_add(period));
        let stuck_at = self.stuck_after.and_then(|time| now.checked_add(time));
        self.look_at = [self.look_at, beat_at, stuck_at].into_iter().flatten().min();
        let hand = Hand { delivered, token, task, beat_at: beat_at.unwrap_or(now), stuck_at, is_stuck: false };
        self.held.insert(self.next_number, hand);
        self.next_number += 1;
    }

    /// There is a verdict on the delivery: it runs no longer.
    pub(super) fn ended(&mut self, number: u64) -> Option<&Hand> {
        let hand = self.held.get_mut(&number)?;
        (hand.task, hand.stuck_at) = (None, None);
        Some(hand)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Hand> {
        self.held.get(&number)
    }

    pub(super) fn release(&mut self, number: u64) -> Option<Hand> {
        self.held.remove(&number)
    }

    /// The tasks that may not have started.
    pub(super) fn tasks(&self) -> Vec<Arc<dyn Task>> {
        self.held.values().filter_map(|hand| hand.task.clone()).collect()
    }

    /// When to ask [`due`](Self::due) again.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Every heartbeat is due: the server may not have heard of us for a while.
    pub(super) fn hurry(&mut self) {
        let now = Instant::now();
        self.held.values_mut().for_each(|hand| hand.beat_at = now);
        self.look_at = Some(now);
    }

    /// What is due, if it is time to look.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        if self.look_at.is_none_or(|moment| moment > now) {
            return due;
        }
        self.look_at = None;
        for (number, hand) in &mut self.held {
            if hand.stuck_at.is_some_and(|moment| moment <= now) {
                (hand.stuck_at, hand.is_stuck) = (None, true);
                due.stuck.push(*number);
            }
            let mut next = hand.stuck_at;
            if let Some(period) = self.period.filter(|_| !hand.is_stuck) {
                if hand.beat_at <= now + period / NEARLY {
                    due.beats.extend(hand.delivered.message.reply.clone());
                    hand.beat_at = now + period;
                }
                next = next.into_iter().chain([hand.beat_at]).min();
            }
            self.look_at = self.look_at.into_iter().chain(next).min();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    const PERIOD: Duration = Duration::from_secs(8);

    fn hold(hands: &mut Hands) {
        let message = async_nats::Message {
            subject: "jobs".into(),
            reply: Some("reply".into()),
            payload: "".into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        let delivered = Delivered { message, sequence: 1, deliveries: 1, stored_at: SystemTime::now() };
        hands.hold(Arc::new(delivered), CancellationToken::new(), None);
    }

    #[test]
    fn a_heartbeat_is_due_after_each_period_and_none_when_nothing_is_held() {
        let mut hands = Hands::new(Some(PERIOD), None);
        let start = Instant::now();
        hold(&mut hands);
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
        hold(&mut hands);
        hold(&mut hands);
        hands.ended(1);
        let due = hands.due(start + 4 * PERIOD);
        assert_eq!((due.stuck, due.beats.len()), (vec![0], 1));
        let due = hands.due(start + 6 * PERIOD);
        assert_eq!((due.stuck, due.beats.len()), (vec![], 1));
    }
}
