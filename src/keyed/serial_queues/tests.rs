//! The turns of keys beside a model that is a list of lists.

use std::collections::VecDeque;

use super::*;

#[derive(Default)]
struct Known {
    is_busy: bool,
    is_kept: bool,
}

impl KeyState for Known {
    fn is_busy(&self) -> bool {
        self.is_busy
    }

    fn is_kept(&self) -> bool {
        self.is_kept
    }
}

/// A key as the model sees it.
#[derive(Default)]
struct Model {
    items: VecDeque<u32>,
    has_entry: bool,
    is_busy: bool,
    is_kept: bool,
}

/// Fault 643.
#[test]
fn keys_take_turns_in_the_order_in_which_they_became_ready_whatever_happens_to_them() {
    let mut random = fastrand::Rng::with_seed(5);
    // Every second key has the hash of the one before.
    let names: Vec<_> = (0..8).map(|key| KeyName::new(key / 2, key)).collect();
    let mut turns: SerialQueues<u64, u32, Known> = SerialQueues::new();
    let mut models: Vec<Model> = names.iter().map(|_| Model::default()).collect();
    let mut ready: Vec<usize> = Vec::new();
    for item in 0..20_000 {
        let key = random.usize(..names.len());
        let (id, model) = (names[key].id(), &mut models[key]);
        match random.u8(..8) {
            0..=2 => {
                turns.push_back(&names[key], item);
                model.items.push_back(item);
                model.has_entry = true;
            }
            3 => {
                let pushed = turns.push_front(id, item);
                assert_eq!(pushed, if model.has_entry { Ok(()) } else { Err(item) });
                if model.has_entry {
                    model.items.push_front(item);
                }
            }
            4 => {
                let first = turns.first();
                assert_eq!(first, ready.first().map(|key| names[*key].id()));
                let next = if random.bool() { first } else { Some(id) };
                let Some(next) = next else { continue };
                let taken = turns.take(next).map(|(queue, item)| {
                    queue.state.is_busy = true;
                    item
                });
                let key = names.iter().position(|name| name.id() == next).expect("it is one of the keys");
                let is_ready = ready.contains(&key);
                assert_eq!(taken, if is_ready { models[key].items.pop_front() } else { None });
                models[key].is_busy |= is_ready;
                ready.retain(|other| *other != key);
            }
            5 => {
                assert_eq!(turns.remove_first(id), model.items.pop_front());
                if model.items.is_empty() {
                    ready.retain(|other| *other != key);
                }
            }
            6 => {
                let state = turns.get_mut(id).map(|queue| &mut queue.state);
                assert_eq!(state.is_some(), model.has_entry);
                if let Some(state) = state {
                    (state.is_busy, state.is_kept) = (false, !model.is_kept);
                    (model.is_busy, model.is_kept) = (false, !model.is_kept);
                }
                let ends = model.has_entry && model.items.is_empty() && !model.is_kept;
                assert_eq!(turns.settle(id).is_some(), ends);
                if ends {
                    *model = Model::default();
                }
            }
            _ => {
                assert_eq!(turns.get(id).map(KeyQueue::len), model.has_entry.then_some(model.items.len()));
                assert_eq!(turns.get(id).is_some_and(KeyQueue::is_ready), ready.contains(&key));
            }
        }
        let model = &models[key];
        if model.has_entry && !model.items.is_empty() && !model.is_busy && !ready.contains(&key) {
            ready.push(key);
        }
        assert_lens(&turns, &models, ready.len());
    }
    assert_all_are_taken(&mut turns, &models);
}

fn assert_lens(turns: &SerialQueues<u64, u32, Known>, models: &[Model], ready: usize) {
    let entries = models.iter().filter(|model| model.has_entry).count();
    let items = models.iter().map(|model| model.items.len()).sum();
    assert_eq!((turns.keys(), turns.queued(), turns.ready()), (entries, items, ready));
}

fn assert_all_are_taken(turns: &mut SerialQueues<u64, u32, Known>, models: &[Model]) {
    let kept = models.iter().filter(|model| model.is_kept).count();
    let taken = turns.take_items(|state| state.is_kept);
    let items = |key: u64| models[usize::try_from(key).expect("a small number")].items.iter().copied();
    for (name, left, state) in taken {
        assert!(left.into_iter().eq(items(name.key)));
        assert_eq!(state.is_some(), turns.get(name.id()).is_none());
    }
    assert_eq!((turns.keys(), turns.queued(), turns.ready(), turns.first()), (kept, 0, 0, None));
}
