//! Property tests: under random orders of events the limiter never grants too many permits, loses
//! none, and forgets no waiting request.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use proptest::prelude::*;
use tokio::time::advance;

use super::*;

const QUEUE_MAX: usize = 4;
const PACED_PERMITS: usize = 2;
/// The limit changes, but never beyond this.
const PERMITS_MAX: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A request arrives, with this timeout in milliseconds.
    Arrive(Priority, u64),
    /// A woken request polls; others may poll later.
    Look(usize),
    /// A request gives up, woken or not, with a permit reserved or not.
    GiveUp(usize),
    /// A permit is returned.
    Finish(usize),
    /// Milliseconds pass.
    Pass(u64),
    /// The number of permits changes.
    Limit(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let priority = (0..Priority::COUNT).prop_map(|at| Priority::ALL[at]);
    prop_oneof![
        5 => (priority, 0..1000_u64)
            .prop_map(|(priority, timeout)| Event::Arrive(priority, timeout)),
        4 => any::<usize>().prop_map(Event::Look),
        1 => any::<usize>().prop_map(Event::GiveUp),
        3 => any::<usize>().prop_map(Event::Finish),
        2 => (1..80_u64).prop_map(Event::Pass),
        1 => (1..=PERMITS_MAX).prop_map(Event::Limit),
    ]
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A waiting request.
struct WaitingRequest<'a> {
    priority: Priority,
    number: usize,
    until: Instant,
    bell: Arc<Bell>,
    permit: Pin<Box<dyn Future<Output = Result<Permit, Failure>> + 'a>>,
}

/// A limiter, its requests, and the invariants.
struct LimiterModel<'a> {
    limiter: &'a ConcurrencyLimiter,
    limits: LimiterSettings,
    /// As many permits may be in use: more than the limit while those from before it was lowered
    /// are not returned.
    in_flight_max: usize,
    /// Waiting or woken, in order of arrival.
    waiting: Vec<WaitingRequest<'a>>,
    permits: Vec<Permit>,
    /// Requests that arrived, were admitted or were rejected.
    arrived: usize,
    admitted: usize,
    rejected: u64,
    /// When permits were taken, to check the rate.
    taken: Vec<Instant>,
}

impl LimiterModel<'_> {
    async fn apply(&mut self, event: Event) {
        match event {
            Event::Arrive(priority, timeout) => self.arrive(priority, timeout),
            Event::Look(pick) => {
                let woken: Vec<_> = (0..self.waiting.len())
                    .filter(|at| self.waiting[*at].bell.0.load(Ordering::Relaxed))
                    .collect();
                if !woken.is_empty() {
                    self.poll(woken[pick % woken.len()]);
                }
            }
            Event::GiveUp(pick) if !self.waiting.is_empty() => {
                self.waiting.remove(pick % self.waiting.len());
            }
            Event::Finish(pick) if !self.permits.is_empty() => {
                self.permits.swap_remove(pick % self.permits.len());
            }
            Event::GiveUp(_) | Event::Finish(_) => {}
            Event::Pass(ms) => advance(Duration::from_millis(ms)).await,
            Event::Limit(concurrency_max) => {
                let in_flight = self.limiter.counts().in_flight;
                self.limits.concurrency_max = concurrency_max;
                self.limiter.set_limits(&self.limits);
                self.in_flight_max = in_flight.max(concurrency_max);
            }
        }
        self.check();
        let in_flight = self.limiter.counts().in_flight;
        self.in_flight_max = in_flight.max(self.limits.concurrency_max);
    }

    fn arrive(&mut self, priority: Priority, timeout: u64) {
        let timeout = Duration::from_millis(timeout);
        self.waiting.push(WaitingRequest {
            priority,
            number: self.arrived,
            until: Instant::now() + timeout,
            bell: Arc::default(),
            permit: Box::pin(self.limiter.acquire(priority, timeout)),
        });
        self.arrived += 1;
        self.poll(self.waiting.len() - 1);
    }

    fn poll(&mut self, at: usize) {
        let request = &mut self.waiting[at];
        request.bell.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&request.bell));
        match request
            .permit
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
        {
            Poll::Pending => {}
            Poll::Ready(Ok(permit)) => {
                self.waiting.remove(at);
                self.permits.push(permit);
                self.admitted += 1;
                self.taken.push(Instant::now());
            }
            Poll::Ready(Err(failure)) => {
                assert_eq!(failure, Failure::Busy);
                self.waiting.remove(at);
                self.rejected += 1;
            }
        }
    }

    /// Polls all woken requests until none is left.
    fn calm(&mut self) {
        while let Some(at) =
            (0..self.waiting.len()).find(|at| self.waiting[*at].bell.0.load(Ordering::Relaxed))
        {
            self.poll(at);
        }
    }

    /// Advances the clock by 1 ms at a time, without other events.
    async fn wait(&mut self, ms: u64) {
        for _ in 0..ms {
            advance(Duration::from_millis(1)).await;
            self.calm();
        }
    }

    fn check(&self) {
        let LimiterCounts {
            in_flight, queued, ..
        } = self.limiter.counts();
        let queued: usize = queued.iter().sum();
        assert!(in_flight <= self.in_flight_max, "too many permits");
        assert!(queued <= QUEUE_MAX, "too many in the queue");
        assert!(
            self.permits.len() <= in_flight,
            "a permit that was not given"
        );
        let reserved = in_flight - self.permits.len();
        assert!(reserved + queued <= self.waiting.len(), "a leak");
    }

    /// After all polls: the counts match, and no request waits without reason or forever.
    fn check_calm(&self) {
        self.check();
        let counts = self.limiter.counts();
        let counted = Priority::ALL.map(|priority| {
            let same = |request: &&WaitingRequest| request.priority == priority;
            self.waiting.iter().filter(same).count()
        });
        assert_eq!(counts.queued, counted, "who waits");
        assert_eq!(counts.in_flight, self.permits.len(), "a lost permit");
        assert!(counts.rejected.iter().sum::<u64>() >= self.rejected);
        let now = Instant::now();
        assert!(
            self.waiting.iter().all(|request| request.until > now),
            "late"
        );
    }
}

fn limits(concurrency_max: usize, requests_per_second_max: Option<u32>) -> LimiterSettings {
    LimiterSettings {
        concurrency_max,
        reserved_for_manifests: 0,
        queue_max: QUEUE_MAX,
        requests_per_second_max,
    }
}

/// Runs the events under a paused clock.
fn play(
    limits: &LimiterSettings,
    events: Vec<Event>,
    then: impl AsyncFnOnce(&mut LimiterModel<'_>),
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let limiter = ConcurrencyLimiter::new(limits);
    runtime.block_on(async {
        let mut scene = LimiterModel {
            limiter: &limiter,
            in_flight_max: limits.concurrency_max,
            limits: *limits,
            waiting: Vec::new(),
            permits: Vec::new(),
            arrived: 0,
            admitted: 0,
            rejected: 0,
            taken: Vec::new(),
        };
        for event in events {
            scene.apply(event).await;
        }
        // Applies what became due since the last poll.
        scene.wait(1).await;
        scene.check_calm();
        then(&mut scene).await;
        scene.waiting.clear();
        scene.permits.clear();
    });
    let LimiterCounts {
        in_flight, queued, ..
    } = limiter.counts();
    assert_eq!(
        (in_flight, queued),
        (0, [0; Priority::COUNT]),
        "left behind"
    );
}

proptest! {
    /// Without a rate limit, requests wait only for permits, which are granted by priority, then
    /// age.
    #[test]
    fn permits_are_never_lost_and_never_exceed_the_limit(
        concurrency_max in 1..=PERMITS_MAX,
        events in proptest::collection::vec(event(), 0..80),
    ) {
        play(&limits(concurrency_max, None), events, async |scene| {
            let is_waiting = !scene.waiting.is_empty();
            let concurrency_max = scene.limits.concurrency_max;
            assert!(!is_waiting || scene.permits.len() >= concurrency_max, "a permit is idle");
            scene.permits.truncate(concurrency_max);
            while !scene.waiting.is_empty() {
                let by_priority = |request: &&WaitingRequest| (request.priority, request.number);
                let next = scene.waiting.iter().min_by_key(by_priority);
                let next = next.map(|request| request.number);
                let admitted = scene.admitted;
                scene.permits.pop();
                scene.calm();
                assert_eq!(scene.admitted, admitted + 1, "one permit, one request");
                let is_next = |request: &WaitingRequest| Some(request.number) == next;
                assert!(!scene.waiting.iter().any(is_next), "the first");
            }
        });
    }

    /// With a rate limit, no second has more than the rate and the burst, and each waiting request
    /// gets a permit when a token becomes available, without other events.
    #[test]
    fn rate_limit_holds_in_any_event_order(
        per_second in 5..60_u32,
        events in proptest::collection::vec(event(), 0..80),
    ) {
        play(&limits(PACED_PERMITS, Some(per_second)), events, async |scene| {
            while !scene.waiting.is_empty() {
                while !scene.permits.is_empty() {
                    scene.permits.clear();
                    scene.calm();
                }
                let (there, admitted) = (scene.waiting.len(), scene.admitted);
                scene.wait(1000 / u64::from(per_second) + 1).await;
                let progress = scene.admitted > admitted || scene.waiting.len() < there;
                assert!(progress || there == 0, "no request owns the timer");
            }
            let most = usize::try_from(per_second + (per_second / 10).max(1)).unwrap();
            for (at, start) in scene.taken.iter().enumerate() {
                let within = scene.taken[at..]
                    .iter()
                    .take_while(|taken| **taken < *start + Duration::from_secs(1));
                // Requests admitted before that second may notice it within it.
                assert!(within.count() <= most + PERMITS_MAX, "faster than the pace");
            }
        });
    }
}
