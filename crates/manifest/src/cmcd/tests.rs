//! Tests of CMCD as players write it, and of malformed CMCD.

use std::fmt::Write;

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

fn query(text: &str) -> Cmcd {
    Cmcd::of(Some(text), &HeaderMap::new()).unwrap()
}

fn plain(data: &str) -> Cmcd {
    let mut cmcd = Cmcd::default();
    cmcd.take(data);
    cmcd
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let line = |(name, value): &(&'static str, &str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )
    };
    lines.iter().map(line).collect()
}

#[test]
fn parses_every_cmcd_key() {
    let data = "bl=21300,br=3200,bs,cid=\"faec5fc2\",d=4004,dl=18500,mtp=48100,\
        nor=\"..%2F300kbps%2Ftrack.m4v\",nrr=\"12323-48763\",ot=v,pr=1.08,rtp=12000,sf=h,\
        sid=\"6e2fb550-c457-11e9-bb97-0800200c9a66\",st=v,su,tb=6000,v=1,com.example-x=\"1,2\"";
    let expected = Cmcd {
        bitrate_kbps: Some(3200),
        buffer: Some(Duration::from_millis(21_300)),
        starved: true,
        content: Some("faec5fc2".to_owned()),
        duration: Some(Duration::from_millis(4004)),
        deadline: Some(Duration::from_millis(18_500)),
        throughput_kbps: Some(48_100),
        next_object: Some("../300kbps/track.m4v".to_owned()),
        next_range: Some(NextRange {
            first: Some(12_323),
            last: Some(48_763),
        }),
        object: Some(ObjectType::Video),
        rate: Some(1.08),
        enough_kbps: Some(12_000),
        format: Some(StreamFormat::Hls),
        session: Some("6e2fb550-c457-11e9-bb97-0800200c9a66".to_owned()),
        is_live: Some(false),
        is_startup: true,
        top_kbps: Some(6000),
        version: Some(1),
    };
    assert_eq!(plain(data), expected);
    let mut encoded = String::from("a=1&CMCD=");
    for byte in data.bytes() {
        write!(encoded, "%{byte:02X}").unwrap();
    }
    assert_eq!(query(&format!("{encoded}&b")), expected);
}

#[test]
fn cmcd_headers_are_merged_and_override_the_query() {
    let lines = [
        ("cmcd-object", "br=3200,d=4004, ot=v"),
        ("cmcd-request", "bl=21300,nor=\"2.m4v\""),
        ("cmcd-session", "sid=\"a\\\"b\\\\c,d\",st=l"),
        ("cmcd-status", "bs"),
    ];
    let cmcd = Cmcd::of(Some("CMCD=br%3D1%2Ctb%3D9"), &headers(&lines)).unwrap();
    assert_eq!((cmcd.bitrate_kbps, cmcd.top_kbps), (Some(3200), Some(9)));
    assert_eq!(cmcd.session.as_deref(), Some("a\"b\\c,d"));
    assert_eq!(cmcd.next_object.as_deref(), Some("2.m4v"));
    assert_eq!((cmcd.starved, cmcd.is_live), (true, Some(true)));
    assert_eq!(Cmcd::of(Some("a=CMCD&XCMCD=1"), &HeaderMap::new()), None);
    assert_eq!(Cmcd::of(None, &HeaderMap::new()), None);
    assert_eq!(
        Cmcd::of(Some("CMCD"), &HeaderMap::new()),
        Some(Cmcd::default())
    );
}

#[test]
fn malformed_cmcd_value_drops_only_itself() {
    let session = "x".repeat(NAME_MAX + 1);
    for bad in [
        "br=-1",
        "br=3.5",
        "br=4294967296",
        "br=(1 2)",
        "br",
        "br=",
        "br=+5",
        "bl=long",
        "ot=video",
        "sf=x",
        "st=live",
        "pr=-1",
        "pr=inf",
        "pr=1e9",
        "nrr=\"5\"",
        "nrr=\"-\"",
        "nrr=\"9-5\"",
        "nrr=\"a-b\"",
        "nor=\"%zz\"",
        "nor=\"a%0d%0ab\"",
        "nor=\"%ff\"",
        "nor=\"\"",
        "cid",
        "sid=\"a\tb\"",
        &format!("sid={session}"),
        "bs=false",
        "su=?0",
        "=5",
        ",,",
        "BR=5",
    ] {
        let expected = Cmcd {
            top_kbps: Some(7),
            ..Cmcd::default()
        };
        assert_eq!(plain(&format!("{bad},tb=7")), expected, "{bad}");
        assert_eq!(plain(&format!("tb=7,{bad}")), expected, "{bad}");
    }
}

#[test]
fn accepts_common_cmcd_mistakes_of_players() {
    assert_eq!(plain("sid=abc").session.as_deref(), Some("abc"));
    assert_eq!(plain("ot=\"av\"").object, Some(ObjectType::Muxed));
    assert!(plain("bs=true").starved && plain("su=?1").is_startup);
    let half_open = NextRange {
        first: Some(5),
        last: None,
    };
    assert_eq!(plain("nrr=5-").next_range, Some(half_open));
    assert_eq!(plain("sid=\"a\"x,tb=7").top_kbps, Some(7));
    // The text after an open quote is lost, the text before it is not.
    let cut = plain("br=5,sid=\"a,tb=7");
    assert_eq!(
        (cut.bitrate_kbps, cut.top_kbps, cut.session),
        (Some(5), None, None)
    );
}

#[test]
fn ignores_cmcd_beyond_size_and_count_limits() {
    let long = format!("br=5,x=\"{}\"", "x".repeat(BYTES_MAX));
    assert_eq!(plain(&long), Cmcd::default());
    assert_eq!(
        query(&format!("CMCD=br%3D5%2C{}", "x".repeat(3 * BYTES_MAX))),
        Cmcd::default()
    );
    let many = format!("{}br=5", "a,".repeat(100));
    assert_eq!(plain(&many).bitrate_kbps, None);
}

#[test]
fn strip_query_keeps_parameters_other_than_cmcd() {
    for (query, stripped) in [
        ("", ""),
        ("a=1&b=2", "a=1&b=2"),
        ("CMCD=x", ""),
        ("a=1&CMCD=x&b=2", "a=1&b=2"),
        ("CMCD=x&CMCD=y&a", "a"),
        ("a=CMCD&CMCDX=1&XCMCD", "a=CMCD&CMCDX=1&XCMCD"),
        ("a&&CMCD", "a&"),
    ] {
        assert_eq!(strip_query(query), stripped);
    }
    assert!(matches!(strip_query("a=CMCD"), Cow::Borrowed(_)));
}

proptest! {
    #[test]
    fn arbitrary_cmcd_does_not_panic(
        data in "((bl|br|cid|nor|nrr|ot|pr|sid|su|x)?=?[\"\\\\,=%0-9a-z. é\t-]{0,8},?){0,12}",
    ) {
        let cmcd = plain(&data);
        prop_assert!(cmcd.session.is_none_or(|it| it.chars().count() <= NAME_MAX));
        let _ = Cmcd::of(Some(&format!("CMCD={data}")), &HeaderMap::new());
    }

    #[test]
    fn strip_query_removes_all_cmcd_and_nothing_else(query in "((CMCD|a|C)(=[a-z%&]{0,3})?&?){0,6}") {
        let stripped = strip_query(&query);
        prop_assert_eq!(Cmcd::of(Some(&stripped), &HeaderMap::new()), None);
        let others: Vec<_> = query.split('&').filter(|pair| !is_cmcd(pair)).collect();
        prop_assert_eq!(&stripped, &others.join("&"));
    }
}
