//! How a worker chooses between the classes.
//!
//! A worker takes `High` first, then `Normal`, then `Background`. It counts the turns that it has
//! given to others since the last turn of `Normal`, and since that of `Background`. At a limit the
//! worker looks at that class first. The count starts again when the class gets its turn, or is due
//! and has no item.
//!
//! So the oldest item of a class waits for at most this many turns of other classes on each worker:
//!
//! | class | turns | reached when |
//! |---|---|---|
//! | `High` | [`MAX_BEFORE_HIGH`] | both other classes are due at the same time |
//! | `Normal` | [`MAX_BEFORE_NORMAL`] | `High` always has items |
//! | `Background` | [`MAX_BEFORE_BACKGROUND`] | `Normal` is due at the same time, and goes first |
//!
//! `Background` may be *held*: it has items, and no worker may take them now. Then it stays due.

use crate::priority::Priority;

/// How many turns of other classes an item of `High` waits for. Documented, and pinned by tests.
#[cfg(test)]
const MAX_BEFORE_HIGH: usize = 2;
/// The same for `Normal`.
const MAX_BEFORE_NORMAL: usize = 8;
/// The same for `Background`.
const MAX_BEFORE_BACKGROUND: usize = 32;

/// Picks the class of the next item of one worker.
#[derive(Debug, Default)]
pub(super) struct ClassPicker {
    /// The turns of other classes since the last turn of `Normal`, or since it was due and empty.
    since_normal: usize,
    /// The turns of other classes since the last turn of `Background`, or since it was due and
    /// empty.
    since_background: usize,
}

/// What a class has for a worker.
pub(super) enum Popped<T> {
    Item(T),
    /// The class has no items.
    Empty,
    /// The class has items that this worker may not take.
    Held,
}

impl ClassPicker {
    /// Takes the next item by `pop`, if a class has one. Returns it with its class.
    pub(super) fn take<T>(&mut self, mut pop: impl FnMut(Priority) -> Popped<T>) -> Option<(Priority, T)> {
        if self.since_normal >= MAX_BEFORE_NORMAL {
            match pop(Priority::Normal) {
                Popped::Item(item) => return Some(self.count(Priority::Normal, item)),
                Popped::Empty | Popped::Held => self.since_normal = 0,
            }
        }
        // One less, because `Normal` may have been due at the same time.
        if self.since_background >= MAX_BEFORE_BACKGROUND - 1 {
            match pop(Priority::Background) {
                Popped::Item(item) => return Some(self.count(Priority::Background, item)),
                Popped::Empty => self.since_background = 0,
                Popped::Held => {}
            }
        }
        [Priority::High, Priority::Normal, Priority::Background].into_iter().find_map(|class| match pop(class) {
            Popped::Item(item) => Some(self.count(class, item)),
            Popped::Empty | Popped::Held => None,
        })
    }

    /// Counts a turn of a class.
    fn count<T>(&mut self, class: Priority, item: T) -> (Priority, T) {
        self.since_normal = if class == Priority::Normal { 0 } else { self.since_normal.saturating_add(1) };
        self.since_background = if class == Priority::Background { 0 } else { self.since_background.saturating_add(1) };
        (class, item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{Background, High, Normal};

    /// Returns the classes of the next turns while the classes of `waiting` always have items.
    fn order(picker: &mut ClassPicker, waiting: &[Priority], count: usize) -> Vec<Priority> {
        let pop = |class| if waiting.contains(&class) { Popped::Item(()) } else { Popped::Empty };
        (0..count).map_while(|_| picker.take(pop)).map(|(class, ())| class).collect()
    }

    /// Returns the largest number of turns between two of `class`, and before the first.
    fn longest_wait(order: &[Priority], class: Priority) -> usize {
        let waits = order.split(|taken| *taken == class).map(<[Priority]>::len);
        waits.max().unwrap_or(0)
    }

    #[test]
    fn each_class_gets_its_turn_after_exactly_the_stated_number_of_others() {
        let all = order(&mut ClassPicker::default(), &[High, Normal, Background], 10_000);
        assert_eq!(longest_wait(&all, High), MAX_BEFORE_HIGH);
        assert_eq!(longest_wait(&all, Normal), MAX_BEFORE_NORMAL);
        assert_eq!(longest_wait(&all, Background), MAX_BEFORE_BACKGROUND);
        let two = order(&mut ClassPicker::default(), &[Normal, Background], 10_000);
        assert_eq!(longest_wait(&two, Background), MAX_BEFORE_BACKGROUND - 1);
        assert_eq!(longest_wait(&two, Normal), 1);
    }

    #[test]
    fn a_class_that_arrives_late_waits_no_longer_and_does_not_save_turns_up() {
        let mut picker = ClassPicker::default();
        for before in 0..100 {
            assert_eq!(order(&mut picker, &[High], before), vec![High; before]);
            let both = order(&mut picker, &[High, Normal], 20);
            assert!(longest_wait(&both, Normal) <= MAX_BEFORE_NORMAL, "{before}: {both:?}");
            assert!(longest_wait(&both, High) <= 1, "{before}: {both:?}");
        }
    }

    #[test]
    fn a_class_that_is_held_stays_due() {
        let mut picker = ClassPicker::default();
        let held = |class| if class == High { Popped::Item(()) } else { Popped::Held };
        (0..200).for_each(|_| assert_eq!(picker.take(held), Some((High, ()))));
        assert_eq!(order(&mut picker, &[High, Background], 2), [Background, High]);
    }
}
