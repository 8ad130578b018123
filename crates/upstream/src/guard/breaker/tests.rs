//! Tests when the breaker opens, probes and closes.

mod orders;

use super::*;

const MS: Duration = Duration::from_millis(1);
const SETTINGS: Settings = Settings {
    error_share: 1.0,
    window: Duration::from_secs(10),
    failed_urls_min: 10,
    probe_after: Duration::from_millis(500),
    probe_after_max: Duration::from_secs(2),
    probe_timeout: Duration::from_secs(3),
};

/// A directory that failed in every test, and one that was never requested.
const FAILED: u64 = 1;
const OTHER: u64 = 99;

/// A breaker and its simulated clock.
struct SimulatedBreaker {
    breaker: Breaker,
    now: Instant,
    urls: u64,
}

fn subject(url: u64, directory: u64) -> FailureSubject {
    FailureSubject { url, directory }
}

impl SimulatedBreaker {
    fn start() -> SimulatedBreaker {
        SimulatedBreaker::with(SETTINGS)
    }

    fn with(settings: Settings) -> SimulatedBreaker {
        let now = Instant::now();
        let breaker = Breaker::new(settings, now);
        let urls = 0;
        SimulatedBreaker { breaker, now, urls }
    }

    fn opened() -> SimulatedBreaker {
        let mut scene = SimulatedBreaker::start();
        scene.fail(10);
        assert!(matches!(scene.breaker.state(), State::Open { .. }));
        scene
    }

    fn admit(&mut self) -> BreakerDecision {
        self.breaker.admit(subject(0, FAILED), self.now)
    }

    fn admission(&mut self) -> BreakerAdmission {
        match self.admit() {
            BreakerDecision::Admit(admission) => admission,
            other => panic!("not let through: {other:?}"),
        }
    }

    fn probe(&mut self) -> BreakerAdmission {
        match self.admit() {
            BreakerDecision::Probe(admission) => admission,
            other => panic!("no probe: {other:?}"),
        }
    }

    fn succeed(&mut self, times: usize) {
        for _ in 0..times {
            let admission = self.admission();
            self.record(admission, true);
        }
    }

    /// This many URLs of one directory fail without a connection.
    fn fail(&mut self, times: u64) {
        for _ in 0..times {
            self.fail_in(FAILED, EndpointFault::Unreachable);
        }
    }

    /// Another URL of a directory fails.
    fn fail_in(&mut self, directory: u64, fault: EndpointFault) {
        self.urls += 1;
        let what = subject(self.urls, directory);
        match self.breaker.admit(what, self.now) {
            BreakerDecision::Admit(admission) | BreakerDecision::Probe(admission) => {
                self.breaker
                    .record_failure(admission, self.now, (what, fault));
            }
            BreakerDecision::Refuse { .. } => panic!("not let through"),
        }
    }

    fn record(&mut self, admission: BreakerAdmission, ok: bool) {
        if ok {
            self.breaker.record_success(admission, self.now);
        } else {
            self.urls += 1;
            let what = (subject(self.urls, FAILED), EndpointFault::Unreachable);
            self.breaker.record_failure(admission, self.now, what);
        }
    }

    fn is_closed(&self) -> bool {
        self.breaker.state() == State::Closed
    }

    /// How long requests are refused from now on.
    fn refused_for(&mut self) -> Duration {
        match self.admit() {
            BreakerDecision::Refuse { until } => until - self.now,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn opens_after_enough_failures_without_a_success() {
    let mut scene = SimulatedBreaker::start();
    scene.succeed(1);
    scene.fail(500);
    assert!(scene.is_closed(), "it answered a moment ago");
    scene.wait(SETTINGS.window);
    scene.fail(9);
    assert!(scene.is_closed(), "too few");
    scene.fail(1);
    assert_eq!(scene.refused_for(), SETTINGS.probe_after);
    assert_eq!(scene.breaker.opened_total(), 1);
}

#[test]
fn opens_at_the_configured_error_share() {
    let mut scene = SimulatedBreaker::with(Settings {
        error_share: 0.5,
        ..SETTINGS
    });
    scene.succeed(12);
    scene.fail(11);
    assert!(scene.is_closed());
    scene.fail(1);
    assert!(!scene.is_closed());
}

#[test]
fn repeated_failures_of_one_url_do_not_open() {
    for fault in [
        EndpointFault::Unreachable,
        EndpointFault::Silent,
        EndpointFault::Gateway,
        EndpointFault::Url,
    ] {
        let mut scene = SimulatedBreaker::start();
        for _ in 0..1000 {
            let admission = scene.admission();
            let what = (subject(5, FAILED), fault);
            scene.breaker.record_failure(admission, scene.now, what);
        }
        assert!(scene.is_closed(), "{fault:?}");
    }
}

#[test]
fn error_responses_open_only_from_three_directories() {
    for fault in [EndpointFault::Gateway, EndpointFault::Url] {
        let mut scene = SimulatedBreaker::start();
        (0..1000).for_each(|url| scene.fail_in(url % 2, fault));
        assert!(scene.is_closed(), "{fault:?}");
        scene.fail_in(7, fault);
        assert!(!scene.is_closed(), "{fault:?}");
    }
}

#[test]
fn url_errors_count_half() {
    let mut scene = SimulatedBreaker::start();
    (0..18).for_each(|url| scene.fail_in(url, EndpointFault::Url));
    assert!(scene.is_closed());
    scene.fail_in(18, EndpointFault::Url);
    assert!(!scene.is_closed());
}

#[test]
fn open_breaker_admits_unfailed_directory_and_success_closes() {
    let mut scene = SimulatedBreaker::opened();
    let other = subject(1000, OTHER);
    assert_eq!(
        scene.breaker.outlook_for(other, scene.now),
        BreakerOutlook::Clear
    );
    let BreakerDecision::Admit(admission) = scene.breaker.admit(other, scene.now) else {
        panic!("not let through");
    };
    let BreakerDecision::Admit(second) = scene.breaker.admit(other, scene.now) else {
        panic!("not let through beside it");
    };
    scene
        .breaker
        .record_failure(admission, scene.now, (other, EndpointFault::Gateway));
    let refused = scene.breaker.admit(other, scene.now);
    assert!(
        matches!(refused, BreakerDecision::Refuse { .. }),
        "it has failed now"
    );
    assert_eq!(
        scene.breaker.record_success(second, scene.now),
        Some(BreakerTransition::Closed)
    );
    assert!(scene.is_closed());
}

#[test]
fn request_of_unfailed_directory_does_not_replace_the_probe() {
    let mut scene = SimulatedBreaker::opened();
    scene.wait(SETTINGS.probe_after);
    let probe = scene.probe();
    let other = subject(1000, OTHER);
    let BreakerDecision::Admit(spared) = scene.breaker.admit(other, scene.now) else {
        panic!("not let through");
    };
    scene.breaker.record_abandoned(spared, scene.now);
    assert_eq!(scene.breaker.state().as_str(), "probing");
    scene.record(probe, false);
    assert_eq!(scene.breaker.state().as_str(), "open");
}

#[test]
fn errors_before_the_window_are_forgotten() {
    let mut scene = SimulatedBreaker::start();
    scene.fail(9);
    scene.wait(SETTINGS.window);
    scene.fail(9);
    assert!(scene.is_closed());
}

#[test]
fn admits_one_probe_and_its_success_closes() {
    let mut scene = SimulatedBreaker::opened();
    scene.wait(SETTINGS.probe_after.saturating_sub(MS));
    assert_eq!(scene.refused_for(), MS);
    scene.wait(MS);
    assert_eq!(scene.breaker.outlook(scene.now), BreakerOutlook::ProbeDue);
    let probe = scene.probe();
    assert_eq!(scene.refused_for(), SETTINGS.probe_timeout);
    scene.record(probe, true);
    assert!(scene.is_closed());
}

#[test]
fn reopening_after_probe_success_needs_full_error_count() {
    let mut scene = SimulatedBreaker::opened();
    scene.wait(SETTINGS.probe_after);
    let probe = scene.probe();
    scene.record(probe, true);
    scene.fail(100);
    assert!(scene.is_closed(), "it answered a moment ago");
    scene.wait(SETTINGS.window);
    scene.fail(9);
    assert!(scene.is_closed());
    scene.fail(1);
    assert!(!scene.is_closed());
}

#[test]
fn failed_probe_doubles_the_wait_up_to_max() {
    let mut scene = SimulatedBreaker::opened();
    let mut waits = Vec::new();
    for _ in 0..4 {
        let wait = scene.refused_for();
        waits.push(wait.as_millis());
        scene.wait(wait);
        let probe = scene.probe();
        scene.record(probe, false);
    }
    assert_eq!(waits, [500, 1000, 2000, 2000]);
    assert_eq!(scene.breaker.opened_total(), 1);
}

#[test]
fn breaker_that_reopens_soon_waits_longer() {
    let mut scene = SimulatedBreaker::opened();
    let mut relapse = |after| {
        let wait = scene.refused_for();
        scene.wait(wait);
        let probe = scene.probe();
        scene.record(probe, true);
        scene.wait(after);
        while scene.is_closed() {
            scene.fail(1);
        }
        scene.refused_for()
    };
    assert_eq!(relapse(SETTINGS.window), SETTINGS.probe_after * 2);
    assert_eq!(relapse(SETTINGS.window * 2), SETTINGS.probe_after);
}

#[test]
fn abandoned_probe_delays_the_next_by_probe_after() {
    let mut scene = SimulatedBreaker::opened();
    scene.wait(SETTINGS.probe_after);
    for _ in 0..3 {
        let probe = scene.probe();
        scene.breaker.record_abandoned(probe, scene.now);
        assert_eq!(scene.refused_for(), SETTINGS.probe_after, "and no longer");
        scene.wait(SETTINGS.probe_after);
    }
    let probe = scene.probe();
    scene.record(probe, true);
    assert_eq!(scene.breaker.state(), State::Closed);
}

#[test]
fn abandoned_probe_delays_the_next_by_a_minimum() {
    let mut scene = SimulatedBreaker::start();
    scene.breaker.settings.probe_after = Duration::from_nanos(1);
    scene.fail(10);
    scene.wait(MS);
    let probe = scene.probe();
    scene.breaker.record_abandoned(probe, scene.now);
    assert_eq!(scene.refused_for(), LOST_WAIT_MIN);
}

#[test]
fn released_probe_allows_the_next_at_once() {
    let mut scene = SimulatedBreaker::opened();
    scene.wait(SETTINGS.probe_after);
    let probe = scene.probe();
    scene.breaker.release(probe, scene.now);
    let probe = scene.probe();
    scene.record(probe, true);
    assert_eq!(scene.breaker.state(), State::Closed);
}

#[test]
fn results_of_requests_from_before_opening_are_ignored() {
    let mut scene = SimulatedBreaker::start();
    let stragglers = [
        scene.admission(),
        scene.admission(),
        scene.admission(),
        scene.admission(),
    ];
    let [good, bad, lost, late] = stragglers;
    scene.fail(10);
    scene.wait(SETTINGS.probe_after);
    let probe = scene.probe();
    let probing = scene.breaker.state();
    scene.record(good, true);
    scene.record(bad, false);
    scene.breaker.record_abandoned(lost, scene.now);
    assert_eq!(scene.breaker.state(), probing);
    scene.record(probe, true);
    scene.wait(SETTINGS.window);
    scene.fail(9);
    scene.record(late, false);
    assert!(scene.is_closed());
}

#[test]
fn late_probe_does_not_block_others_and_its_success_closes() {
    let mut scene = SimulatedBreaker::opened();
    scene.wait(SETTINGS.probe_after);
    let slow = scene.probe();
    let slower = {
        scene.wait(SETTINGS.probe_timeout);
        scene.probe()
    };
    scene.wait(SETTINGS.probe_timeout);
    let third = scene.probe();
    scene.record(slow, false);
    assert_eq!(scene.breaker.state().as_str(), "probing");
    scene.record(slower, true);
    assert_eq!(scene.breaker.state(), State::Closed);
    scene.wait(SETTINGS.window);
    scene.record(third, false);
    scene.fail(9);
    assert!(scene.is_closed());
}
