//! What is to be done when: things in the order in which they fall due, each of which can be struck out.
//!
//! Two things that are due at the same moment come in the order in which they were put down. The agenda reads no clock:
//! whoever asks says what time it is. It knows nothing of threads and tasks. Putting down, striking out and taking out
//! take logarithmic time, and memory for what is in it now.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// When something is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// At this moment.
    At(Instant),
    /// Later than any moment the clock can hold.
    Never,
}

/// The place of one thing in the agenda.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    due: Due,
    /// Tells those apart that are due at the same moment; never used twice.
    number: u64,
}

/// Things to be done.
pub(crate) struct Agenda<T> {
    things: BTreeMap<Place, T>,
    /// The next number to give out.
    next_number: u64,
}

impl Due {
    /// So long after `now`; never, if the clock cannot hold that moment.
    pub(crate) fn after(now: Instant, delay: Duration) -> Self {
        now.checked_add(delay).map_or(Self::Never, Self::At)
    }

    /// The moment itself; `None` means never.
    pub(crate) fn instant(self) -> Option<Instant> {
        match self {
            Self::At(instant) => Some(instant),
            Self::Never => None,
        }
    }
}

impl Place {
    /// When the thing is due.
    pub(crate) fn due(self) -> Due {
        self.due
    }
}

impl<T> Agenda<T> {
    pub(crate) fn new() -> Self {
        Self { things: BTreeMap::new(), next_number: 0 }
    }

    /// Puts a thing down.
    pub(crate) fn put(&mut self, due: Due, thing: T) -> Place {
        let place = Place { due, number: self.next_number };
        self.next_number += 1;
        self.things.insert(place, thing);
        place
    }

    /// Strikes a thing out, if it is there still.
    pub(crate) fn strike_out(&mut self, place: Place) -> Option<T> {
        self.things.remove(&place)
    }

    /// Takes out the first thing that is due at `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<T> {
        let first = self.things.first_entry()?;
        (first.key().due <= Due::At(now)).then(|| first.remove())
    }

    /// Takes out everything, the first due first.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        std::mem::take(&mut self.things).into_values().collect()
    }

    /// When the first thing is due; `None` if there is none.
    pub(crate) fn first_due(&self) -> Option<Due> {
        self.things.first_key_value().map(|(place, _)| place.due)
    }

    pub(crate) fn len(&self) -> usize {
        self.things.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn things_come_out_when_they_are_due_in_due_order_and_ties_in_order_of_arrival() {
        // FAULTS 126
        let now = Instant::now();
        let mut agenda = Agenda::new();
        for (seconds, name) in [(3, "c"), (1, "a"), (u64::MAX, "never"), (1, "b"), (1_000_000_000, "far")] {
            agenda.put(Due::after(now, Duration::from_secs(seconds)), name);
        }
        assert_eq!(agenda.take_due(now), None);
        let at = |agenda: &mut Agenda<_>, seconds| agenda.take_due(now + SECOND * seconds);
        assert_eq!((at(&mut agenda, 1), at(&mut agenda, 1), at(&mut agenda, 1)), (Some("a"), Some("b"), None));
        assert_eq!(agenda.first_due(), Some(Due::At(now + 3 * SECOND)));
        assert_eq!((at(&mut agenda, 4), at(&mut agenda, 4)), (Some("c"), None));
        assert_eq!(agenda.len(), 2);
    }

    #[test]
    fn a_delay_beyond_the_clock_is_never_due_and_none_is_due_at_once() {
        // FAULTS 125
        let now = Instant::now();
        let delays = [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(u64::MAX), Duration::MAX];
        assert_eq!(delays.map(|delay| Due::after(now, delay) <= Due::At(now)), [true, false, false, false]);
        assert_eq!(delays.map(|delay| Due::after(now, delay) == Due::Never), [false, false, true, true]);
        let mut agenda = Agenda::new();
        let _ = delays.map(|delay| agenda.put(Due::after(now, delay), delay));
        let century = Duration::from_secs(3_155_760_000);
        assert_eq!(std::iter::from_fn(|| agenda.take_due(now + century)).count(), 2);
        assert_eq!((agenda.len(), agenda.first_due()), (2, Some(Due::Never)));
    }

    #[test]
    fn what_is_struck_out_is_gone_at_once_and_only_once() {
        let now = Instant::now();
        let mut agenda = Agenda::new();
        let places: Vec<_> = (0..1_000).map(|n| agenda.put(Due::after(now, SECOND * (n % 7)), n)).collect();
        assert_eq!(places.iter().filter_map(|place| agenda.strike_out(*place)).sum::<u32>(), 499_500);
        assert!(places.iter().all(|place| agenda.strike_out(*place).is_none()));
        assert_eq!((agenda.len(), agenda.first_due()), (0, None));
    }
}
