//! Whatever the order in which nodes of one origin answer, and however far one of them lags: what is shown only
//! ever goes on, and nothing looks like a restart.

use proptest::prelude::*;

use super::*;

/// How an origin writes its manifests.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// HLS, with or without dates.
    Hls { dated: bool },
    /// HLS whose names are signed anew by each node and with each version.
    Signed,
    /// Low-latency HLS: three parts a segment.
    Parts,
    /// DASH with the time of the request for a `publishTime`.
    Stamped,
}

/// An answer: after so many milliseconds, by the node that lags or by the other one.
type Answer = (u64, bool);

/// What a node has at a time, which lags by so much.
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
        // As far as the names tell, the second version may be one that was signed anew.
        let mut track = Timeline::new(&of(0, first_lags, 0), PERIOD, at(0));
        let mut shown = of(0, first_lags, 0);
        let mut now = 0;
        for (salt, (wait, lags)) in (1..).zip(answers) {
            now += wait;
            // The other node is heard of now and then, as it is of two that take turns.
            let lags = lags && salt % 3 != 0;
            let facts = of(now, lags, salt);
            let progress = track.judge(&facts, at(now));
            prop_assert_ne!(progress, Progress::Restarted);
            track.take(&facts, progress, at(now));
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
