//! Random orders of responses from two nodes of one origin, one of which lags: what viewers see
//! never goes backwards, and nothing is judged a restart.

use proptest::prelude::*;

use super::*;

/// The format of an origin's manifests.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// HLS, with or without dates.
    Hls { dated: bool },
    /// HLS with names that each node signs again for each version.
    Signed,
    /// Low-latency HLS with three parts per segment.
    Parts,
    /// DASH with the time of the request as `publishTime`.
    Stamped,
}

/// A response: milliseconds since the last one, and whether the lagging node sent it.
type Answer = (u64, bool);

/// The version that a node has at a time, with its lag.
fn version(form: Form, now: u64, lag: u64, salt: u64) -> ManifestInfo {
    const SEGMENT: u64 = 4000;
    let media = 1_000_000 + now - lag;
    let last = media / SEGMENT;
    let clock = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    match form {
        Form::Hls { dated } => with(plain(last), |edge| {
            edge.ends = dated.then(|| clock((last + 1) * SEGMENT));
        }),
        Form::Signed => window(last, |number| number * 1_000_000 + salt),
        Form::Parts => with(plain(last), |edge| {
            edge.parts = media % SEGMENT * 3 / SEGMENT;
        }),
        Form::Stamped => ManifestInfo {
            published: Some(clock(now)),
            began: Some(clock(0)),
            edge: Some(LiveEdge {
                last: last * SEGMENT,
                tracks: 2,
                furthest: last * SEGMENT,
                ends: Some(clock(last * SEGMENT)),
                ..LiveEdge::default()
            }),
            ..plain(0)
        },
    }
}

fn forms() -> impl Strategy<Value = Form> {
    prop::sample::select(vec![
        Form::Hls { dated: true },
        Form::Hls { dated: false },
        Form::Signed,
        Form::Parts,
        Form::Stamped,
    ])
}

proptest! {
    #[test]
    fn nothing_goes_backwards_and_nothing_begins_anew(
        form in forms(),
        lag in 0..12_000_u64,
        first_lags: bool,
        answers in proptest::collection::vec((50..2000_u64, any::<bool>()), 1..200),
    ) {
        let answers: Vec<Answer> = answers;
        let start = Instant::now();
        let at = |now: u64| start + Duration::from_millis(now);
        let of = |now, lags: bool, salt| version(form, now, if lags { lag } else { 0 }, salt);
        // By its names, the second version may be the same one, signed again.
        let mut track = Timeline::new(&of(0, first_lags, 0), PERIOD, at(0));
        let mut shown = of(0, first_lags, 0);
        let mut now = 0;
        for (salt, (wait, lags)) in (1..).zip(answers) {
            now += wait;
            // The other node responds at times, as when two nodes alternate.
            let lags = lags && salt % 3 != 0;
            let facts = of(now, lags, salt);
            let progress = track.judge(&facts, at(now));
            prop_assert_ne!(progress, Progress::Restarted);
            track.record(&facts, progress, at(now));
            if progress != Progress::Behind {
                let reach = |facts: &ManifestInfo| {
                    let edge = facts.edge.as_ref().expect("lists segments");
                    (edge.last, edge.parts)
                };
                prop_assert!(reach(&facts) >= reach(&shown));
                shown = facts;
            }
        }
    }
}
