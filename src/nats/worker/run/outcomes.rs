//! Telling outcomes and heartbeats under a lease: a look at the stream and the consumer that is fresh.
//!
//! | what a look says | deliveries of this stream and consumer | deliveries of another consumer of this stream | deliveries of another stream |
//! |---|---|---|---|
//! | the same as known | outcomes and heartbeats are sent | what has ended is deleted from the stream; all else comes again anyway | dropped, counted as lost, told by an event |
//! | another consumer, or none | wait until the consumer is made anew; in a drain as in the next column | | |
//! | another stream | dropped, counted as lost, told by an event | dropped | dropped |
//! | no stream, no answer | wait for the next look, up to `ack_wait` | wait | dropped |
//!
//! Each look has a number; an answer to a look that was begun before the lease was made void is ignored.

use std::time::{Duration, Instant};

use super::state::{Course, State};
use crate::io;
use crate::nats::event::Event;
use crate::nats::worker::ack::{Route, Settled};
use crate::nats::worker::command::Note;
use crate::nats::worker::incarnation::{self, LEASE, Look, Origin, Sight};
use crate::nats::worker::job_task::Verdict;
use crate::nats::worker::metrics::add;
use crate::sync::Arc;

/// Between two looks of which the first saw nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// Before a look whose reason is that the server knows no such consumer.
const GONE_PAUSE: Duration = Duration::from_millis(20);

impl Course {
    /// There is a verdict of the pool.
    pub(crate) fn settle(&mut self, number: u64, verdict: Verdict) {
        let Some(hand) = self.hands.ended(number) else { return };
        if !hand.is_stuck {
            return self.wait_to_tell(number, verdict);
        }
        // The job was given up while its handler ran, and now the handler has returned.
        let is_done = matches!(verdict, Verdict::Done);
        if hand.is_told && is_done && !hand.is_dead {
            (hand.is_stuck, hand.give_up_at) = (false, None);
            self.wait_to_tell(number, verdict);
        } else if hand.is_told {
            self.release(number);
        } else {
            hand.is_stuck = false;
            if is_done && hand.verdict.is_some() {
                hand.verdict = Some(verdict);
            }
        }
    }

    /// The outcome of a delivery waits to be told.
    pub(crate) fn wait_to_tell(&mut self, number: u64, verdict: Verdict) {
        let give_up_at = Instant::now().checked_add(self.outfit.registrar.ack_wait);
        let Some(hand) = self.hands.get_mut(number) else { return };
        hand.verdict = Some(verdict);
        if hand.give_up_at.is_none() {
            hand.give_up_at = give_up_at;
        }
        self.lease.waiting.push_back(number);
    }

    /// Tells what waits, if the lease allows it, and sees to it that there is one.
    pub(crate) fn tell_outcomes(&mut self) {
        if self.lease.waiting.is_empty() && self.lease.beats.is_empty() {
            return;
        }
        let now = Instant::now();
        self.give_up_late_outcomes(now);
        if !self.outfit.link.is_connected() {
            self.lease.beats.clear(); // all are due when the connection is back
            return;
        }
        let Some(origin) = self.origin.filter(|_| self.lease.is_fresh()) else {
            if self.lease.next_at.is_none_or(|moment| moment <= now) && self.needs_a_look() {
                self.look();
            }
            return;
        };
        self.send_heartbeats(origin);
        for _ in 0..self.lease.waiting.len() {
            let Some(number) = self.lease.waiting.pop_front() else { break };
            let Some(hand) = self.hands.get_mut(number) else { continue };
            let returns = hand.verdict.as_ref().is_some_and(Verdict::is_return);
            if returns && !self.old.is_empty() {
                self.lease.waiting.push_back(number); // rule 3 of the run
                continue;
            }
            let Some(verdict) = hand.verdict.take() else { continue };
            let from = hand.delivered.origin;
            if from.stream != origin.stream {
                self.lose(number);
                continue;
            }
            let is_deserted = from.consumer != origin.consumer || self.lease.is_consumer_gone(origin);
            let route = if is_deserted { Route::Stream } else { Route::Consumer };
            self.tell_outcome(number, verdict, route);
        }
    }

    /// Whether something waits that a look would help on.
    fn needs_a_look(&self) -> bool {
        let helps = |number: &u64| {
            let verdict = self.hands.get(*number).and_then(|hand| hand.verdict.as_ref());
            verdict.is_some_and(|verdict| !verdict.is_return()) || self.old.is_empty()
        };
        self.origin.is_some()
            && self.lease.looking.is_none()
            && !matches!(self.state, State::Preparing | State::Pausing { .. })
            && (!self.lease.beats.is_empty() || self.lease.waiting.iter().any(helps))
    }

    fn tell_outcome(&mut self, number: u64, verdict: Verdict, route: Route) {
        let Some(hand) = self.hands.get(number) else { return };
        let needs_more = match verdict {
            Verdict::Dead { .. } => true,
            Verdict::Return(_) | Verdict::Postpone(_) => !hand.is_ready,
            Verdict::Done | Verdict::Retry(_) | Verdict::Buried => false,
        };
        if route == Route::Consumer && !needs_more {
            return self.send_ack(number, verdict);
        }
        let (delivered, notes) = (Arc::clone(&hand.delivered), self.outfit.notes.0.clone());
        let registrar = Arc::clone(&self.outfit.registrar);
        self.outfit.link.io.spawn(async move {
            let settled = registrar.settle(&delivered, verdict, route).await;
            let _ = notes.send(Note::Settled(number, settled));
        });
    }

    fn send_heartbeats(&mut self, origin: Origin) {
        let numbers = std::mem::take(&mut self.lease.beats);
        let subjects = self.hands.subjects(&numbers, |delivered| delivered.origin == origin);
        if subjects.is_empty() {
            return;
        }
        self.outfit.counters.note_heartbeats(subjects.len());
        let client = self.outfit.link.client.clone();
        let sending = async move {
            for subject in subjects {
                let _ = client.publish(subject, "+WPI".into()).await;
            }
        };
        // After that time the next ones are due.
        let limit = self.outfit.terms.ack_wait / 3;
        self.outfit.link.io.spawn(async move { io::timeout(limit, sending).await.unwrap_or(()) });
    }

    /// Looks at the stream and the consumer.
    pub(crate) fn look(&mut self) {
        let Some(known) = self.origin else { return };
        if self.lease.looking.is_some() {
            return;
        }
        self.lease.looks += 1;
        let number = self.lease.looks;
        self.lease.looking = Some((number, Instant::now()));
        let (link, terms) = (Arc::clone(&self.outfit.link), Arc::clone(&self.outfit.terms));
        let notes = self.outfit.notes.0.clone();
        self.outfit.link.io.spawn(async move {
            let look = incarnation::look(&link, &terms, known).await;
            let _ = notes.send(Note::Looked(number, look));
        });
    }

    pub(crate) fn looked(&mut self, number: u64, look: &Look) {
        if let Some(time) = look.server_time {
            self.clock.learn(time);
        }
        let Some((_, begun_at)) = self.lease.looking.take_if(|(current, _)| *current == number) else { return };
        self.lease.next_at = None;
        if std::mem::take(&mut self.lease.is_for_silence) && matches!(self.state, State::Open(_)) {
            // Whatever the answer, what was asked for is not answered.
            if look.sight == Sight::Silence {
                self.replace_dead_connection();
            }
            return self.fail("nothing is heard of the server".to_owned());
        }
        match look.sight {
            Sight::Same => {
                self.lease.gone = None;
                // However long the answer took, what waits for it can be told.
                let earliest = Instant::now().checked_sub(LEASE / 2);
                self.lease.seen_at = Some(earliest.map_or(begun_at, |moment| moment.max(begun_at)));
                return;
            }
            Sight::OtherConsumer if self.is_open() => return self.lose_consumer(),
            Sight::OtherConsumer => {
                // In a drain no consumer is made. What has ended is deleted from the stream.
                (self.lease.gone, self.lease.seen_at) = (self.origin, Some(begun_at));
                return;
            }
            Sight::OtherStream if self.is_open() => return self.prepare_anew(),
            Sight::OtherStream => self.stream_was_replaced(),
            Sight::NoStream if self.is_open() => self.prepare_anew(),
            Sight::Silence => self.replace_dead_connection(),
            Sight::NoStream | Sight::Unknown(_) => {}
        }
        self.lease.next_at = Instant::now().checked_add(PAUSE);
    }

    fn lose_consumer(&mut self) {
        self.tell(&Event::ConsumerLost { consumer: self.outfit.terms.consumer.clone() });
        self.prepare_anew();
    }

    /// Another stream has the name. Outcomes of the old one are not told there.
    pub(crate) fn stream_was_replaced(&mut self) {
        self.tell(&Event::StreamReplaced { stream: self.outfit.terms.stream.to_string() });
        let now = self.origin.filter(|_| self.is_open());
        for number in self.hands.numbers() {
            let Some(hand) = self.hands.get_mut(number) else { continue };
            let is_old = now.is_none_or(|now| hand.delivered.origin.stream != now.stream);
            if is_old && hand.verdict.take().is_some() {
                self.lose(number);
            }
        }
        if now.is_none() {
            self.origin = None;
        }
    }

    /// What waits for too long is told by an event: the server gives the job to another worker.
    fn give_up_late_outcomes(&mut self, now: Instant) {
        let is_late = |number: &u64| {
            let moment = self.hands.get(*number).and_then(|hand| hand.give_up_at);
            self.origin.is_none() || moment.is_some_and(|moment| moment <= now)
        };
        let late: Vec<_> = self.lease.waiting.iter().copied().filter(is_late).collect();
        if late.is_empty() {
            return;
        }
        self.lease.waiting.retain(|number| !late.contains(number));
        late.into_iter().for_each(|number| self.lose(number));
    }

    pub(crate) fn lose(&mut self, number: u64) {
        if let Some(hand) = self.hands.get(number) {
            let (subject, sequence) = hand.delivered.name();
            self.tell(&Event::OutcomeLost { subject, sequence });
        }
        self.settled(number, Settled::Lost);
    }

    /// An outcome was told, or not.
    pub(crate) fn settled(&mut self, number: u64, settled: Settled) {
        let Some(hand) = self.hands.get_mut(number) else { return };
        let counters = &self.outfit.counters;
        let is_dead = matches!(settled, Settled::Dead);
        match settled {
            Settled::Ready(verdict) => {
                (hand.verdict, hand.is_ready) = (Some(verdict), true);
                return self.lease.waiting.push_back(number);
            }
            Settled::Untold { verdict, is_gone } => {
                hand.verdict = Some(verdict);
                self.hands.stay(number);
                self.lease.waiting.push_back(number);
                if self.lease.seen_at.take().is_some() {
                    let pause = if is_gone { GONE_PAUSE } else { PAUSE };
                    self.lease.next_at = Instant::now().checked_add(pause);
                }
                return;
            }
            Settled::Done => counters.note_done(hand.delivered.since_due()),
            Settled::Retried => add(&counters.retried),
            Settled::Dead => add(&counters.dead),
            Settled::Returned => add(&counters.returned),
            Settled::Postponed => add(&counters.postponed),
            Settled::Lost => add(&counters.lost),
        }
        if hand.is_stuck {
            hand.is_dead = is_dead;
            hand.is_told = true; // its handler still holds the slot
        } else {
            self.release(number);
        }
    }

    fn release(&mut self, number: u64) {
        if let Some(held_slot) = self.hands.release(number) {
            self.outfit.counters.leave(held_slot.into());
            self.solo.note_end(number);
        }
    }

    /// When there is something to do about outcomes, if nothing happens before.
    pub(crate) fn outcomes_due_at(&self) -> Option<Instant> {
        if self.lease.waiting.is_empty() && self.lease.beats.is_empty() {
            return None;
        }
        let late = self.lease.waiting.iter().filter_map(|number| self.hands.get(*number)?.give_up_at).min();
        let next = self.lease.next_at.filter(|_| self.lease.looking.is_none() && self.outfit.link.is_connected());
        late.into_iter().chain(next.filter(|_| self.needs_a_look())).min()
    }
}
