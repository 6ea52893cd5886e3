//! The faults of the network, and when they happen.

use std::collections::BTreeSet;

use crate::network::{Proxy, Used, Weather};
use crate::servers::Server;

/// The share of seconds with a storm.
const OFTEN: f64 = 0.6;
/// How the name of a connection begins that must come through a proxy.
pub(crate) const THROUGH: &str = "through";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storm {
    Is(Weather),
    Cut,
}

/// Changes the weather. Every kind of storm has had its turn before one comes again.
#[derive(Debug)]
pub(crate) struct Storms {
    random: fastrand::Rng,
    /// Those whose turn it is.
    turn: Vec<Storm>,
    /// The proxy that has a storm now.
    place: Option<usize>,
    /// The workers' connections that servers had through a proxy, by the name they gave.
    seen: BTreeSet<String>,
    /// Those that a server had without a proxy.
    around: BTreeSet<String>,
}

impl Storms {
    pub(crate) fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { random, turn: Vec::new(), place: None, seen: BTreeSet::new(), around: BTreeSet::new() }
    }

    /// Ends a storm, and begins another or none.
    pub(crate) fn change(&mut self, proxies: &[Proxy]) {
        self.calm(proxies);
        if self.random.f64() >= OFTEN {
            return;
        }
        if self.turn.is_empty() {
            self.turn = [Weather::Slow, Weather::BlackHole, Weather::Stalled].map(Storm::Is).into_iter().collect();
            self.turn.push(Storm::Cut);
            self.random.shuffle(&mut self.turn);
        }
        let index = self.random.usize(..proxies.len());
        match self.turn.pop() {
            Some(Storm::Is(weather)) => proxies[index].set(weather),
            _ => proxies[index].cut(),
        }
        self.place = Some(index);
    }

    pub(crate) fn calm(&mut self, proxies: &[Proxy]) {
        if let Some(index) = self.place.take() {
            proxies[index].set(Weather::Fine);
        }
    }

    /// Asks the servers for their connections, and notes whether each worker came from a proxy.
    pub(crate) fn look_around(&mut self, servers: &[Server], proxies: &[Proxy]) {
        for guest in servers.iter().flat_map(|server| server.guests().into_iter().flatten()) {
            if !guest.name.starts_with(THROUGH) {
                continue;
            }
            let came_through = proxies.iter().any(|proxy| proxy.has_come_from(guest.port));
            if came_through { &mut self.seen } else { &mut self.around }.insert(guest.name);
        }
    }

    /// Returns how many connections came through a proxy, and the names of those that did not.
    pub(crate) fn guests(&self) -> (usize, &BTreeSet<String>) {
        (self.seen.len(), &self.around)
    }
}

/// Adds up what all proxies have done.
pub(crate) fn used(proxies: &[Proxy]) -> Used {
    proxies.iter().map(Proxy::used).fold(Used::default(), |sum, used| Used {
        connections: sum.connections + used.connections,
        delayed: sum.delayed + used.delayed,
        swallowed: sum.swallowed + used.swallowed,
        unread: sum.unread + used.unread,
        cut: sum.cut + used.cut,
    })
}

/// Lets nothing pass, so that no worker changes what a server has stored.
pub(crate) fn hold_all(proxies: &[Proxy]) {
    proxies.iter().for_each(Proxy::hold);
}

/// Ends all weather.
pub(crate) fn calm_all(proxies: &[Proxy]) {
    proxies.iter().for_each(|proxy| proxy.set(Weather::Fine));
}
