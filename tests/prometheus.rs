//! Pools, buses and NATS workers as Prometheus sees them: names, labels, values that only grow, and text that its own parser takes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, thread};

use common::{BlockedWorkers, with_watchdog};
use parking_lot::Mutex;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
#[cfg(feature = "events")]
use workcrew::events::EventBus;
use workcrew::prometheus::Collector;
use workcrew::{Observer, Priority, TaskInfo, WorkerPool};

fn registered(collector: &Collector) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector.clone()));
    registry
}

fn scrape(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

/// The value of a series, by its name and labels.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// The names of metrics in a text, without those of other projects.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c: char| !is_part(c)).filter(|word| word.starts_with("workcrew_"));
    words.map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
}

/// Fault 550.
#[test]
fn a_scrape_shows_each_task_once_by_its_outcome() {
    with_watchdog(|| {
        let pool = WorkerPool::builder().workers(1).queue_capacity(1).timing(true).build().unwrap();
        let collector = Collector::new();
        let registry = registered(&collector);
        assert_eq!(scrape(&registry), "# EOF\n", "a collector without pools shows nothing");
        collector.add_pool("images", &pool);

        pool.spawn(|| ()).unwrap().join().unwrap();
        pool.spawn(|| panic!("as planned")).unwrap().join().unwrap_err();
        let blocked = BlockedWorkers::new(&pool);
        pool.execute(|| ()).unwrap();
        assert!(pool.try_execute(|| ()).is_err());
        let text = scrape(&registry);
        for (series, expected) in [
            ("workcrew_tasks_submitted_total{pool=\"images\"}", 4.0),
            ("workcrew_tasks_refused_total{pool=\"images\"}", 1.0),
            ("workcrew_tasks_ended_total{pool=\"images\",outcome=\"succeeded\"}", 1.0),
            ("workcrew_tasks_ended_total{pool=\"images\",outcome=\"failed\"}", 0.0),
            ("workcrew_tasks_ended_total{pool=\"images\",outcome=\"panicked\"}", 1.0),
            ("workcrew_tasks_ended_total{pool=\"images\",outcome=\"cancelled\"}", 0.0),
            ("workcrew_tasks_queued{pool=\"images\"}", 1.0),
            ("workcrew_tasks_running{pool=\"images\"}", 1.0),
            ("workcrew_workers{pool=\"images\"}", 1.0),
            ("workcrew_queue_capacity{pool=\"images\"}", 1.0),
            ("workcrew_queue_len{pool=\"images\",class=\"high\"}", 0.0),
            ("workcrew_queue_len{pool=\"images\",class=\"normal\"}", 1.0),
            ("workcrew_queue_len{pool=\"images\",class=\"background\"}", 0.0),
            ("workcrew_queue_wait_seconds_count{pool=\"images\"}", 3.0),
            ("workcrew_run_time_seconds_count{pool=\"images\"}", 2.0),
            ("workcrew_run_time_seconds_bucket{le=\"+Inf\",pool=\"images\"}", 2.0),
        ] {
            assert_eq!(value(&text, series), Some(expected), "{series} in:\n{text}");
        }
        blocked.open();
    });
}

#[test]
fn a_pool_that_was_dropped_is_shown_no_longer_and_one_of_the_same_name_takes_its_place() {
    let collector = Collector::new();
    let registry = registered(&collector);
    let [one, two] = [1, 2].map(|workers| WorkerPool::builder().workers(workers).build().unwrap());
    collector.add_pool("first", &one);
    collector.add_pool("second", &two);
    assert_eq!(format!("{collector:?}").matches("first").count(), 1);
    drop(one);
    let text = scrape(&registry);
    assert!(!text.contains("\"first\"") && text.contains("\"second\""), "{text}");
    let three = WorkerPool::builder().workers(3).build().unwrap();
    collector.clone().add_pool("second", &three);
    let text = scrape(&registry);
    assert_eq!(value(&text, "workcrew_workers{pool=\"second\"}"), Some(3.0));
    assert_eq!(text.matches("workcrew_workers{").count(), 1, "each series once");
    drop((two, three));
    assert_eq!(scrape(&registry), "# EOF\n");
}

const SUBMITTED: &str = "workcrew_tasks_submitted_total{pool=\"full\"}";

/// Scrapes while a submission is being refused.
struct ScrapesAtRefusal(Arc<Registry>, Arc<Mutex<Option<f64>>>);

impl Observer for ScrapesAtRefusal {
    fn task_refused(&self, _: &TaskInfo<'_>) {
        *self.1.lock() = value(&scrape(&self.0), SUBMITTED);
    }
}

/// Fault 551.
#[test]
fn a_counter_that_a_scrape_has_shown_never_shrinks() {
    with_watchdog(|| {
        let collector = Collector::new();
        let registry = Arc::new(registered(&collector));
        let scraping = ScrapesAtRefusal(Arc::clone(&registry), Arc::default());
        let seen = Arc::clone(&scraping.1);
        let pool = WorkerPool::builder().workers(1).queue_capacity(1).observer(scraping).build().unwrap();
        collector.add_pool("full", &pool);
        let blocked = BlockedWorkers::new(&pool);
        pool.execute(|| ()).unwrap();
        assert!(pool.try_execute(|| ()).is_err());
        blocked.open();
        let submitted = || value(&scrape(&registry), SUBMITTED);
        let seen = seen.lock().take().unwrap();
        assert_eq!((seen, submitted()), (3.0, Some(3.0)), "the submission counted when it was about to be refused");
        pool.close();
        assert_eq!(pool.metrics().tasks_submitted, 2);
    });
}

#[test]
fn exported_buckets_hold_the_durations_up_to_their_end() {
    let pool = WorkerPool::builder().workers(1).timing(true).build().unwrap();
    let collector = Collector::new();
    collector.add_pool("slow", &pool);
    pool.spawn(|| thread::sleep(Duration::from_millis(3))).unwrap().join().unwrap();
    let text = scrape(&registered(&collector));
    let longest = pool.metrics().run_time.unwrap().max().as_secs_f64();
    let is_bucket = |line: &&str| line.starts_with("workcrew_run_time_seconds_bucket");
    let mut buckets = 0;
    for line in text.lines().filter(is_bucket) {
        let end = line.split("le=\"").nth(1).unwrap().split('"').next().unwrap();
        let end = if end == "+Inf" { f64::INFINITY } else { end.parse().unwrap() };
        let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(count, u64::from(longest <= end), "{line}, longest {longest}");
        buckets += 1;
    }
    assert_eq!(buckets, 28);
}

#[test]
fn names_with_quotes_and_line_breaks_are_escaped() {
    let pool = WorkerPool::builder().workers(1).build().unwrap();
    let collector = Collector::new();
    collector.add_pool("a \"b\"\\\nc", &pool);
    let registry = registered(&collector);
    let text = scrape(&registry);
    assert!(text.contains(r#"workcrew_workers{pool="a \"b\"\\\nc"} 1"#), "{text}");
    assert!(is_accepted(&registry));
}

#[cfg(feature = "events")]
#[test]
fn the_documented_names_are_those_of_a_scrape_and_the_dashboard_uses_no_other() {
    let pool = WorkerPool::builder().workers(1).timing(true).build().unwrap();
    let collector = Collector::new();
    collector.add_pool("pool", &pool);
    let bus = EventBus::new(&pool);
    let _guard = bus.subscribe(|_: &u32| ());
    collector.add_bus("bus", &bus);
    pool.spawn(|| ()).unwrap().join().unwrap();
    let docs = fs::read_to_string("src/prometheus/mod.rs").unwrap();
    let rows: String = docs.lines().filter(|line| line.starts_with("//! | `workcrew_")).collect();
    let documented = names(&rows);
    let scraped: BTreeSet<_> = scrape(&registered(&collector))
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(names)
        .map(|name| name.trim_end_matches("_sum").trim_end_matches("_count").to_owned())
        .collect();
    let of_others: BTreeSet<_> = documented.iter().filter(|name| !name.contains("_nats_")).cloned().collect();
    assert_eq!(of_others, scraped);
    let dashboard = names(&fs::read_to_string("docs/grafana.json").unwrap());
    assert!(dashboard.is_subset(&documented), "{:?}", dashboard.difference(&documented));
    assert!(documented.is_subset(&dashboard), "no panel shows {:?}", documented.difference(&dashboard));
}

#[test]
fn the_queue_of_each_class_has_its_length() {
    let pool = WorkerPool::builder().workers(1).build().unwrap();
    let collector = Collector::new();
    collector.add_pool("pool", &pool);
    let blocked = BlockedWorkers::new(&pool);
    for (priority, jobs) in [(Priority::High, 1), (Priority::Normal, 2), (Priority::Background, 3)] {
        (0..jobs).for_each(|_| drop(pool.task().priority(priority).spawn(|_| ()).unwrap()));
    }
    let text = scrape(&registered(&collector));
    let len = |class| value(&text, &format!("workcrew_queue_len{{pool=\"pool\",class=\"{class}\"}}"));
    assert_eq!(["high", "normal", "background"].map(len), [Some(1.0), Some(2.0), Some(3.0)]);
    blocked.open();
}

/// Fault 582.
#[cfg(feature = "events")]
#[test]
fn subscriptions_of_one_name_are_shown_together_and_their_counts_never_shrink() {
    with_watchdog(|| {
        let pool = WorkerPool::builder().workers(1).build().unwrap();
        let bus = EventBus::builder(&pool).mailbox_capacity(8).build();
        let collector = Collector::new();
        collector.add_bus("orders", &bus);
        let registry = registered(&collector);
        let text = scrape(&registry);
        assert!(text.contains("workcrew_subscriptions{bus=\"orders\"} 0"), "{text}");
        assert!(!text.contains("workcrew_mailbox_len"), "no subscription, so no series: {text}");

        let mail =
            || bus.subscription::<u32>().name("a \"mail\"").handle(|n| if *n > 0 { Ok(()) } else { Err("zero") });
        let (one, two) = (mail(), mail());
        (0..3_u32).for_each(|n| drop(bus.publish(n).wait().unwrap()));
        bus.wait_idle();
        let labels = r#"bus="orders",subscription="a \"mail\"""#;
        let handled =
            |text: &str| value(text, &format!("workcrew_deliveries_ended_total{{{labels},outcome=\"handled\"}}"));
        let text = scrape(&registry);
        for (series, expected) in [
            (format!("workcrew_deliveries_ended_total{{{labels},outcome=\"failed\"}}"), 2.0),
            (format!("workcrew_delivery_attempts_failed_total{{{labels}}}"), 2.0),
            (format!("workcrew_delivery_retries_total{{{labels}}}"), 0.0),
            (format!("workcrew_mailbox_capacity{{{labels}}}"), 16.0),
            (format!("workcrew_mailbox_len{{{labels}}}"), 0.0),
            ("workcrew_events_published_total{bus=\"orders\"}".to_owned(), 3.0),
            ("workcrew_events_pending{bus=\"orders\"}".to_owned(), 0.0),
            ("workcrew_subscriptions{bus=\"orders\"}".to_owned(), 2.0),
            ("workcrew_bus_deliveries_ended_total{bus=\"orders\",outcome=\"handled\"}".to_owned(), 4.0),
        ] {
            assert_eq!(value(&text, &series), Some(expected), "{series} in:\n{text}");
        }
        assert_eq!(handled(&text), Some(4.0));
        assert!(is_accepted(&registry));

        one.unsubscribe();
        wait_for(|| bus.metrics().subscriptions == 1);
        assert_eq!(handled(&scrape(&registry)), Some(4.0), "one has ended, and its counts stay with the other");
        two.unsubscribe();
        wait_for(|| bus.metrics().subscriptions == 0);
        let text = scrape(&registry);
        assert_eq!(handled(&text), None, "no subscription has that name");
        assert!(text.contains("workcrew_bus_deliveries_ended_total{bus=\"orders\",outcome=\"handled\"} 4"), "{text}");
        drop(bus);
        assert_eq!(scrape(&registry), "# EOF\n");
    });
}

#[cfg(feature = "events")]
fn wait_for(done: impl Fn() -> bool) {
    while !done() {
        thread::yield_now();
    }
}

/// Fault 552.
#[test]
fn the_parser_of_prometheus_takes_a_scrape_of_several_pools() {
    let pools = [1, 2].map(|workers| WorkerPool::builder().workers(workers).timing(true).build().unwrap());
    let collector = Collector::new();
    for (name, pool) in ["first", "second"].into_iter().zip(&pools) {
        collector.add_pool(name, pool);
        pool.spawn(|| ()).unwrap().join().unwrap();
    }
    assert!(is_accepted(&registered(&collector)));
}

/// Whether Prometheus' own parser takes a scrape.
fn is_accepted(registry: &Registry) -> bool {
    let mut text = String::new();
    prometheus_text::encode(&mut text, registry).unwrap();
    let promtool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) if env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: promtool did not start ({error}); Debian's package `prometheus` has it");
            return true;
        }
        Err(error) => panic!("promtool did not start: {error}"),
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    promtool.wait().unwrap().success()
}
