//! The course of the drill: a day of evils, and an evening in which everything must come to its
//! end.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use workcrew::WorkerPool;
use workcrew::nats::{Connection, JobQueue};

use crate::calls::{self, Calls, allowed};
use crate::checks;
use crate::crew::{self, Crew, How};
use crate::drill::{Drill, Failure, Results};
use crate::feed::{self, Feed};
use crate::jobs;
use crate::network::Proxy;
use crate::options::Options;
use crate::plan::Plan;
use crate::record::Record;
use crate::repeats::Causes;
use crate::report::Report;
use crate::servers;
use crate::store;
use crate::storms::{self, Storms, THROUGH};
use crate::visitor;
use crate::worker;

/// Between two looks at the plan and the weather.
const TICK: Duration = Duration::from_secs(1);
/// How long the bad jobs may take to end.
const EVENING: Duration = Duration::from_secs(90);
/// How long jobs may stay when the bad ones have ended, until an event tells of them: a worker
/// looks for them when the server has had no job for it during half a minute.
const SETTLED: Duration = Duration::from_secs(45);
/// For how long nothing must change before jobs that stay are cleared.
const UNCHANGED: Duration = jobs::ACK_WAIT.saturating_mul(2);
/// How long a job that stays may take to be deleted.
const CLEARS: Duration = Duration::from_millis(50);
/// How long before its limit the drill gives up by itself, and names the jobs that are not done.
const BEFORE_LIMIT: Duration = Duration::from_secs(5);
/// How long the worker processes may take to end.
const END: Duration = Duration::from_secs(20);

/// Runs the drill and prints what came of it.
pub(crate) fn run(options: &Options) -> ExitCode {
    println!("{options}");
    let folder = std::env::temp_dir().join(format!("nats-drill-{}", std::process::id()));
    let (calls, is_over) = (Arc::new(Calls::default()), Arc::new(AtomicBool::new(false)));
    let (watched, ends, limits) = (Arc::clone(&calls), Arc::clone(&is_over), options.clone());
    let watch = move || calls::watch(&watched, limits.limit, &limits, || ends.load(Ordering::SeqCst));
    let watchdog = thread::spawn(watch);
    let played = fs::create_dir_all(&folder).map_err(Failure::from).and_then(|()| play(options, &folder, &calls));
    is_over.store(true, Ordering::SeqCst);
    let _ = watchdog.join();
    match played {
        Ok(report) if report.violations.is_empty() => {
            if options.keep {
                println!("journals and logs: {}", folder.display());
            } else {
                let _ = fs::remove_dir_all(&folder);
            }
            println!("1 passed, 0 failed");
            return ExitCode::SUCCESS;
        }
        Ok(report) => report.violations.iter().for_each(|violation| println!("VIOLATION: {violation}")),
        Err(error) => println!("VIOLATION: the drill could not go on: {error}"),
    }
    println!("journals and logs: {}\nreplay: {options}\n0 passed, 1 failed", folder.display());
    ExitCode::FAILURE
}

fn play(options: &Options, folder: &Path, calls: &Arc<Calls>) -> Result<Report, Failure> {
    let pool = WorkerPool::builder().workers(2).build()?;
    let servers = servers::start(folder, options)?;
    let proxies = servers.iter().map(|server| Proxy::start(server.port)).collect::<Result<Vec<_>, _>>()?;
    let direct: Vec<_> = servers.iter().map(|server| format!("nats://127.0.0.1:{}", server.port)).collect();
    let through: Vec<_> = proxies.iter().map(Proxy::url).collect();
    let admin = connect(&direct, "admin", &pool, calls)?;
    let feeding = connect(&through, &format!("{THROUGH} feed"), &pool, calls)?;
    let queue = open(&admin, options, calls)?;
    let fed = open(&feeding, options, calls)?;
    let crew = Mutex::new(Crew::start(through.join(","), folder)?);
    let mut seeds = fastrand::Rng::with_seed(options.seed);
    let (kills, weather, visits) = (seeds.u64(..), seeds.u64(..), seeds.u64(..));
    let mut drill = Drill {
        options: options.clone(),
        folder: folder.to_owned(),
        calls: Arc::clone(calls),
        servers,
        proxies,
        storms: Storms::new(weather),
        admin,
        queue,
        plan: Plan::default(),
        causes: Causes { steps_back: servers::steps_back(&options.server)?, ..Causes::default() },
        results: Results::default(),
    };
    let feed = Feed::new(options.jobs);
    thread::scope(|scope| {
        for _ in 0..feed::THREADS {
            scope.spawn(|| feed.run(&fed, calls));
        }
        scope.spawn(|| visitor::run(&feeding, &fed, calls, visits, &feed.is_over));
        let killer = scope.spawn(|| crew::end_one_each_second(&crew, kills, || feed.is_over.load(Ordering::SeqCst)));
        let day = drill.day(&feed);
        feed.is_over.store(true, Ordering::SeqCst);
        let killed = killer.join().map_err(|_| "the thread that kills workers panicked")?;
        day.and(killed.map_err(Failure::from))
    })?;
    drill.causes.unsure = feed.unsure();
    drill.evening(&crew)
}

fn connect(urls: &[String], name: &str, pool: &WorkerPool, calls: &Calls) -> Result<Connection, Failure> {
    let mut builder = Connection::builder(&*urls[0]).name(name).timeout(jobs::CALL_TIMEOUT);
    for url in &urls[1..] {
        builder = builder.server(&**url);
    }
    Ok(calls.time("connect", allowed(u32::try_from(urls.len())?), || builder.connect(pool))?)
}

/// Opens the queue, as soon as the servers have found their leader.
fn open(connection: &Connection, options: &Options, calls: &Calls) -> Result<JobQueue, Failure> {
    let since = Instant::now();
    loop {
        match calls.time("open", allowed(2), || worker::open(connection, options.cluster)) {
            Ok(queue) => return Ok(queue),
            Err(error) if since.elapsed() > EVENING => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

impl Drill {
    /// Performs the plan and changes the weather, until every good job is done and the network has
    /// had each fault.
    fn day(&mut self, feed: &Feed) -> Result<(), Failure> {
        let since = Instant::now();
        loop {
            let record = Record::read(&self.folder)?;
            let done = record.done.len();
            feed.done.store(done, Ordering::SeqCst);
            feed.limit.store((self.plan.share_to_enqueue() * self.options.jobs as f64) as usize, Ordering::SeqCst);
            if done == self.options.jobs && storms::used(&self.proxies).is_complete() {
                println!("after {:.1?}: every good job is done", since.elapsed());
                self.storms.calm(&self.proxies);
                return Ok(());
            }
            self.look_for_good_letters()?;
            if since.elapsed() > self.options.limit.saturating_sub(BEFORE_LIMIT) {
                let undone = (0..self.options.jobs).filter(|number| !record.has_done(*number)).collect::<Vec<_>>();
                return Err(format!(
                    "after {:.1?} the day is not over; these jobs are not done: {undone:?}",
                    since.elapsed()
                )
                .into());
            }
            if let Some(deed) = self.plan.next(done as f64 / self.options.jobs as f64) {
                println!("after {:.1?}, {done} jobs done: {deed:?}", since.elapsed());
                self.storms.calm(&self.proxies);
                self.perform(deed, feed)?;
            }
            self.storms.look_around(&self.servers, &self.proxies);
            self.storms.change(&self.proxies);
            thread::sleep(TICK);
        }
    }

    /// A good job that is given up is an error at once.
    fn look_for_good_letters(&self) -> Result<(), Failure> {
        let letters = visitor::dead_letters(&self.queue, &self.calls).unwrap_or_default();
        match letters.iter().find(|letter| letter.id().and_then(jobs::number).is_some()) {
            Some(letter) => Err(format!("a good job was given up: {:?}, {letter:?}", letter.id()).into()),
            None => Ok(()),
        }
    }

    /// Waits until the bad jobs have ended and the stream is empty, and looks at everything.
    fn evening(mut self, crew: &Mutex<Crew>) -> Result<Report, Failure> {
        let mut report = Report::default();
        let since = Instant::now();
        let (mut left, mut changed_at) = (u64::MAX, Instant::now());
        let mut settled_at = None;
        while since.elapsed() < EVENING {
            thread::sleep(Duration::from_millis(200));
            crew::lock(crew).replace_ended()?;
            let now = self.calls.time("len", allowed(1), || self.queue.len()).unwrap_or(u64::MAX);
            if now != left {
                (left, changed_at) = (now, Instant::now());
            }
            let has_ended = self.bad_jobs_have_ended()?;
            settled_at = settled_at.filter(|_| has_ended).or(has_ended.then(Instant::now));
            let is_told = Record::read(&self.folder)?.left_behind > 0;
            let is_settled = settled_at.is_some_and(|at| at.elapsed() > SETTLED);
            if has_ended && (left == 0 || is_settled || is_told && changed_at.elapsed() > UNCHANGED) {
                break;
            }
        }
        println!("in the evening, after {:.1?}: {left} jobs are left", since.elapsed());
        if left > 0 {
            self.clear(&mut report)?;
            left = self.calls.time("len", allowed(1), || self.queue.len())?;
        }
        report.must(left == 0, &format_args!("{left} jobs are left in the stream"));
        let badly = crew::lock(crew).end(END)?;
        // A worker that was drained gives its jobs back or ends them, and causes no repeats.
        let (drained, deaths) = crew::lock(crew)
            .endings
            .drain(..)
            .partition(|ending| matches!(ending.how, How::Drained | How::DrainedBadly));
        (self.results.drained, self.causes.deaths) = (drained, deaths);
        report.must(
            badly.is_empty(),
            &format_args!("workers that did not end well within {END:?} of SIGTERM: {badly:?}"),
        );
        checks::all(&mut self, &mut report)?;
        Ok(report)
    }

    /// Deletes the done jobs that a killed server has kept, by the remedy of the runbook.
    fn clear(&self, report: &mut Report) -> Result<(), Failure> {
        let record = Record::read(&self.folder)?;
        let stored = servers::first_answer(&self.servers, EVENING, store::jobs_at)?;
        let is_done = |id: &str| jobs::number(id).is_some_and(|number| record.has_done(number));
        let undone: Vec<_> = stored.values().filter(|id| !is_done(id) && !jobs::BAD.contains(&id.as_str())).collect();
        report.must(undone.is_empty(), &format_args!("jobs that stay and were not done: {undone:?}"));
        report.some(record.left_behind, &"events tell of done jobs that stay");
        let worker = worker::worker(&self.queue)?;
        let limit = allowed(2) + CLEARS * u32::try_from(stored.len())?;
        let cleared = self.calls.time("clear_finished", limit, || worker.clear_finished())?;
        println!("          {cleared} jobs that were done, and that a killed server had kept, are cleared");
        Ok(())
    }
}
