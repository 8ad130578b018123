//! Tests of hostile MPDs: their cost is no more than that of reading the text.

use super::super::super::{Kind, read_manifest};
use super::super::SegmentNaming;
use super::*;

/// A base URL, a template or a name that is longer than any request is ignored, and not copied to
/// each of the representations below it.
#[test]
fn overlong_names_are_not_copied_to_each_representation() {
    let long = "x".repeat(1 << 20);
    let mut representations = String::new();
    for number in 0..512 {
        write!(representations, "<Representation id='{number}'/>").unwrap();
    }
    let mpd = |base: &str, media: &str, id: &str| {
        let text = format!(
            "<MPD type='dynamic' availabilityStartTime='1970-01-01T00:00:00Z'>\
             <BaseURL>{base}</BaseURL><Period start='PT0S'><AdaptationSet>\
             <SegmentTemplate media='{media}' initialization='i{media}'>\
             <SegmentTimeline><S t='0' d='2' r='99'/></SegmentTimeline></SegmentTemplate>\
             {representations}<Representation id='{id}'/></AdaptationSet></Period></MPD>"
        );
        read_manifest(Kind::Dash, text.as_bytes()).unwrap()
    };
    let bytes = |listing: &Listing| -> usize {
        let listed = listing.inits.iter().chain(&listing.segments);
        let templates = listing.templates.iter().map(SegmentNaming::weight_bytes);
        listed.map(|listed| listed.uri.len()).sum::<usize>() + templates.sum::<usize>()
    };
    for (base, media, id) in [
        (&long[..], "$Number$", "v"),
        ("a/", &format!("{long}&amp;$Number$"), "v"),
    ] {
        let manifest = mpd(base, media, id);
        assert_eq!(bytes(&manifest.listing), 0);
        assert!(manifest.info.has_edge(), "it says how far it reaches");
    }
    let most = mpd(&long[..4000], "$RepresentationID$/$Number$", &long);
    assert!(bytes(&most.listing) < 4 << 20);
    assert!(!most.listing.segments.is_empty());
}

/// Any number of elements is read in time proportional to the text, and none is kept.
#[test]
fn accepts_any_number_of_empty_elements() {
    for element in [
        "<AdaptationSet/>",
        "<Period/>",
        "<UTCTiming/>",
        "<Period><x/></Period>",
    ] {
        let period = format!("<Period>{}</Period>", element.repeat(200_000));
        for inside in [element.repeat(200_000), period] {
            let text = format!("<MPD type='dynamic'>{inside}</MPD>");
            assert!(read_manifest(Kind::Dash, text.as_bytes()).is_ok());
        }
    }
}
