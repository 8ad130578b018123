//! `seawall warm --bandwidth-max` leaves no track of an MPD out: of each adaptation set it fetches
//! at least the representation that needs least.

use std::collections::BTreeSet;

use crate::support::warmed::Warmed;
use crate::support::{Origin, reply, segment};

/// An adaptation set. Each representation has its own directory, an init segment and two segments.
fn set(attributes: &str, representations: &[(&str, &str)]) -> String {
    let representation =
        |(id, bandwidth): &(&str, &str)| format!("<Representation id='{id}' {bandwidth}/>");
    let representations: String = representations.iter().map(representation).collect();
    format!(
        "<AdaptationSet {attributes}><SegmentTemplate duration='2' \
         initialization='$RepresentationID$/i.mp4' media='$RepresentationID$/$Number$.m4s'/>\
         {representations}</AdaptationSet>"
    )
}

/// The directories of which a run with this limit has fetched all three objects.
async fn fetched(periods: &[String], bandwidth_max: &str, ids: &[&str]) -> BTreeSet<String> {
    let period = |sets: &String| format!("<Period duration='PT4S'>{sets}</Period>");
    let periods: String = periods.iter().map(period).collect();
    let mpd = format!("<MPD type='static'>{periods}</MPD>");
    let mpd = reply().content_type("application/dash+xml").body(mpd);
    let origin = Origin::start().await.on("/d/a.mpd", mpd);
    let targets = |id: &str| ["i.mp4", "1.m4s", "2.m4s"].map(|name| format!("/d/{id}/{name}"));
    for id in ids {
        for target in targets(id) {
            origin.set_script(&target, segment("x"));
        }
    }
    let warmed = Warmed::in_front_of(&origin).await;
    let words = format!("http://media.test/d/a.mpd --bandwidth-max {bandwidth_max}");
    let (summary, is_good) = warmed.summary(&words).await;
    assert!(is_good, "{summary}");
    let hits = |id: &str| targets(id).map(|target| origin.hits(&target));
    let mut fetched = BTreeSet::new();
    for id in ids {
        let hits = hits(id);
        assert!(hits == [0; 3] || hits == [1; 3], "{id}: {hits:?}");
        if hits == [1; 3] {
            fetched.insert((*id).to_owned());
        }
    }
    fetched
}

fn named(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// Two periods, two video sets of different codecs, audio, and subtitles without a bandwidth. The
/// second period's ladder begins higher.
#[tokio::test]
async fn every_set_of_every_period_keeps_its_lowest() {
    let first = [
        set("contentType='audio'", &[("a", "bandwidth='64'")]),
        set(
            "contentType='video' codecs='avc1'",
            &[("v9", "bandwidth='900'"), ("v3", "bandwidth='300'")],
        ),
        set(
            "contentType='video' codecs='hvc1'",
            &[("h2", "bandwidth='200'"), ("h8", "bandwidth='800'")],
        ),
        set("contentType='text'", &[("t1", ""), ("t2", "bandwidth='x'")]),
    ];
    let second = [
        set("contentType='audio'", &[("b", "bandwidth='96'")]),
        set(
            "contentType='video'",
            &[("w5", "bandwidth='500'"), ("w7", "bandwidth='700'")],
        ),
    ];
    let periods = [first.concat(), second.concat()];
    let ids = ["a", "v9", "v3", "h2", "h8", "t1", "t2", "b", "w5", "w7"];
    let lowest = ["a", "v3", "h2", "t1", "t2", "b", "w5"];
    for bandwidth_max in ["1", "100", "300"] {
        assert_eq!(
            fetched(&periods, bandwidth_max, &ids).await,
            named(&lowest),
            "{bandwidth_max}"
        );
    }
    let with_middle = [&lowest[..], &["h8", "w7"]].concat();
    assert_eq!(fetched(&periods, "800", &ids).await, named(&with_middle));
    assert_eq!(fetched(&periods, "1k", &ids).await, named(&ids));
}

/// Packagers that encrypt each resolution with a key of its own write a set for each, and say that
/// players may switch between them: these are variants of one track.
#[tokio::test]
async fn sets_that_players_switch_between_are_one() {
    let linked = |id: &str, others: &str, name: &str, bandwidth: u32| {
        let set = set(
            &format!("id='{id}'"),
            &[(name, &format!("bandwidth='{bandwidth}'"))],
        );
        set.replace(
            "</AdaptationSet>",
            &format!(
                "<SupplementalProperty schemeIdUri='urn:mpeg:dash:adaptation-set-switching:2016' \
                 value='{others}'/></AdaptationSet>"
            ),
        )
    };
    let sets = [
        set("id='9'", &[("a", "bandwidth='64'")]),
        linked("3", "1, 2", "uhd", 5000),
        linked("2", "1,3", "hd", 900),
        linked("1", "2,3", "sd", 300),
    ];
    let periods = [sets.concat()];
    let ids = ["a", "sd", "hd", "uhd"];
    for (bandwidth_max, expected) in [
        ("1", &["a", "sd"][..]),
        ("900", &["a", "sd", "hd"]),
        ("5k", &ids),
    ] {
        assert_eq!(
            fetched(&periods, bandwidth_max, &ids).await,
            named(expected),
            "{bandwidth_max}"
        );
    }
}
