//! Performs the deeds of the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::calls::allowed;
use crate::drill::{Drill, Failure};
use crate::feed::Feed;
use crate::jobs;
use crate::plan::Deed;
use crate::record::{self, Record};
use crate::repeats::{Broken, End, Remake};
use crate::servers;
use crate::store::{self, Store};
use crate::storms;
use crate::worker;

/// For how long a server is away.
const AWAY: Duration = Duration::from_secs(1);
/// The time between the end of a server of a cluster and the moment from which nothing passes.
const FELT: Duration = Duration::from_millis(300);
/// How long it may take until something can be done to the servers.
const PATIENCE: Duration = Duration::from_secs(60);

impl Drill {
    pub(crate) fn perform(&mut self, deed: Deed, feed: &Feed) -> Result<(), Failure> {
        match deed {
            Deed::KillServer => self.end_server("KILL", self.leader(false)?, feed),
            Deed::KillConsumerLeader => self.end_server("KILL", self.leader(true)?, feed),
            Deed::StopServer => self.end_server("TERM", self.leader(false)?, feed),
            Deed::DeleteConsumer => self.delete_consumer(feed),
            Deed::RemakeStream => self.remake_stream(feed),
            Deed::EnqueueBadJobs => self.enqueue_bad(),
        }
    }

    /// Ends a server, lists the stored jobs before any worker can change them, and starts it again.
    fn end_server(&mut self, signal: &str, index: usize, feed: &Feed) -> Result<(), Failure> {
        let from = record::now();
        self.servers[index].end(signal)?;
        let (since, at) = (Instant::now(), record::now());
        thread::sleep(if self.options.cluster { FELT } else { AWAY });
        storms::hold_all(&self.proxies);
        if !self.options.cluster {
            self.servers[index].start()?;
        }
        let accepted = feed.accepted();
        let stored = servers::first_answer(&self.servers, PATIENCE, store::jobs_at);
        storms::calm_all(&self.proxies);
        let (stored, until) = (stored?, record::now());
        if self.options.cluster {
            thread::sleep(AWAY.saturating_sub(since.elapsed()));
            self.servers[index].start()?;
        }
        println!("  server s{index} has ended");
        let end = if signal == "KILL" { End::Killed } else { End::Stopped };
        self.broke(Broken { end, from, at, until, stored: BTreeSet::new() }, &accepted, &stored)
    }

    /// Notes the end of something, and the jobs that were stored then.
    fn broke(
        &mut self,
        mut broken: Broken,
        accepted: &BTreeSet<usize>,
        stored: &BTreeMap<u64, String>,
    ) -> Result<(), Failure> {
        let record = Record::read(&self.folder)?;
        self.look_for_lost(accepted, stored, &record);
        broken.stored = stored.values().filter_map(|id| jobs::number(id)).collect();
        let done = broken.stored.iter().filter(|number| record.has_done(**number)).count();
        println!("  {} jobs are stored, {done} of them were done", broken.stored.len());
        self.causes.broken.push(broken);
        Ok(())
    }

    /// Checks that each accepted job is stored or done. A worker notes that a job is done before it
    /// has the job removed.
    fn look_for_lost(&mut self, accepted: &BTreeSet<usize>, stored: &BTreeMap<u64, String>, record: &Record) {
        let stored: BTreeSet<usize> = stored.values().filter_map(|id| jobs::number(id)).collect();
        let lost = accepted.iter().filter(|number| !stored.contains(number) && !record.has_done(**number));
        self.results.lost.extend(lost);
        self.results.looks += 1;
    }

    /// Returns the server that leads the stream or the consumer; the only one, if there is one.
    fn leader(&self, of_consumer: bool) -> Result<usize, Failure> {
        let leaders = servers::first_answer(&self.servers, PATIENCE, |port| Store::connect(port)?.leaders())?;
        let name = if of_consumer { leaders.consumer.or(leaders.stream) } else { leaders.stream };
        match name {
            Some(name) => Ok(name.trim_start_matches('s').parse()?),
            None if self.options.cluster => Err("no server leads the stream".into()),
            None => Ok(0),
        }
    }

    /// Deletes the consumer, and lists the stored jobs before any worker can make it anew.
    fn delete_consumer(&mut self, feed: &Feed) -> Result<(), Failure> {
        let name = format!("{}.{}", jobs::QUEUE, jobs::CONSUMER);
        let before = self.created("CONSUMER.INFO", &name)?;
        storms::hold_all(&self.proxies);
        let at = record::now();
        let deleted = self.ask("CONSUMER.DELETE", &name);
        let accepted = feed.accepted();
        let stored = servers::first_answer(&self.servers, PATIENCE, store::jobs_at);
        storms::calm_all(&self.proxies);
        deleted?;
        let broken = Broken { end: End::Deleted, from: at, at, until: record::now(), stored: BTreeSet::new() };
        self.broke(broken, &accepted, &stored?)?;
        let after = self.created("CONSUMER.INFO", &name)?;
        self.results.consumers_replaced += usize::from(before != after);
        Ok(())
    }

    /// Deletes the stream and makes it anew. The jobs that went with it are known by their ids.
    fn remake_stream(&mut self, feed: &Feed) -> Result<(), Failure> {
        let before = self.created("STREAM.INFO", jobs::QUEUE)?;
        let again = feed.held_back(|| {
            let accepted = feed.accepted();
            let stored = servers::first_answer(&self.servers, PATIENCE, store::jobs_at)?;
            let record = Record::read(&self.folder)?;
            self.look_for_lost(&accepted, &stored, &record);
            self.ask("STREAM.DELETE", jobs::QUEUE)?;
            let (at, record) = (record::now(), Record::read(&self.folder)?);
            let again: BTreeSet<usize> = accepted.into_iter().filter(|number| !record.has_done(*number)).collect();
            let under_way = feed.unsure().into_iter().filter(|(_, (_, until))| *until == u64::MAX);
            let may_repeat = again.iter().copied().chain(under_way.map(|(number, _)| number)).collect();
            self.causes.remakes.push(Remake { at, again: may_repeat });
            self.open_queue()?;
            feed.enqueue_again(&again);
            Ok::<_, Failure>(again.len())
        })?;
        println!("  the stream was made anew; {again} jobs went with it and are enqueued again");
        let after = self.created("STREAM.INFO", jobs::QUEUE)?;
        self.results.streams_replaced += usize::from(before != after);
        Ok(())
    }

    fn open_queue(&mut self) -> Result<(), Failure> {
        let since = Instant::now();
        loop {
            match self.calls.time("open", allowed(2), || worker::open(&self.admin, self.options.cluster)) {
                Ok(queue) => break self.queue = queue,
                Err(error) if since.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
        Ok(())
    }

    /// Returns when the stream or the consumer was made, as soon as there is one.
    fn created(&self, question: &str, name: &str) -> Result<Value, Failure> {
        let ask = |port| Ok(Store::connect(port)?.demand(&format!("{question}.{name}"))?["created"].clone());
        Ok(servers::first_answer(&self.servers, PATIENCE, ask)?)
    }

    /// Asks the server's API through the crate, again while there is no answer.
    fn ask(&self, call: &str, name: &str) -> Result<(), Failure> {
        let (since, subject) = (Instant::now(), format!("$JS.API.{call}.{name}"));
        let mut is_repeated = false;
        loop {
            let answer = self.calls.time("request", allowed(1), || self.admin.request(&subject, ""));
            let text = match &answer {
                Ok(answer) => answer.text().unwrap_or_default().to_owned(),
                Err(error) => error.to_string(),
            };
            // If it is gone at a later try, the first one was heard and its answer was lost.
            if text.contains("\"success\":true") || is_repeated && text.contains("not found") {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                return Err(format!("{call}: {text}").into());
            }
            is_repeated = true;
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Enqueues the four bad jobs. The crate enqueues no job with a header that cannot be read.
    fn enqueue_bad(&mut self) -> Result<(), Failure> {
        let large = vec![b'x'; (1 << 20) - 200];
        for (id, payload) in [(jobs::HANGING, &b""[..]), (jobs::ABORTING, b""), (jobs::OVERSIZED, &large)] {
            let since = Instant::now();
            let enqueue = || self.queue.enqueue(jobs::SUBJECT, payload, id);
            while let Err(error) = self.calls.time("enqueue", allowed(1), enqueue) {
                if since.elapsed() > PATIENCE {
                    return Err(error.into());
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
        let headers = format!("Nats-Msg-Id: {}\r\nOrder Number: 7\r\n", jobs::UNPARSABLE);
        let publish = |port| Store::connect(port)?.publish(&headers, "bad");
        self.results.unparsable = Some(servers::first_answer(&self.servers, PATIENCE, publish)?);
        Ok(())
    }
}
