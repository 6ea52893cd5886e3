//! Streams under the limit and the deadline, and callers that are built in other ways.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use common::{Foreign, LIMIT, attempt, caller, pool, quick, with_watchdog};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, StdError, http};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use workcrew::JoinError;
use workcrew::grpc::{CallError, Caller, MessageStream, MethodConfig, Target};
use workcrew::retry::GiveUpReason;
use workcrew_interop::{RawClient, Script, Server, vacant_address};

/// The closure of a call whose answer is a stream.
fn streaming(
    method: &'static str,
    text: &str,
) -> impl FnMut(Target) -> BoxFuture<Response<Streaming<Vec<u8>>>, Status> + Send + 'static {
    let text = text.to_owned();
    move |target| {
        let request = Request::new(text.clone());
        Box::pin(async move { RawClient::new(target).stream(method, request).await })
    }
}

/// Reads a stream inside the closure.
fn collecting(
    method: &'static str,
    text: &str,
) -> impl FnMut(Target) -> BoxFuture<Response<usize>, Status> + Send + 'static {
    let mut open = streaming(method, text);
    move |target| {
        let opened = open(target);
        Box::pin(async move {
            let mut stream = opened.await?.into_inner();
            let mut count = 0;
            while stream.message().await?.is_some() {
                count += 1;
            }
            Ok(Response::new(count))
        })
    }
}

/// A figure of what the server has seen of a key.
fn seen(caller: &Caller, key: &str, figure: &str) -> usize {
    let report = caller.call_blocking(attempt("Stats", key)).unwrap().into_inner();
    let mut parts = report.split(' ').map(|part| part.split_once('=').unwrap());
    parts.find(|(name, _)| *name == figure).unwrap().1.parse().unwrap()
}

fn wait_for(caller: &Caller, key: &str, figure: &str, value: usize) {
    let since = Instant::now();
    while seen(caller, key, figure) != value {
        assert!(since.elapsed() < LIMIT, "{figure} of {key} is {}", seen(caller, key, figure));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn on_both_servers(test: impl Fn(SocketAddr)) {
    with_watchdog(|| {
        let own = Server::start(&Script::default());
        test(own.address());
        drop(own);
        if let Some(foreign) = Foreign::start(0) {
            test(foreign.address);
        }
    });
}

/// Fault 186.
#[test]
fn ten_streams_with_a_limit_of_two_are_never_more_than_two() {
    on_both_servers(|address| {
        let pool = pool(2, 16);
        let watcher = caller(address).build(&pool).unwrap();
        let two = caller(address).max_in_flight(2).timeout(LIMIT).build(&pool).unwrap();
        // Handed out to a reader.
        let open: Vec<_> = (0..2).map(|_| two.stream(streaming("Hold", "hold 1")).unwrap()).collect();
        wait_for(&watcher, "hold", "attempts", 2);
        assert!(two.try_stream(streaming("Hold", "hold 1")).unwrap_err().is_full());
        assert!(two.try_call(attempt("Echo", "a b")).unwrap_err().is_full());
        assert_eq!((two.in_flight(), seen(&watcher, "hold", "attempts")), (2, 2));
        drop(open);
        wait_for(&watcher, "hold", "cancelled", 2);
        let totals: Vec<_> = std::thread::scope(|scope| {
            let read = || two.stream(streaming("Stream", "ten 100")).unwrap().map(Result::unwrap).count();
            let readers: Vec<_> = (0..10).map(|_| scope.spawn(read)).collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).collect()
        });
        assert_eq!(totals, [100; 10]);
        // Read inside the closure.
        let calls: Vec<_> = (0..10).map(|_| two.call(collecting("Stream", "ten 100")).unwrap()).collect();
        for call in calls {
            assert_eq!(call.join().unwrap().unwrap().into_inner(), 100);
        }
        assert!(seen(&watcher, "ten", "peak") <= 2);
        // Handed out by a plain call: refused, and closed.
        for n in 1..=10 {
            let error = two.call_blocking(streaming("Hold", "out 1")).map(drop).unwrap_err();
            assert_eq!((error.code(), error.attempts()), (Code::FailedPrecondition, 1));
            assert_eq!(error.reason(), Some(GiveUpReason::Permanent));
            assert!(error.to_string().contains("Caller::stream"), "{error}");
            wait_for(&watcher, "out", "cancelled", n);
        }
        assert_eq!(seen(&watcher, "out", "peak"), 1);
    });
}

/// Fault 186.
#[test]
fn a_stream_that_is_kept_elsewhere_ends_with_its_call() {
    on_both_servers(|address| {
        let pool = pool(1, 4);
        let caller = caller(address).build(&pool).unwrap();
        let kept = Arc::new(Mutex::new(None));
        let (inner, mut open) = (Arc::clone(&kept), streaming("Hold", "kept 3"));
        let error = caller.call_blocking(move |target| {
            let (inner, opened) = (Arc::clone(&inner), open(target));
            async move {
                *inner.lock().unwrap() = Some(opened.await?.into_inner());
                Ok(Response::new(()))
            }
        });
        assert_eq!(error.unwrap_err().code(), Code::FailedPrecondition);
        let mut stream = kept.lock().unwrap().take().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ended = runtime.block_on(async {
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {} // what had arrived
                    Ok(None) => panic!("it ends well"),
                    Err(status) => break status,
                }
            }
        });
        assert_eq!(ended.code(), Code::FailedPrecondition);
        wait_for(&caller, "kept", "cancelled", 1);
    });
}

/// Fault 186.
#[test]
fn the_timeout_of_a_stream_is_for_the_whole_stream() {
    on_both_servers(|address| {
        let pool = pool(2, 16);
        let watcher = caller(address).build(&pool).unwrap();
        let policy = quick().attempt_timeout(Duration::from_millis(50));
        let short = caller(address).timeout(Duration::from_millis(400)).retry(policy).build(&pool).unwrap();
        assert_eq!(seen(&short, "slow", "attempts"), 0); // connects
        let since = Instant::now();
        let mut stream = short.stream(streaming("Hold", "slow 3")).unwrap();
        for number in ["0", "1", "2"] {
            assert_eq!(stream.next().unwrap().unwrap(), number.as_bytes());
        }
        let error = stream.next().unwrap().unwrap_err();
        assert!(error.is_deadline() && error.attempts() == 1, "{error:?}");
        // The time for an attempt is the time until the first message.
        assert!(since.elapsed() >= Duration::from_millis(300), "{:?}", since.elapsed());
        assert!(stream.next().is_none() && stream.next().is_none());
        wait_for(&watcher, "slow", "cancelled", 1);
        let error = short.call_blocking(collecting("Hold", "inside 3")).unwrap_err();
        assert!(error.is_deadline(), "{error:?}");
        wait_for(&watcher, "inside", "cancelled", 1);
    });
}

/// Fault 186.
#[test]
fn a_stream_is_tried_again_before_its_first_message_and_never_after() {
    on_both_servers(|address| {
        let pool = pool(2, 16);
        let caller = caller(address).retry(quick().max_attempts(3)).build(&pool).unwrap();
        let mut read = caller.stream(streaming("Broken", "two 2")).unwrap();
        assert_eq!([read.next().unwrap().unwrap(), read.next().unwrap().unwrap()], [b"0", b"1"]);
        let error = read.next().unwrap().unwrap_err();
        assert_eq!(
            (error.code(), error.attempts(), error.reason()),
            (Code::Unavailable, 1, Some(GiveUpReason::Permanent))
        );
        let error = caller.stream(streaming("Broken", "none 0")).unwrap().next().unwrap().unwrap_err();
        assert_eq!((error.attempts(), error.reason()), (3, Some(GiveUpReason::Attempts)));
        assert_eq!((seen(&caller, "two", "attempts"), seen(&caller, "none", "attempts")), (1, 3));
        assert_eq!(caller.stream(streaming("Stream", "empty 0")).unwrap().count(), 0);
    });
}

/// Fault 186.
#[test]
fn a_slow_or_dropped_reader_delays_only_its_own_stream() {
    on_both_servers(|address| {
        let pool = pool(2, 16);
        let caller = caller(address).max_in_flight(3).stream_buffer(1).build(&pool).unwrap();
        let slow = caller.stream(streaming("Hold", "slow 100")).unwrap();
        assert_eq!(caller.stream(streaming("Stream", "quick 1000")).unwrap().count(), 1_000);
        assert_eq!(caller.in_flight(), 1);
        drop(slow);
        wait_for(&caller, "slow", "cancelled", 1);
        // An async reader gives up a wait, and loses nothing.
        let mut stream: MessageStream<_> = caller.stream(streaming("Stream", "async 50")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut numbers = 0;
        runtime.block_on(async {
            loop {
                match tokio::time::timeout(Duration::from_micros(50), stream.message()).await {
                    Err(_) => {}
                    Ok(Ok(Some(number))) => {
                        assert_eq!(number, numbers.to_string().into_bytes());
                        numbers += 1;
                    }
                    Ok(Ok(None)) => break,
                    Ok(Err(error)) => panic!("{error:?}"),
                }
            }
        });
        assert_eq!(numbers, 50);
        // On the I/O thread a blocking read would wait for itself.
        let inner = caller.clone();
        let nested = caller.call_blocking(move |_: Target| {
            let mut stream = inner.stream(streaming("Stream", "inside 5")).unwrap();
            let refused = stream.next().unwrap().unwrap_err();
            let is_refused =
                matches!(refused.join_error(), Some(JoinError::WouldDeadlock(_))) && stream.next().is_none();
            async move { Ok(Response::new(is_refused)) }
        });
        assert!(nested.unwrap().into_inner());
        // The pool's end ends the stream, and says so.
        let mut held = caller.stream(streaming("Hold", "held 1")).unwrap();
        held.next().unwrap().unwrap();
        pool.shutdown_now();
        assert!(held.next().unwrap().unwrap_err().is_shut_down());
    });
}

/// Counts the requests that go through, and refuses some.
#[derive(Clone)]
struct Counted<S> {
    inner: S,
    calls: Arc<AtomicUsize>,
    /// How many times it is not ready.
    unready: Arc<AtomicUsize>,
}

impl<S> Service<http::Request<Body>> for Counted<S>
where
    S: Service<http::Request<Body>>,
    S::Error: Into<StdError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = StdError;
    type Future = BoxFuture<S::Response, StdError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        let less = |left: usize| left.checked_sub(1);
        if self.unready.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            return Poll::Ready(Err("too busy".into()));
        }
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.inner.call(request);
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            // The third request never gets to the channel.
            if number == 2 { Err("lost".into()) } else { answer.await.map_err(Into::into) }
        })
    }
}

/// Fault 189.
#[test]
fn a_caller_over_a_service_with_several_endpoints_retries_unsent_requests() {
    with_watchdog(|| {
        let servers = [Server::start(&Script::default()), Server::start(&Script::default())];
        let endpoints = servers.each_ref().map(|server| Endpoint::from_shared(format!("http://{}", server.address())));
        let (calls, unready) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counted = (Arc::clone(&calls), Arc::clone(&unready));
        let make = move || {
            let inner = Channel::balance_list(endpoints.into_iter().map(Result::unwrap));
            Counted { inner, calls: counted.0, unready: counted.1 }
        };
        let pool = pool(1, 4);
        let caller = Caller::over_with(make).retry(quick()).connect(&pool).unwrap();
        for n in 0..20 {
            assert_eq!(caller.call_blocking(attempt("Echo", &format!("n {n}"))).unwrap().into_inner(), n.to_string());
        }
        assert_eq!(calls.load(Ordering::SeqCst), 21, "the lost one was tried again");
        unready.store(3, Ordering::SeqCst);
        assert!(caller.call_blocking(attempt("Echo", "a b")).is_ok());
        assert_eq!((calls.load(Ordering::SeqCst), unready.load(Ordering::SeqCst)), (22, 0));
        unready.store(1, Ordering::SeqCst);
        let once = caller.clone().with_retry(quick().max_attempts(1));
        let error = once.call_blocking(attempt("Echo", "a b")).unwrap_err();
        assert_eq!((error.code(), error.is_unsent()), (Code::Unavailable, true));
        assert!(error.to_string().contains("too busy"), "{error}");
        // Over a plain channel, which another runtime drives.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = servers[0].address();
        let channel = {
            let _inside = runtime.enter();
            Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
        };
        let over = Caller::over(channel).retry(quick()).timeout(LIMIT).build(&pool).unwrap();
        assert!(over.call_blocking(attempt("Echo", "a b")).is_ok());
        drop(runtime);
        let error = over.call_blocking(attempt("Echo", "a b")).unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    });
}

/// Fault 189.
#[test]
fn interceptors_see_each_attempt_and_may_refuse_it() {
    on_both_servers(|address| {
        let pool = pool(1, 4);
        let (token, refuses) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (fresh, refused) = (Arc::clone(&token), Arc::clone(&refuses));
        let caller = caller(address)
            .retry(quick())
            .intercept(move |mut request| {
                let bearer = format!("Bearer {}", fresh.fetch_add(1, Ordering::SeqCst));
                request.metadata_mut().insert("authorization", bearer.parse().unwrap());
                Ok(request)
            })
            .intercept(move |mut request| {
                if refused.load(Ordering::SeqCst) {
                    return Err(Status::unauthenticated("no token"));
                }
                let seen = request.metadata().get("authorization").cloned().unwrap();
                request.metadata_mut().insert("seen", seen);
                Ok(request)
            })
            .build(&pool)
            .unwrap();
        let traced = |key: &str| caller.call_blocking(attempt("Trace", &format!("t {key}"))).unwrap().into_inner();
        assert_eq!((traced("authorization"), traced("seen")), ("Bearer 0".into(), "Bearer 1".into()));
        assert_eq!(caller.call_blocking(attempt("Fail", "f UNAVAILABLE 2")).unwrap().into_inner(), "3");
        assert_eq!(traced("authorization"), "Bearer 5", "each attempt has its own");
        refuses.store(true, Ordering::SeqCst);
        let error = caller.call_blocking(attempt("Echo", "a b")).unwrap_err();
        assert_eq!((error.code(), error.attempts()), (Code::Unauthenticated, 1));
        assert_eq!(error.status().message(), "no token");
        // A panic ends the call, and no other.
        refuses.store(false, Ordering::SeqCst);
        let panics = common::caller(address).intercept(|_| panic!("in the interceptor")).build(&pool).unwrap();
        let error = panics.call_blocking(attempt("Echo", "a b")).unwrap_err();
        assert!(matches!(error.join_error(), Some(JoinError::Panicked(_))));
        assert!(caller.call_blocking(attempt("Echo", "a b")).is_ok());
    });
}

/// Fault 189.
#[test]
fn a_method_has_settings_of_its_own() {
    on_both_servers(|address| {
        let pool = pool(2, 16);
        let caller = caller(address)
            .retry(quick().max_attempts(2))
            .timeout(Duration::from_secs(50))
            .method("/interop.Script/", MethodConfig::new().retry(quick().max_attempts(4)))
            .method("/interop.Script/Pushback", MethodConfig::new().retry(quick().max_attempts(1)))
            .method("/interop.Script/Slow", MethodConfig::new().timeout(Duration::from_millis(200)).idempotent())
            .method("/other.Service/", MethodConfig::new().retry(quick().max_attempts(9)))
            .build(&pool)
            .unwrap();
        let attempts = |method, text| caller.call_blocking(attempt(method, text)).unwrap_err().attempts();
        assert_eq!(attempts("Fail", "a UNAVAILABLE 99"), 4);
        assert_eq!(attempts("Pushback", "b 1 99"), 1);
        let since = Instant::now();
        let error = caller.call_blocking(attempt("Slow", "slow 60000")).unwrap_err();
        assert!(error.is_deadline() && since.elapsed() < Duration::from_secs(40), "{error:?}");
        // What a clone overrides comes first; of two times the shorter one counts.
        let own = caller.clone().with_retry(quick().max_attempts(3)).with_timeout(LIMIT);
        assert_eq!(own.call_blocking(attempt("Fail", "c UNAVAILABLE 99")).unwrap_err().attempts(), 3);
        let since = Instant::now();
        assert!(own.call_blocking(attempt("Slow", "slow 60000")).unwrap_err().is_deadline());
        assert!(since.elapsed() < LIMIT / 2);
    });
}

/// Faults 182 and 187.
#[test]
fn metadata_that_is_absurd_is_carried_or_refused_and_never_panics() {
    on_both_servers(|address| {
        let pool = pool(1, 4);
        let mut incoming = MetadataMap::new();
        for n in 0..2_000 {
            incoming.append("many", n.to_string().parse().unwrap());
        }
        incoming.insert("blank", "".parse().unwrap());
        let plain = caller(address).retry(quick()).build(&pool).unwrap();
        let carrying = plain.clone().propagate(&incoming, &["many", "", "blank", "no such", "\u{fc}"]);
        let answer = carrying.call_blocking(attempt("Echo", "a b"));
        // grpcio refuses this number of entries without a text, so the call looks like one to a full server.
        let is_told = |error: &CallError| !error.status().message().is_empty();
        let is_once = answer.as_ref().is_err_and(|error| error.attempts() == 1 || !is_told(error));
        assert!(answer.is_ok() || is_once, "{answer:?}");
        assert!(plain.call_blocking(attempt("Echo", "a b")).is_ok());
        assert!(caller(vacant_address()).build(&pool).unwrap().propagate(&incoming, &[]).in_flight() == 0);
    });
}
