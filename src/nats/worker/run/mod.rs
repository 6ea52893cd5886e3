//! The course of one run of a worker: one future on the I/O thread that asks for jobs, hands them out, and tells outcomes.
//!
//! | state | what it waits for | next |
//! |---|---|---|
//! | *preparing* | the consumer and an inbox | *open*; *pausing* |
//! | *pausing* | a moment, or the connection | *preparing* |
//! | *open* | jobs | *preparing*, when the consumer, the connection or the server's heartbeat is lost; *draining* |
//! | *draining* | those who run, and what is on its way here | *ended*, at the deadline at the latest |
//!
//! Rules:
//! 1. A delivery is in the run's hands from its arrival until the server has confirmed its outcome. It holds a slot from
//!    the moment it is given to the pool.
//! 2. What is asked for and what is in hand never exceed the slots, but for deliveries whose outcome is with the server:
//!    the next job is asked for as its acknowledgement is sent, and waits in the *line* until a slot is confirmed free.
//!    Should more arrive all the same (what was asked for was thought lost), it goes back.
//! 3. An inbox that is given up is closed: what the server had sent by then is taken, or goes back. Nothing is given
//!    back before the server has closed it, or it would come again by that inbox.
//! 4. Outcomes and heartbeats are sent under a lease (see `incarnation`), which `outcomes` takes.
//! 5. A job that has come often without an outcome runs alone (see `solo`).
//! 6. A verdict comes from the thread that claims the task (see `attempt`), once. Everything else happens on this one future,
//!    so it needs no lock.

pub(crate) mod state;
mod pending_acks;
mod lease;
mod health;
mod acks;
mod consumer;
mod jobs;
mod outcomes;
mod resize;
mod solo;
mod watch;

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Instant;

use super::config::RunReport;
use super::inbox::Inbox;
use super::job_task::Verdict;
use super::metrics::add;
use crate::error::CancelReason;
use crate::nats::core::dispatch::News;
use crate::nats::error::WorkerError;
use crate::nats::event::Event;
use crate::nats::worker::command::Note;
use crate::nats::worker::run::state::Course;
use crate::nats::worker::run::state::State;

/// What happens next.
enum Step {
    Note(Note),
    Verdict(u64, Verdict),
    Arrival(async_nats::Message),
    /// An answer to an acknowledgement.
    Reply(async_nats::Message),
    /// Something is due.
    Time,
}

impl Course {
    pub(crate) async fn run(mut self) -> Result<RunReport, WorkerError> {
        loop {
            if let Some(ended) = self.is_over() {
                self.token.cancel_with(CancelReason::Requested);
                self.outfit.counters.leave(self.hands.slots_taken());
                self.outfit.counters.change_slots(self.credit.slots(), 0);
                return ended;
            }
            match poll_fn(|context| self.poll_step(context)).await {
                Step::Note(note) => self.hear(note),
                Step::Verdict(number, verdict) => self.settle(number, verdict),
                Step::Arrival(message) => self.receive(message),
                Step::Reply(message) => self.hear_reply(&message),
                Step::Time => self.look_at_the_clock(),
            }
            self.go_on_alone();
            self.begin_next();
            self.tell_outcomes();
            self.ask();
        }
    }

    /// What the run comes to, if it has ended.
    fn is_over(&mut self) -> Option<Result<RunReport, WorkerError>> {
        let State::Draining { until, error, .. } = &mut self.state else { return None };
        let is_empty = self.hands.is_empty() && self.old.is_empty();
        if !is_empty && until.is_none_or(|moment| Instant::now() < moment) {
            return None;
        }
        let report = RunReport { drained: is_empty, jobs_left: self.hands.len() };
        Some(error.take().map_or(Ok(report), Err))
    }

    /// Verdicts and answers come first, since they make room; then what is heard, what arrives, and the clock.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if let Poll::Ready(Some((number, verdict))) = self.verdicts.1.poll_recv(context) {
            return Poll::Ready(Step::Verdict(number, verdict));
        }
        if let Poll::Ready(message) = self.acks.poll_reply(context) {
            return Poll::Ready(Step::Reply(message));
        }
        if let Poll::Ready(Some(note)) = self.outfit.notes.1.poll_recv(context) {
            return Poll::Ready(Step::Note(note));
        }
        if let State::Open(prepared) = &mut self.state {
            match prepared.inbox.poll_next(context) {
                Poll::Ready(Some(message)) => return Poll::Ready(Step::Arrival(message)),
                Poll::Ready(None) => {
                    self.prepare_anew();
                    return Poll::Ready(Step::Time);
                }
                Poll::Pending => {}
            }
        }
        let now = Instant::now();
        self.poll_old(context, now).map_or_else(|| self.poll_clock(context, now), Poll::Ready)
    }

    /// What still comes by inboxes that are given up; the end of one is a step too.
    fn poll_old(&mut self, context: &mut Context<'_>, now: Instant) -> Option<Step> {
        for place in 0..self.old.len() {
            match self.old[place].poll_next(context) {
                Poll::Ready(Some(message)) => return Some(Step::Arrival(message)),
                Poll::Pending if !self.old[place].is_overdue(now) => {}
                Poll::Ready(None) | Poll::Pending => {
                    self.old.swap_remove(place);
                    // A look that is begun now ends after the server has closed the inbox.
                    self.lease.void();
                    return Some(Step::Time);
                }
            }
        }
        None
    }

    fn poll_clock(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<Step> {
        let Some(due) = self.due_at() else { return Poll::Pending };
        if due <= now {
            return Poll::Ready(Step::Time);
        }
        // It is set anew only to ring earlier: what is due changes with each job.
        if due < self.wakes_at || self.wakes_at <= now {
            self.wakes_at = due;
            self.sleep.as_mut().reset(due.into());
        }
        self.sleep.as_mut().poll(context).map(|()| Step::Time)
    }

    /// When there is something to do, if nothing happens before.
    fn due_at(&self) -> Option<Instant> {
        let of_state = match &self.state {
            State::Pausing { until } => Some(*until),
            State::Open(prepared) if self.credit.is_asking() => Some(prepared.inbox.silent_at()),
            State::Draining { last_call, until, .. } => last_call.or(*until),
            State::Preparing | State::Open(_) => None,
        };
        let overdue = self.old.iter().filter_map(Inbox::overdue_at);
        let (hands, acks) = (self.hands.look_at(), self.acks.due_at());
        let own = [hands, acks, self.outcomes_due_at(), self.solo.due_at(), self.watch.due_at()];
        overdue.chain(of_state).chain(own.into_iter().flatten()).min()
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        match &mut self.state {
            State::Pausing { until } if *until <= now => self.prepare(),
            State::Open(prepared) if prepared.inbox.silent_at() <= now && (self.credit.is_asking()) => {
                self.look_for_the_server();
            }
            State::Draining { last_call, .. } if last_call.is_some_and(|moment| moment <= now) => {
                *last_call = None;
                self.token.cancel_with(CancelReason::Requested);
            }
            _ => {}
        }
        if self.watch.is_unheard(now) && self.was_disconnected && matches!(self.state, State::Open(_)) {
            self.fail("nothing is heard of the server".to_owned());
        }
        self.look_for_late_replies(now);
        let due = self.hands.due(now);
        for number in due.stuck {
            self.give_up_on(number);
        }
        self.lease.beats.extend(due.beats);
        self.look_for_leftovers(now);
        self.solo_is_late(now);
    }

    /// A job has run for too long: that was an attempt, and it failed.
    fn give_up_on(&mut self, number: u64) {
        let Some(hand) = self.hands.get_mut(number) else { return };
        hand.token.cancel();
        add(&self.outfit.counters.stuck);
        let (subject, sequence) = hand.delivered.name();
        let verdict = self.outfit.crew.give_up_on(&hand.delivered);
        self.wait_to_tell(number, verdict);
        self.tell(&Event::JobStuck { subject, sequence });
        if self.is_full_of_stuck() {
            // What waits for a worker here could run elsewhere.
            self.return_queued();
            if matches!(self.state, State::Open(_)) {
                self.prepare_anew();
            }
        }
    }

    /// Whether no worker of the pool is left for another job.
    fn is_full_of_stuck(&self) -> bool {
        let stuck = self.hands.stuck();
        stuck > 0 && stuck >= self.outfit.crew.workers()
    }

    fn hear(&mut self, note: Note) {
        match note {
            Note::Settled(number, settled) => self.settled(number, settled),
            Note::Unsent(number) => self.unsent(number),
            Note::News(News::Disconnected) => {
                self.watch.note_disconnected(self.credit.is_asking());
                self.was_disconnected = true;
                self.lease.void();
                self.credit.forget();
            }
            Note::News(News::Denied(denial)) => self.denied(&denial),
            Note::News(News::Connected) => {
                self.hands.hurry();
                self.lease.void();
                self.outfit.registrar.history.forget_silence();
                let stale = matches!(self.state, State::Open(_) | State::Preparing) && self.was_disconnected;
                if stale || matches!(self.state, State::Pausing { .. }) {
                    self.prepare_anew();
                }
            }
            Note::Prepared(number, prepared) if number == self.tries => self.prepared(prepared),
            Note::Prepared(..) => {}
            Note::Looked(number, look) => self.looked(number, &look),
            Note::Known(number, record) => self.decide(number, record),
            Note::Swept => self.watch.is_sweeping = false,
            Note::DetachedOutput(found) => self.found_leftovers(found),
            Note::Slots(slots) => self.set_slots(slots),
            Note::Pause(is_paused) => self.pause(is_paused),
            Note::Drain => self.drain(None),
        }
    }
}
