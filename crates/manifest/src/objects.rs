//! Names every object that a manifest lists. A [`Listing`](crate::Listing) has only what is near
//! the live edge; who fills a cache ahead of viewers needs the whole of a film.

use std::ops::ControlFlow;
use std::time::SystemTime;

use super::info::ManifestError;
use super::kind::Kind;
use super::named_object::NamedObject;
use super::{dash, hls};

/// Shows each object that a manifest names, in its order, until `show` wants no more. An object may
/// come several times. Of a live presentation, what is available at `now`.
///
/// The numbers in a manifest limit nothing: a `show` that never breaks may be called for very long.
pub fn each_object(
    kind: Kind,
    body: &[u8],
    now: SystemTime,
    mut show: impl FnMut(NamedObject<'_>) -> ControlFlow<()>,
) -> Result<(), ManifestError> {
    let text = std::str::from_utf8(body).map_err(|_| ManifestError::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match kind {
        Kind::Dash => dash::objects(text, now, &mut show),
        _ => hls::objects(text, &mut show),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::named_object::ObjectRole;
    use super::*;

    fn named(kind: Kind, text: &str, now: SystemTime) -> Vec<(ObjectRole, Option<u64>, String)> {
        let mut named = Vec::new();
        let each = |object: NamedObject<'_>| {
            named.push((object.role, object.bandwidth, object.uri.to_owned()));
            if named.len() < 1000 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let _ = each_object(kind, text.as_bytes(), now, each);
        named
    }

    fn uris(kind: Kind, text: &str) -> Vec<String> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let named = named(kind, text, now).into_iter();
        named.map(|(_, _, uri)| uri).collect()
    }

    #[test]
    fn multivariant_playlist_names_variants_with_their_bandwidth() {
        let text = "#EXTM3U\n#EXT-X-DEFINE:NAME=\"d\",VALUE=\"x\"\n\
            #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",URI=\"a.m3u8\"\n\
            #EXT-X-STREAM-INF:AVERAGE-BANDWIDTH=1,BANDWIDTH=500\n{$d}/v.m3u8\n\
            #EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=7,URI=\"i.m3u8\"\n\
            #EXT-X-SESSION-KEY:METHOD=AES-128,URI=\"k\"\n";
        assert_eq!(
            named(Kind::Hls, text, SystemTime::UNIX_EPOCH),
            [
                (ObjectRole::Rendition, None, "a.m3u8".to_owned()),
                (ObjectRole::Variant, Some(500), "x/v.m3u8".to_owned()),
                (ObjectRole::Frames, Some(7), "i.m3u8".to_owned()),
                (ObjectRole::Key, None, "k".to_owned()),
            ]
        );
    }

    #[test]
    fn media_playlist_names_all_segments_with_map_and_key() {
        let segment = |number| format!("#EXTINF:2,\n{number}.m4s\n");
        let segments: String = (0..500).map(segment).collect();
        let text = format!(
            "#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI=\"k\"\n\
             #EXT-X-MAP:URI=\"i.mp4\",BYTERANGE=\"1@0\"\n{segments}#EXT-X-ENDLIST\n"
        );
        let named = uris(Kind::Hls, &text);
        assert_eq!(named.len(), 502);
        assert_eq!(
            (&*named[0], &*named[1], &*named[501]),
            ("k", "i.mp4", "499.m4s")
        );
    }

    #[test]
    fn static_mpd_names_all_segments_of_every_period() {
        let timeline = "<SegmentTemplate initialization='i' media='$Number$.m4s'>\
             <SegmentTimeline><S t=\"0\" d=\"1\" r=\"99\"/></SegmentTimeline></SegmentTemplate>";
        let numbers = "<SegmentTemplate duration='2' media='n$Number$.m4s'/>";
        let list =
            "<SegmentList><SegmentURL media='l1.m4s'/><SegmentURL media='l2.m4s'/></SegmentList>";
        let period = |n| {
            format!(
                "<Period duration='PT10S'><BaseURL>p{n}/</BaseURL>\
                     <AdaptationSet>{timeline}<Representation id='a' bandwidth='9'/></AdaptationSet>\
                     <AdaptationSet>{numbers}<Representation id='b'/></AdaptationSet>\
                     <AdaptationSet><Representation id='c'>{list}</Representation></AdaptationSet>\
                     <AdaptationSet><Representation id='d'><BaseURL>f.mp4</BaseURL>\
                     <SegmentBase indexRange='1-9'/></Representation></AdaptationSet></Period>"
            )
        };
        let periods: String = (0..5).map(period).collect();
        let named = uris(Kind::Dash, &format!("<MPD type='static'>{periods}</MPD>"));
        assert_eq!(named.len(), 5 * (101 + 5 + 2 + 1), "{named:?}");
        for (place, name) in [
            (0, "p0/i"),
            (1, "p0/1.m4s"),
            (100, "p0/100.m4s"),
            (101, "p0/n1.m4s"),
            (105, "p0/n5.m4s"),
            (106, "p0/l1.m4s"),
            (108, "p0/f.mp4"),
            (109, "p1/i"),
        ] {
            assert_eq!(named[place], name);
        }
    }

    /// Nothing that is kept moves for what comes later: the work is linear.
    #[test]
    fn longest_segment_list_is_cut_off_at_its_end() {
        let url = |number| format!("<SegmentURL media='{number}'/>");
        let urls: String = (0..200_010).map(url).collect();
        let list = format!("<Representation id='a'><SegmentList>{urls}</SegmentList>");
        let text = format!(
            "<MPD type='static'><Period><AdaptationSet>{list}</Representation></AdaptationSet>\
             </Period></MPD>"
        );
        let (mut first, mut count) = (None, 0);
        let each = |object: NamedObject<'_>| {
            first.get_or_insert_with(|| object.uri.to_owned());
            count += 1;
            ControlFlow::Continue(())
        };
        let _ = each_object(Kind::Dash, text.as_bytes(), SystemTime::UNIX_EPOCH, each);
        assert_eq!((first.as_deref(), count), (Some("0"), 200_001));
    }

    #[test]
    fn tracks_are_the_sets_of_each_period() {
        let set = |name: &str| {
            format!(
                "<AdaptationSet><SegmentTemplate media='{name}$Number$' duration='9'/>\
                 <Representation/></AdaptationSet>"
            )
        };
        let linked = |id: &str, other: &str, name: &str| {
            let property = format!(
                "<SupplementalProperty value='{other}' \
                 schemeIdUri='urn:mpeg:dash:adaptation-set-switching:2016'/>"
            );
            let set = set(name).replacen('>', &format!(" id='{id}'>{property}"), 1);
            assert!(set.contains(&property));
            set
        };
        let sets = [linked("1", "2", "a"), set("b"), linked("2", "1", "c")];
        let period = format!("<Period duration='PT9S'>{}</Period>", sets.concat());
        let text = format!("<MPD type='static'>{period}{period}</MPD>");
        let mut tracks = Vec::new();
        let each = |object: NamedObject<'_>| {
            tracks.push((object.uri.to_owned(), object.track));
            ControlFlow::Continue(())
        };
        each_object(Kind::Dash, text.as_bytes(), SystemTime::UNIX_EPOCH, each).unwrap();
        let expected = [
            ("a1", 0),
            ("b1", 1),
            ("c1", 0),
            ("a1", 3),
            ("b1", 4),
            ("c1", 3),
        ];
        assert_eq!(
            tracks,
            expected.map(|(name, track)| (name.to_owned(), track))
        );
    }

    #[test]
    fn live_mpd_names_the_window_at_the_clock() {
        let text = "<MPD type='dynamic' availabilityStartTime='1970-01-01T00:00:00Z' \
             timeShiftBufferDepth='PT6S' minimumUpdatePeriod='PT2S'><Period start='PT0S'>\
             <AdaptationSet><SegmentTemplate duration='2' media='$Number$.m4s'/>\
             <Representation id='a'/></AdaptationSet></Period></MPD>";
        assert_eq!(
            uris(Kind::Dash, text),
            ["47.m4s", "48.m4s", "49.m4s", "50.m4s"]
        );
    }

    /// A number in the text costs nothing until the caller wants the names.
    #[test]
    fn endless_lists_end_with_the_callers_interest() {
        for text in [
            "<MPD type='static' mediaPresentationDuration='P9999999D'><Period><AdaptationSet>\
             <SegmentTemplate duration='1' timescale='1000' media='$Number$'/>\
             <Representation/></AdaptationSet></Period></MPD>",
            "<MPD type='static'><Period><AdaptationSet><SegmentTemplate media='$Number$'>\
             <SegmentTimeline><S t='0' d='1' r='9000000000000000000'/></SegmentTimeline>\
             </SegmentTemplate><Representation/></AdaptationSet></Period></MPD>",
        ] {
            assert_eq!(uris(Kind::Dash, text).len(), 1000);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(body in "[#A-Z<>/=:'\"a-z$%{}, \n]{0,300}") {
            for kind in [Kind::Hls, Kind::Dash] {
                uris(kind, &format!("#EXTM3U\n{body}"));
                uris(kind, &format!("<MPD>{body}</MPD>"));
            }
        }
    }
}
