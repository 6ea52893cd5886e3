//! Writes a snapshot as JSON. The numbers are those of Rust; a time is in seconds.

use std::fmt::Write;
use std::time::Duration;

use super::entries::{Page, QueueSnapshot, TaskSnapshot, TimerSnapshot, WaitSnapshot, WorkerSnapshot};
use super::holders::{GroupSnapshot, KeyedSnapshot, SubscriptionSnapshot};
use super::in_flight::{DriverKind, DriverSnapshot, FutureSnapshot, JobWorkerSnapshot};
use super::report::Snapshot;
use super::verdict::Verdict;
use crate::error::{CycleTask, CycleWait};

/// The version of the format.
const VERSION: u64 = 1;

impl Snapshot {
    /// Returns the snapshot as one JSON object, with `"version": 1`.
    ///
    /// The names are those of the fields. Times are seconds. A task has `id`, `label`, `location`
    /// and `age_s`. A page has its `total` and its `entries`. Later versions of the crate may add
    /// names; a name that changes its meaning comes with another version.
    #[must_use]
    pub fn to_json(&self) -> String {
        write(self)
    }
}

fn write(snapshot: &Snapshot) -> String {
    let mut json = Json { text: String::new(), is_first: true };
    json.object(|json| {
        json.name("version").number(VERSION);
        json.name("pool").string(&snapshot.pool);
        json.name("is_shut_down").boolean(snapshot.is_shut_down);
        json.name("tasks_queued").number(snapshot.tasks_queued);
        json.name("tasks_running").number(snapshot.tasks_running);
        json.name("verdicts").array(&snapshot.verdicts, verdict);
        json.name("workers").array(&snapshot.workers, worker);
        json.name("queues").array(&snapshot.queues, queue);
        json.name("waits").page(&snapshot.waits, wait);
        json.name("groups").page(&snapshot.groups, group);
        json.name("keyed").page(&snapshot.keyed, keyed);
        json.name("subscriptions").page(&snapshot.subscriptions, subscription);
        json.name("drivers").page(&snapshot.drivers, driver);
        json.name("job_workers").page(&snapshot.job_workers, job_worker);
        json.name("timers").page(&snapshot.timers, timer);
    });
    json.text
}

fn verdict(json: &mut Json, verdict: &Verdict) {
    json.name("kind").string(verdict.kind.name());
    json.name("is_suspected").boolean(verdict.is_suspected);
    json.name("age_s").time(Some(verdict.age));
    json.name("message").string(&verdict.message);
}

fn worker(json: &mut Json, worker: &WorkerSnapshot) {
    json.name("index").count(worker.index);
    json.name("task").optional(worker.task.as_ref(), task);
    json.name("wait").optional(worker.wait.as_ref(), wait);
}

fn task(json: &mut Json, task: &TaskSnapshot) {
    json.name("id").number(task.id.0);
    json.name("label").text(task.label.as_deref());
    json.name("location").string(&task.location.to_string());
    json.name("age_s").time(task.age);
}

fn wait(json: &mut Json, wait: &WaitSnapshot) {
    json.name("thread").text(wait.thread.as_deref());
    json.name("task").optional(wait.task.as_ref(), cycle_task);
    json.name("target").string(&wait.target.to_string());
    json.name("target_task").optional(wait.target.task.as_ref(), cycle_task);
    json.name("then").array(&wait.then, next_wait);
    json.name("runs_on").optional_number(wait.runs_on);
    json.name("is_cycle").boolean(wait.is_cycle);
    json.name("is_suspected").boolean(wait.is_suspected);
    json.name("needs_place").boolean(wait.needs_place);
    json.name("is_timed").boolean(wait.is_timed);
    json.name("age_s").time(Some(wait.age));
    json.name("why").string(&format!("{} {wait}", wait.waiter()));
}

fn next_wait(json: &mut Json, wait: &CycleWait) {
    json.name("task").optional(wait.task.as_ref(), cycle_task);
    json.name("target").string(&wait.target.to_string());
    json.name("target_task").optional(wait.target.task.as_ref(), cycle_task);
}

fn cycle_task(json: &mut Json, task: &CycleTask) {
    json.name("id").number(task.id.0);
    json.name("label").text(task.label.as_deref());
    json.name("location").string(&task.location.to_string());
    json.name("pool").string(&task.pool);
}

fn queue(json: &mut Json, queue: &QueueSnapshot) {
    json.name("priority").string(queue.name());
    json.name("len").count(queue.len);
    json.name("capacity").count(queue.capacity);
    json.name("tickets").count(queue.tickets);
    json.name("submitters").count(queue.submitters);
}

fn group(json: &mut Json, group: &GroupSnapshot) {
    json.name("label").text(group.label.as_deref());
    json.name("limit").optional_number(group.limit);
    json.name("running").count(group.running);
    json.name("waiting").count(group.waiting);
    json.name("capacity").count(group.capacity);
    json.name("delayed").count(group.delayed);
    json.name("submitters").count(group.submitters);
    json.name("is_closed").boolean(group.is_closed);
    json.name("oldest").optional(group.oldest.as_ref(), task);
    json.name("why").text(group.reason().as_deref());
}

fn keyed(json: &mut Json, keyed: &KeyedSnapshot) {
    json.name("label").text(keyed.label.as_deref());
    json.name("waiting").count(keyed.waiting);
    json.name("capacity").count(keyed.capacity);
    json.name("capacity_per_key").count(keyed.capacity_per_key);
    json.name("keys").count(keyed.keys);
    json.name("ready").count(keyed.ready);
    json.name("delayed").count(keyed.delayed);
    json.name("submitters").count(keyed.submitters);
    json.name("running").page(&keyed.running, |json, key| {
        json.name("label").text(key.label.as_deref());
        json.name("task").number(key.task.0);
        json.name("waiting").count(key.waiting);
    });
    json.name("why").text(keyed.reason().as_deref());
}

fn subscription(json: &mut Json, subscription: &SubscriptionSnapshot) {
    json.name("name").string(&subscription.name);
    json.name("topic").text(subscription.topic.as_deref());
    json.name("event").string(subscription.event);
    json.name("waiting").count(subscription.waiting);
    json.name("delayed").count(subscription.delayed);
    json.name("capacity").count(subscription.capacity);
    json.name("limit").optional_number(subscription.limit);
    json.name("running").count(subscription.running);
    json.name("publishers").count(subscription.publishers);
    json.name("is_closed").boolean(subscription.is_closed);
    json.name("why").text(subscription.reason().as_deref());
}

fn driver(json: &mut Json, driver: &DriverSnapshot) {
    json.name("label").text(driver.label.as_deref());
    json.name("kind").string(match driver.kind {
        DriverKind::Futures => "futures",
        DriverKind::Calls => "calls",
    });
    json.name("in_flight").count(driver.in_flight);
    json.name("max_in_flight").count(driver.max_in_flight);
    json.name("waiting").count(driver.waiting);
    json.name("outputs").count(driver.outputs);
    json.name("futures").page(&driver.futures, |json, future: &FutureSnapshot| {
        json.name("task").optional(Some(&future.task), task);
        json.name("is_driven").boolean(future.is_driven);
        json.name("waits").array(&future.waits, wait);
        json.name("why").string(&driver.reason(future));
    });
}

fn job_worker(json: &mut Json, worker: &JobWorkerSnapshot) {
    json.name("name").string(&worker.name);
    json.name("stream").string(&worker.stream);
    json.name("slots").count(worker.slots);
    json.name("in_flight").count(worker.in_flight);
    json.name("pending").number(worker.pending);
    json.name("is_paused").boolean(worker.is_paused);
    json.name("why").text(worker.reason().as_deref());
}

fn timer(json: &mut Json, timer: &TimerSnapshot) {
    json.name("kind").string(timer.kind.name());
    json.name("task").optional_number(timer.task.and_then(|task| usize::try_from(task.0).ok()));
    json.name("label").text(timer.label.as_deref());
    json.name("location").text(timer.location.map(ToString::to_string).as_deref());
    json.name("due_in_s").time(timer.due_in);
}

/// A text that grows by values.
struct Json {
    text: String,
    /// Whether the next name or item is the first of its object or array.
    is_first: bool,
}

impl Json {
    fn object(&mut self, fill: impl FnOnce(&mut Self)) {
        self.within('{', '}', fill);
    }

    fn array<T>(&mut self, items: &[T], fill: impl Fn(&mut Self, &T)) {
        self.within('[', ']', |json| {
            for item in items {
                json.separate();
                json.object(|json| fill(json, item));
            }
        });
    }

    fn page<T>(&mut self, page: &Page<T>, fill: impl Fn(&mut Self, &T)) {
        self.object(|json| {
            json.name("total").count(page.total);
            json.name("entries").array(&page.entries, fill);
        });
    }

    fn optional<T>(&mut self, value: Option<&T>, fill: impl FnOnce(&mut Self, &T)) {
        match value {
            Some(value) => self.object(|json| fill(json, value)),
            None => self.null(),
        }
    }

    fn within(&mut self, open: char, close: char, fill: impl FnOnce(&mut Self)) {
        self.text.push(open);
        self.is_first = true;
        fill(self);
        self.is_first = false;
        self.text.push(close);
    }

    fn separate(&mut self) {
        if !self.is_first {
            self.text.push(',');
        }
        self.is_first = false;
    }

    fn name(&mut self, name: &str) -> &mut Self {
        self.separate();
        self.string(name);
        self.text.push(':');
        self
    }

    fn text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None => self.null(),
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.text.extend(['\\', c]),
                '\n' => self.text.push_str("\\n"),
                c if c.is_control() => self.write_fmt(format_args!("\\u{:04x}", u32::from(c))),
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }

    fn count(&mut self, count: usize) {
        self.write_fmt(format_args!("{count}"));
    }

    fn optional_number(&mut self, count: Option<usize>) {
        match count {
            Some(count) => self.count(count),
            None => self.null(),
        }
    }

    fn number(&mut self, number: u64) {
        self.write_fmt(format_args!("{number}"));
    }

    fn time(&mut self, time: Option<Duration>) {
        match time {
            Some(time) => self.write_fmt(format_args!("{:.3}", time.as_secs_f64())),
            None => self.null(),
        }
    }

    fn boolean(&mut self, value: bool) {
        self.text.push_str(if value { "true" } else { "false" });
    }

    fn null(&mut self) {
        self.text.push_str("null");
    }

    fn write_fmt(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.text.write_fmt(arguments).expect("a string takes any text");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 572.
    #[test]
    fn strings_are_escaped() {
        let mut json = Json { text: String::new(), is_first: true };
        json.object(|json| {
            json.name("a\"b").string("c\\d\n\t\u{7f}é");
            json.name("page").page(&Page { total: 3, entries: vec![(), ()] }, |json, ()| json.name("x").null());
            json.name("time").time(Some(Duration::from_micros(1_500)));
        });
        let expected = "{\"a\\\"b\":\"c\\\\d\\n\\u0009\\u007fé\",\"page\":{\"total\":3,\"entries\":[{\"x\":null},\
                        {\"x\":null}]},\"time\":0.002}";
        assert_eq!(json.text, expected);
    }
}
