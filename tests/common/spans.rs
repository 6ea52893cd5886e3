//! A subscriber of `tracing` that keeps every span and event, for tests.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

thread_local! {
    static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    /// Whether spans of workcrew are disabled on this thread.
    pub static IS_FILTERED: Cell<bool> = const { Cell::new(false) };
}

/// A span or an event.
#[derive(Clone)]
pub struct Seen {
    metadata: &'static Metadata<'static>,
    pub parent: Option<u64>,
    pub fields: BTreeMap<&'static str, String>,
    references: usize,
}

impl Seen {
    pub fn name(&self) -> &'static str {
        self.metadata.name()
    }

    pub fn target(&self) -> &'static str {
        self.metadata.target()
    }

    pub fn is_span(&self) -> bool {
        self.metadata.is_span()
    }

    pub fn is_open(&self) -> bool {
        self.references > 0
    }

    /// The value of a field; `-` if it was not recorded.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("-", String::as_str)
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        write!(text, "{value:?}").unwrap();
        self.fields.insert(field.name(), text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// Everything that was seen; an id is a position, counted from one.
#[derive(Default)]
pub struct Spans(Mutex<Vec<Seen>>);

/// Returns the subscriber of this process, which the first call sets.
pub fn spans() -> &'static Spans {
    static SPANS: LazyLock<Arc<Spans>> = LazyLock::new(|| {
        let spans = Arc::new(Spans::default());
        set_global_default(Arc::clone(&spans)).unwrap();
        spans
    });
    &SPANS
}

impl Spans {
    pub fn get(&self, id: u64) -> Seen {
        self.0.lock().unwrap()[id as usize - 1].clone()
    }

    /// Returns everything with its id.
    pub fn all(&self) -> Vec<(u64, Seen)> {
        (1..).zip(self.0.lock().unwrap().iter().cloned()).collect()
    }

    /// Returns the first event with this message. The message must be unique.
    pub fn event(&self, message: &str) -> Seen {
        self.events(message).into_iter().next().expect("the event was emitted")
    }

    pub fn events(&self, message: &str) -> Vec<Seen> {
        let seen = self.0.lock().unwrap();
        seen.iter().filter(|seen| seen.field("message") == message).cloned().collect()
    }

    /// Returns the spans around something, the innermost first.
    pub fn ancestors(&self, of: &Seen) -> Vec<Seen> {
        std::iter::successors(of.parent.map(|id| self.get(id)), |seen| seen.parent.map(|id| self.get(id))).collect()
    }

    /// Returns what is directly below a span.
    pub fn children(&self, of: u64) -> Vec<Seen> {
        self.0.lock().unwrap().iter().filter(|seen| seen.parent == Some(of)).cloned().collect()
    }

    fn add(&self, seen: Seen) -> u64 {
        let mut all = self.0.lock().unwrap();
        all.push(seen);
        all.len() as u64
    }
}

fn current() -> Option<u64> {
    STACK.with_borrow(|stack| stack.last().copied())
}

impl Subscriber for Spans {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    /// Disables what other crates emit.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match metadata.target() {
            "workcrew" => !IS_FILTERED.get(),
            "task_spans" | "trace" => true,
            _ => false,
        }
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let parent = if span.is_contextual() { current() } else { span.parent().map(Id::into_u64) };
        let mut seen = Seen { metadata: span.metadata(), parent, fields: BTreeMap::new(), references: 1 };
        span.record(&mut seen);
        Id::from_u64(self.add(seen))
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        values.record(&mut self.0.lock().unwrap()[span.into_u64() as usize - 1]);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut seen = Seen { metadata: event.metadata(), parent: current(), fields: BTreeMap::new(), references: 0 };
        event.record(&mut seen);
        self.add(seen);
    }

    fn enter(&self, span: &Id) {
        assert!(self.get(span.into_u64()).is_open(), "a closed span is entered");
        STACK.with_borrow_mut(|stack| stack.push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        let top = STACK.with_borrow_mut(Vec::pop);
        assert_eq!(top, Some(span.into_u64()), "spans are left in the order in which they were entered");
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.0.lock().unwrap()[span.into_u64() as usize - 1].references += 1;
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let seen = &mut self.0.lock().unwrap()[span.into_u64() as usize - 1];
        seen.references -= 1;
        seen.references == 0
    }

    fn current_span(&self) -> Current {
        match current() {
            Some(id) => Current::new(Id::from_u64(id), self.get(id).metadata),
            None => Current::none(),
        }
    }
}
