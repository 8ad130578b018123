//! Tests when an endpoint is ejected, for how long, and that the last one never is.

use proptest::prelude::*;

use super::*;

const BASE: Duration = Duration::from_secs(5);

/// A request that gets no response.
fn silence(url: u64) -> (FailureSubject, EndpointFault) {
    (FailureSubject { url, directory: 1 }, EndpointFault::Silent)
}

/// A request in a directory that gets an error response.
fn refusal(url: u64, directory: u64) -> (FailureSubject, EndpointFault) {
    (FailureSubject { url, directory }, EndpointFault::Gateway)
}

fn ejection() -> Ejection {
    Ejection::new(Settings::default())
}

/// Records failures until the endpoint is ejected. Returns their number and the duration of the
/// ejection.
fn fail(ejection: &mut Ejection, now: Instant) -> (usize, Duration) {
    for failures in 1..100 {
        let what = silence(failures);
        if let Some(until) = ejection.record_failure(now, now, 1, what) {
            assert_eq!(ejection.until(now), Some(until));
            return (usize::try_from(failures).unwrap(), until - now);
        }
    }
    panic!("never ejected");
}

#[test]
fn consecutive_failures_eject() {
    let now = Instant::now();
    let mut ejection = ejection();
    (0..4).for_each(|url| assert_eq!(ejection.record_failure(now, now, 1, silence(url)), None));
    ejection.record_success(now, now);
    assert_eq!(fail(&mut ejection, now), (5, BASE));
    assert_eq!(ejection.until(now + BASE), None);
    assert_eq!(ejection.ejected_total(), 1);
}

#[test]
fn last_endpoint_is_ejected_only_when_another_is_back() {
    let now = Instant::now();
    let mut ejection = ejection();
    (0..20).for_each(|url| assert_eq!(ejection.record_failure(now, now, 0, silence(url)), None));
    assert_eq!(fail(&mut ejection, now), (1, BASE));
}

#[test]
fn failure_on_trial_ejects_longer_up_to_max() {
    let mut now = Instant::now();
    let mut ejection = ejection();
    now += fail(&mut ejection, now).1;
    let mut times = Vec::new();
    for _ in 0..13 {
        let (failures, time) = fail(&mut ejection, now);
        assert_eq!(failures, 1);
        times.push(time.as_secs());
        now += time;
    }
    assert_eq!(times[..3], [10, 15, 20]);
    assert_eq!(times[10..], [60, 60, 60]);
}

#[test]
fn successes_over_time_shorten_the_next_ejection() {
    let mut now = Instant::now();
    let mut ejection = ejection();
    now += fail(&mut ejection, now).1;
    now += fail(&mut ejection, now).1;
    (0..100).for_each(|_| ejection.record_success(now, now));
    assert_eq!(fail(&mut ejection, now), (5, BASE * 3));
    now += BASE * 3;
    for _ in 0..9 {
        now += BASE;
        ejection.record_success(now, now);
    }
    assert_eq!(fail(&mut ejection, now), (5, BASE));
}

#[test]
fn repeated_failures_of_one_url_count_once() {
    let now = Instant::now();
    let mut ejection = ejection();
    for _ in 0..50 {
        assert_eq!(ejection.record_failure(now, now, 1, refusal(7, 1)), None);
    }
    assert_eq!(fail(&mut ejection, now), (4, BASE));
}

#[test]
fn known_refusals_on_trial_are_no_relapse_but_silence_is() {
    let now = Instant::now();
    let mut ejection = ejection();
    for url in 0..4 {
        assert_eq!(ejection.record_failure(now, now, 1, refusal(url, 1)), None);
    }
    assert!(
        ejection
            .record_failure(now, now, 1, refusal(4, 1))
            .is_some()
    );
    let back = now + BASE;
    assert_eq!(ejection.until(now), Some(back));
    assert_eq!(ejection.record_failure(back, back, 1, refusal(9, 1)), None);
    let of_url = (
        FailureSubject {
            url: 9,
            directory: 2,
        },
        EndpointFault::Url,
    );
    assert_eq!(ejection.record_failure(back, back, 1, of_url), None);
    assert!(ejection.is_on_trial());
    assert_eq!(fail(&mut ejection, back), (1, BASE * 2));
}

#[test]
fn failures_served_by_another_endpoint_eject_despite_successes() {
    let now = Instant::now();
    let url = |url| silence(url).0;
    let mut ejection = ejection();
    for number in 0..4 {
        ejection.record_success(now, now);
        assert_eq!(
            ejection.record_success_elsewhere(now, now, 1, url(number)),
            None
        );
        assert_eq!(
            ejection.record_success_elsewhere(now, now, 1, url(0)),
            None,
            "one URL"
        );
    }
    assert!(
        ejection
            .record_success_elsewhere(now, now, 1, url(4))
            .is_some()
    );
}

#[test]
fn few_failures_among_many_successes_do_not_eject() {
    let now = Instant::now();
    let mut ejection = ejection();
    (0..1000).for_each(|_| ejection.record_success(now, now));
    for number in 0..60 {
        assert_eq!(
            ejection.record_success_elsewhere(now, now, 1, silence(number).0),
            None
        );
    }
}

#[test]
fn ejects_endpoint_silent_for_long_on_two_urls() {
    let now = Instant::now();
    let silence = Settings::default().silence;
    let mut ejection = ejection();
    let [one, other] = [1, 2].map(|url| FailureSubject { url, directory: 1 });
    assert_eq!(ejection.record_silence(now, now, 1, one), None);
    ejection.record_contact();
    let later = now + silence;
    assert_eq!(ejection.record_silence(later, later, 1, other), None);
    let later = later + silence;
    assert_eq!(
        ejection.record_silence(later, later, 1, other),
        None,
        "one URL"
    );
    assert_eq!(
        ejection.record_silence(later, later, 0, one),
        None,
        "the last one"
    );
    assert_eq!(
        ejection.record_silence(later, later, 1, one),
        Some(later + BASE)
    );
}

#[test]
fn results_of_requests_from_before_return_are_ignored() {
    let sent = Instant::now();
    let mut ejection = ejection();
    let back = sent + fail(&mut ejection, sent).1;
    assert_eq!(ejection.record_failure(back, sent, 1, silence(1)), None);
    ejection.record_success(back, sent);
    assert_eq!(fail(&mut ejection, back), (1, BASE * 2));
}

#[test]
fn ejects_endpoint_repeatedly_much_slower_than_peers() {
    let now = Instant::now();
    let mut ejection = ejection();
    let (quick, slow) = (Duration::from_millis(200), Duration::from_millis(900));
    let mut judged = |own, peers| ejection.judge_latency(now, own, peers, 1).is_some();
    assert_eq!([judged(slow, quick), judged(slow, quick)], [false, false]);
    assert!(!judged(quick, quick));
    assert_eq!([judged(slow, quick), judged(slow, quick)], [false, false]);
    assert!(judged(slow, quick));
    assert!(!judged(slow, quick), "it is out already");
}

#[test]
fn endpoint_slow_like_peers_or_fast_enough_is_not_ejected() {
    let now = Instant::now();
    let mut ejection = ejection();
    let millis = Duration::from_millis;
    for _ in 0..10 {
        assert_eq!(
            ejection.judge_latency(now, millis(2_000), millis(500), 1),
            None
        );
        assert_eq!(ejection.judge_latency(now, millis(500), millis(1), 1), None);
    }
}

#[test]
fn zero_slow_judgements_setting_means_one() {
    let now = Instant::now();
    let settings = Settings {
        slow_judgements: 0,
        ..Settings::default()
    };
    let mut ejection = Ejection::new(settings);
    let millis = Duration::from_millis;
    assert_eq!(ejection.judge_latency(now, millis(1), millis(1), 1), None);
    let until = ejection.judge_latency(now, millis(900), millis(1), 1);
    assert_eq!(until, Some(now + BASE));
}

#[test]
fn median_is_the_middle_or_lower_middle_value() {
    let median = |times: &[u64]| {
        let mut times: Vec<_> = times.iter().copied().map(Duration::from_secs).collect();
        median(&mut times).map(|median| median.as_secs())
    };
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[3]), Some(3));
    assert_eq!(median(&[9, 1]), Some(1));
    assert_eq!(median(&[9, 1, 4]), Some(4));
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Succeed,
    Fail(usize, u64),
    Outdo(usize, u64),
    Judge(u64, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0_u64..20_000).prop_map(Step::Wait),
        Just(Step::Succeed),
        (0_usize..3, 0_u64..4).prop_map(|(others, url)| Step::Fail(others, url)),
        (0_usize..3, 0_u64..4).prop_map(|(others, url)| Step::Outdo(others, url)),
        (0_u64..2_000, 0_usize..3).prop_map(|(own, others)| Step::Judge(own, others)),
    ];
    proptest::collection::vec(step, 0..300)
}

proptest! {
    #[test]
    fn never_ejects_the_last_endpoint_or_longer_than_max(steps in steps()) {
        let settings = Settings { failures: 2, slow_judgements: 2, ..Settings::default() };
        let mut now = Instant::now();
        let mut ejection = Ejection::new(settings);
        for step in steps {
            let was_out = ejection.until(now).is_some();
            let (ejected, others) = match step {
                Step::Wait(millis) => {
                    now += Duration::from_millis(millis);
                    continue;
                }
                Step::Succeed => {
                    ejection.record_success(now, now);
                    (None, 0)
                }
                Step::Fail(others, url) => {
                    (ejection.record_failure(now, now, others, silence(url)), others)
                }
                Step::Outdo(others, url) => {
                    let subject = silence(url).0;
                    (ejection.record_silence(now, now, others, subject), others)
                }
                Step::Judge(own, others) => {
                    let (own, peers) = (Duration::from_millis(own), Duration::from_millis(100));
                    (ejection.judge_latency(now, own, peers, others), others)
                }
            };
            if let Some(until) = ejected {
                prop_assert!(!was_out && others > 0);
                prop_assert!((BASE..=settings.max).contains(&(until - now)));
            }
            prop_assert_eq!(ejection.until(now).is_some(), was_out || ejected.is_some());
        }
    }
}
