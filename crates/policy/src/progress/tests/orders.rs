//! Random orders of responses from two nodes of one origin, one of which lags: what viewers see
//! never goes backwards, and nothing counts as a restart.

use proptest::prelude::*;

use super::*;

/// The format of an origin's manifests.
#[derive(Clone, Copy, Debug)]
enum ManifestForm {
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
type Response = (u64, bool);

/// The version that a node has at a time, with its lag.
fn version(form: ManifestForm, now: u64, lag: u64, salt: u64) -> ManifestInfo {
    const SEGMENT: u64 = 4000;
    let media = 1_000_000 + now - lag;
    let last = media / SEGMENT;
    let clock = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    match form {
        ManifestForm::Hls { dated } => {
            let end_time = dated.then(|| clock((last + 1) * SEGMENT));
            with(plain(last), |edge| edge.end_time = end_time).into()
        }
        ManifestForm::Signed => window(last, |number| number * 1_000_000 + salt).into(),
        ManifestForm::Parts => with(plain(last), |edge| {
            edge.next_segment_parts = media % SEGMENT * 3 / SEGMENT;
        })
        .into(),
        ManifestForm::Stamped => MpdInfo {
            publish_time: Some(clock(now)),
            availability_start: Some(clock(0)),
            ..mpd(0, (0, last * SEGMENT), 2)
        }
        .into(),
    }
}

fn forms() -> impl Strategy<Value = ManifestForm> {
    prop::sample::select(vec![
        ManifestForm::Hls { dated: true },
        ManifestForm::Hls { dated: false },
        ManifestForm::Signed,
        ManifestForm::Parts,
        ManifestForm::Stamped,
    ])
}

fn reach(info: &ManifestInfo) -> (Option<u64>, u64) {
    let parts = info
        .playlist_edge()
        .map_or(0, |edge| edge.next_segment_parts);
    (end(info), parts)
}

proptest! {
    #[test]
    fn lagging_node_causes_no_regression_and_no_restart(
        form in forms(),
        lag in 0..12_000_u64,
        first_lags: bool,
        responses in proptest::collection::vec((50..2000_u64, any::<bool>()), 1..200),
    ) {
        let responses: Vec<Response> = responses;
        let start = Instant::now();
        let at = |now: u64| start + Duration::from_millis(now);
        let of = |now, lags: bool, salt| version(form, now, if lags { lag } else { 0 }, salt);
        // By its names, the second version may be the same one, signed again.
        let mut timeline = ManifestHistory::new(&of(0, first_lags, 0), INTERVAL, at(0));
        let mut shown = of(0, first_lags, 0);
        let mut now = 0;
        for (salt, (wait, lags)) in (1..).zip(responses) {
            now += wait;
            // The other node responds at times, as when two nodes alternate.
            let lags = lags && salt % 3 != 0;
            let arrived = of(now, lags, salt);
            let progress = timeline.progress_of(&arrived, at(now));
            prop_assert_ne!(progress, Progress::Restarted);
            timeline.record(&arrived, progress, at(now));
            if progress != Progress::Behind {
                prop_assert!(reach(&arrived) >= reach(&shown));
                shown = arrived;
            }
        }
    }
}
