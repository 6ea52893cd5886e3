//! The day: what happens when, and what must be so in the evening.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use workcrew::WorkerPool;
use workcrew::nats::{Connection, DeadReason, JobQueue};

use crate::crew::{Crew, PROCESSES};
use crate::feed::{self, Feed};
use crate::jobs;
use crate::journal::{self, Notes};
use crate::network::{Proxy, Weather};
use crate::options::Options;
use crate::servers::{self, Server};
use crate::worker;

type Failure = Box<dyn Error>;

/// Between two kills.
const TICK: Duration = Duration::from_secs(1);
/// How long the evening may take: bad jobs end, the stream becomes empty.
const EVENING: Duration = Duration::from_secs(90);
/// How long jobs may be left in the stream when the bad ones have ended.
const SETTLED: Duration = Duration::from_secs(30);
/// How many milliseconds before its death a server may have confirmed what it then forgets.
const FORGETS: u64 = 10_000;
/// How many milliseconds after it a cluster may confirm what the next leader does not know.
const ELECTION: u64 = 3_000;

/// What happens once, when this share of the jobs is done.
const PLAN: [(f64, Deed); 6] = [
    (0.15, Deed::EndServer("KILL")),
    (0.25, Deed::DeleteConsumer),
    (0.40, Deed::EndServer("TERM")),
    (0.50, Deed::RemakeStream),
    (0.60, Deed::BadJobs),
    (0.75, Deed::EndServer("KILL")),
];

#[derive(Clone, Copy, Debug)]
enum Deed {
    EndServer(&'static str),
    DeleteConsumer,
    RemakeStream,
    BadJobs,
}

/// The drill while it runs.
struct Drill {
    options: Options,
    folder: PathBuf,
    random: fastrand::Rng,
    servers: Vec<Server>,
    proxies: Vec<Proxy>,
    crew: Crew,
    /// A connection that the weather does not reach.
    admin: Connection,
    queue: JobQueue,
    /// SIGKILLs of worker processes.
    kills: usize,
    /// When servers were killed.
    server_kills: Vec<u64>,
    /// Deletions of the stream or the consumer.
    deletions: usize,
}

/// Runs the drill and prints what came of it.
pub(crate) fn run(options: &Options) -> ExitCode {
    let cluster = if options.cluster { " --cluster" } else { "" };
    let replay = format!(
        "cargo run -p workcrew-interop --bin nats-drill -- --seed {} --jobs {}{cluster}",
        options.seed, options.jobs
    );
    println!("{replay}");
    let folder = std::env::temp_dir().join(format!("nats-drill-{}", std::process::id()));
    let violations = fs::create_dir_all(&folder).map_err(Failure::from).and_then(|()| play(options, &folder));
    match violations {
        Ok(violations) if violations.is_empty() => {
            let _ = fs::remove_dir_all(&folder);
            println!("1 passed, 0 failed");
            return ExitCode::SUCCESS;
        }
        Ok(violations) => violations.iter().for_each(|violation| println!("VIOLATION: {violation}")),
        Err(error) => println!("VIOLATION: the drill could not go on: {error}"),
    }
    println!("journals and logs: {}\nreplay: {replay}\n0 passed, 1 failed", folder.display());
    ExitCode::FAILURE
}

fn play(options: &Options, folder: &Path) -> Result<Vec<String>, Failure> {
    let pool = WorkerPool::builder().workers(2).build()?;
    let servers = servers::start(folder, options.cluster)?;
    let proxies = servers.iter().map(|server| Proxy::start(server.port)).collect::<Result<Vec<_>, _>>()?;
    let direct: Vec<_> = servers.iter().map(|server| format!("nats://127.0.0.1:{}", server.port)).collect();
    let through: Vec<_> = proxies.iter().map(Proxy::url).collect();
    let (admin, feeding) = (connect(&direct, &pool)?, connect(&through, &pool)?);
    let queue = worker::open(&admin, options.cluster);
    let fed = worker::open(&feeding, options.cluster);
    let crew = Crew::start(through.join(","), folder)?;
    let random = fastrand::Rng::with_seed(options.seed);
    let mut drill = Drill {
        options: options.clone(),
        folder: folder.to_owned(),
        random,
        servers,
        proxies,
        crew,
        admin,
        queue,
        kills: 0,
        server_kills: Vec::new(),
        deletions: 0,
    };
    let feed = Feed::new(options.jobs);
    thread::scope(|scope| {
        for _ in 0..feed::THREADS {
            scope.spawn(|| feed.run(&fed));
        }
        let day = drill.day(&feed);
        feed.is_over.store(true, Ordering::SeqCst);
        day
    })?;
    drill.evening(&feed)
}

fn connect(urls: &[String], pool: &WorkerPool) -> Result<Connection, Failure> {
    let mut builder = Connection::builder(&*urls[0]).timeout(jobs::CALL_TIMEOUT);
    for url in &urls[1..] {
        builder = builder.server(&**url);
    }
    Ok(builder.connect(pool)?)
}

impl Drill {
    /// Kills, cuts and deletes until every good job is done.
    fn day(&mut self, feed: &Feed) -> Result<(), Failure> {
        let (since, mut plan, mut storm) = (Instant::now(), PLAN.iter().peekable(), None);
        loop {
            let notes = Notes::read(&self.folder)?;
            let done = notes.done.len();
            feed.done.store(done, Ordering::SeqCst);
            if done == self.options.jobs {
                println!("after {:?}: every good job is done; {} workers were killed", since.elapsed(), self.kills);
                return Ok(());
            }
            if since.elapsed() > self.options.limit {
                return Err(format!("after {:?} {done} of {} jobs are done", since.elapsed(), self.options.jobs).into());
            }
            if let Some((_, deed)) = plan.next_if(|(share, _)| done as f64 >= share * self.options.jobs as f64) {
                println!("after {:?}, {done} jobs done: {deed:?}", since.elapsed());
                self.clear_up(&mut storm);
                self.perform(*deed, feed)?;
            }
            self.change_weather(&mut storm);
            self.crew.replace_ended()?;
            let victim = self.random.usize(..PROCESSES);
            self.crew.kill(victim)?;
            self.kills += 1;
            thread::sleep(TICK);
        }
    }

    fn perform(&mut self, deed: Deed, feed: &Feed) -> Result<(), Failure> {
        match deed {
            Deed::EndServer(signal) => {
                let index = self.leader();
                if signal == "KILL" {
                    self.server_kills.push(journal::now());
                }
                self.servers[index].end(signal)?;
                thread::sleep(TICK);
                self.servers[index].start()?;
            }
            Deed::DeleteConsumer => {
                self.deletions += 1;
                self.ask("CONSUMER.DELETE", &format!("{}.{}", jobs::QUEUE, jobs::CONSUMER))?;
            }
            Deed::RemakeStream => {
                self.deletions += 1;
                let mut failure = None;
                let again = feed.start_over(|| {
                    failure = self.ask("STREAM.DELETE", jobs::QUEUE).err();
                    let done: BTreeSet<usize> =
                        Notes::read(&self.folder).map(|notes| notes.done.into_keys().collect()).unwrap_or_default();
                    self.queue = worker::open(&self.admin, self.options.cluster);
                    done
                });
                println!("  the stream is made anew; {again} jobs went with it and are enqueued again");
                failure.map_or(Ok(()), Err)?;
            }
            Deed::BadJobs => self.enqueue_bad()?,
        }
        Ok(())
    }

    /// The server that leads the stream; the only one, if there is one.
    fn leader(&self) -> usize {
        let info = self.admin.request(&format!("$JS.API.STREAM.INFO.{}", jobs::QUEUE), "");
        let text = info.ok().and_then(|info| info.text().map(str::to_owned)).unwrap_or_default();
        let of = |index: &usize| text.contains(&format!("\"leader\":\"s{index}\""));
        (0..self.servers.len()).find(of).unwrap_or(0)
    }

    /// Asks the server's API, again while there is no answer.
    fn ask(&self, call: &str, name: &str) -> Result<(), Failure> {
        let since = Instant::now();
        loop {
            match self.admin.request(&format!("$JS.API.{call}.{name}"), "") {
                Ok(answer) if answer.text().is_some_and(|text| text.contains("\"success\":true")) => return Ok(()),
                // It was heard the first time, and the answer was lost.
                Ok(answer) if answer.text().is_some_and(|text| text.contains("not found")) => return Ok(()),
                _ if since.elapsed() < EVENING => thread::sleep(Duration::from_millis(100)),
                Ok(answer) => return Err(format!("{call}: {}", answer.text().unwrap_or_default()).into()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The four bad jobs. The one with the bad header has no id that a client could read.
    fn enqueue_bad(&self) -> Result<(), Failure> {
        let large = vec![b'x'; (1 << 20) - 200];
        for (id, payload) in [(jobs::HANGING, &b""[..]), (jobs::ABORTING, b""), (jobs::OVERSIZED, &large)] {
            let since = Instant::now();
            while let Err(error) = self.queue.enqueue(jobs::SUBJECT, payload, id) {
                if since.elapsed() > EVENING {
                    return Err(error.into());
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
        let head = "NATS/1.0\r\nOrder Number: 7\r\n\r\n";
        let words = format!("HPUB {} {} {}\r\n{head}bad\r\n", jobs::SUBJECT, head.len(), head.len() + 3);
        Ok(servers::say(self.servers[0].port, &words)?)
    }

    fn change_weather(&mut self, storm: &mut Option<usize>) {
        self.clear_up(storm);
        if self.random.f64() < 0.4 {
            let (index, weather) = (self.random.usize(..self.proxies.len()), self.random.u8(..4));
            let weather = [Weather::Slow, Weather::BlackHole, Weather::Stalled, Weather::Fine][usize::from(weather)];
            match weather {
                Weather::Fine => self.proxies[index].cut(),
                _ => self.proxies[index].set(weather),
            }
            *storm = Some(index);
        }
    }

    fn clear_up(&self, storm: &mut Option<usize>) {
        if let Some(index) = storm.take() {
            self.proxies[index].set(Weather::Fine);
        }
    }

    /// Waits until the bad jobs have ended and the stream is empty, and looks at everything.
    fn evening(mut self, feed: &Feed) -> Result<Vec<String>, Failure> {
        self.proxies.iter().for_each(|proxy| proxy.set(Weather::Fine));
        let since = Instant::now();
        let mut missing = self.missing_letters()?;
        let mut left = self.queue.len().unwrap_or(u64::MAX);
        while since.elapsed() < if missing.is_empty() { SETTLED } else { EVENING } && (!missing.is_empty() || left > 0)
        {
            thread::sleep(Duration::from_millis(200));
            self.crew.replace_ended()?;
            missing = self.missing_letters()?;
            left = self.queue.len().unwrap_or(u64::MAX);
        }
        if left > 0 {
            // What a killed server has kept of done jobs; the runbook of docs/nats.md says so.
            let cleared = worker::worker(&self.queue)?.clear_finished()?;
            println!("{cleared} jobs that were done, and that a killed server had kept, are cleared");
            left = self.queue.len()?;
        }
        println!("in the evening, after {:?}: {left} jobs left, without letter: {missing:?}", since.elapsed());
        let late = self.crew.end(Duration::from_secs(20))?;
        let notes = Notes::read(&self.folder)?;
        let mut violations: Vec<String> =
            missing.iter().map(|id| format!("the {id} job has neither a letter nor an event")).collect();
        let mut must = |holds: bool, words: String| {
            println!("{} {words}", if holds { "ok       " } else { "VIOLATION" });
            if !holds {
                violations.push(words);
            }
        };
        must(left == 0, format!("{left} jobs left in the stream"));
        must(late == 0, format!("{late} workers did not end within 20 s of SIGTERM"));
        must(notes.errors.is_empty(), format!("errors of workers: {:?}", notes.errors));
        must(notes.most_at_once <= jobs::SLOTS, format!("at most {} slots in use in one process", jobs::SLOTS));
        for (id, times) in &notes.begun {
            must(*times <= jobs::MAX_BEGUN as usize, format!("the {id} job was begun {times} times"));
        }
        let (again, forgotten) = repeated(&notes, &self.server_kills);
        let kills = self.kills + PROCESSES * (self.server_kills.len() + self.deletions);
        must(
            again <= jobs::SLOTS * kills,
            format!("{again} runs too many, {} slots x {kills} kills allowed", jobs::SLOTS),
        );
        println!("ok        {forgotten} more by servers that were killed around their confirmation");
        let (longest, limit) = (feed.longest(), jobs::CALL_TIMEOUT + Duration::from_secs(1));
        must(longest <= limit, format!("the longest call took {longest:?}, {limit:?} allowed"));
        println!("{} calls failed and were made again", feed.failures.load(Ordering::SeqCst));
        Ok(violations)
    }

    /// The bad jobs of which there is no letter, and no event that names them.
    fn missing_letters(&self) -> Result<Vec<&'static str>, Failure> {
        let letters = self.queue.dead_letters(100).unwrap_or_default();
        let has_letter = |id: &str| letters.iter().any(|letter| letter.id() == Some(id));
        let mut missing = vec![jobs::HANGING, jobs::ABORTING, jobs::OVERSIZED];
        missing.retain(|id| !has_letter(id));
        let is_aside = letters.iter().any(|letter| letter.reason() == Some(DeadReason::Unreadable));
        if !is_aside && Notes::read(&self.folder)?.set_aside.is_empty() {
            missing.push(jobs::UNPARSABLE);
        }
        Ok(missing)
    }
}

/// How many runs were too many; and of those, in the second place, how many follow from a server that forgot.
fn repeated(notes: &Notes, server_kills: &[u64]) -> (usize, usize) {
    let (mut again, mut forgotten) = (0, 0);
    for times in notes.done.values() {
        for pair in times.windows(2) {
            let forgot = server_kills
                .iter()
                .any(|kill| (kill.saturating_sub(FORGETS)..=kill + ELECTION).contains(&pair[0]) && pair[1] > *kill);
            if forgot {
                forgotten += 1;
            } else {
                again += 1;
            }
        }
    }
    (again, forgotten)
}
