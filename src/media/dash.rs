//! What does a DASH MPD say about itself (ISO/IEC 23009-1)? Looks at its root element and its
//! end, and at nothing between them.

use std::time::Duration;

use super::facts::{Facts, Liveness, ManifestError};

pub(super) fn read(text: &str) -> Result<Facts, ManifestError> {
    let root = Root::of(text).ok_or(ManifestError::Broken("no <MPD"))?;
    if !is_closed(root.rest, root.name) {
        return Err(ManifestError::Broken("no </MPD> at the end"));
    }
    Ok(Facts {
        liveness: match root.kind {
            None | Some("static") => Liveness::Ended,
            Some(_) => Liveness::Live,
        },
        target_duration: root.minimum_update_period.and_then(duration),
        part_target: None,
        last_sequence: None,
        multivariant: false,
    })
}

/// The root element's tag.
struct Root<'a> {
    /// As written, a namespace prefix included.
    name: &'a str,
    /// `@type`.
    kind: Option<&'a str>,
    minimum_update_period: Option<&'a str>,
    /// What follows the tag.
    rest: &'a str,
}

impl<'a> Root<'a> {
    fn of(text: &'a str) -> Option<Root<'a>> {
        let tag = after_prolog(text)?.strip_prefix('<')?;
        let end = tag.find(|letter: char| letter.is_ascii_whitespace() || "/>".contains(letter))?;
        let (name, mut rest) = tag.split_at(end);
        if name.rsplit(':').next() != Some("MPD") {
            return None;
        }
        let mut root = Root {
            name,
            kind: None,
            minimum_update_period: None,
            rest: "",
        };
        loop {
            rest = rest.trim_ascii_start();
            if let Some(content) = rest.strip_prefix('>') {
                root.rest = content;
                return Some(root);
            }
            let (key, value, after) = attribute(rest)?;
            match key {
                "type" => root.kind = Some(value),
                "minimumUpdatePeriod" => root.minimum_update_period = Some(value),
                _ => {}
            }
            rest = after;
        }
    }
}

/// Past the XML declaration, comments and a document type.
fn after_prolog(text: &str) -> Option<&str> {
    let mut rest = text.trim_ascii_start();
    loop {
        let end = if rest.starts_with("<?") {
            "?>"
        } else if rest.starts_with("<!--") {
            "-->"
        } else if rest.starts_with("<!") {
            ">"
        } else {
            return Some(rest);
        };
        rest = rest.split_once(end)?.1.trim_ascii_start();
    }
}

/// `name = "value"` or `name = 'value'` at the start, and what follows.
fn attribute(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = text.split_once('=')?;
    let name = name.trim_ascii_end();
    if name.is_empty() || name.contains(|letter: char| "<>/\"'".contains(letter)) {
        return None;
    }
    let rest = rest.trim_ascii_start();
    let quote = rest
        .chars()
        .next()
        .filter(|&quote| quote == '"' || quote == '\'')?;
    let (value, rest) = rest[1..].split_once(quote)?;
    Some((name, value.trim_ascii(), rest))
}

/// Is the root's end tag the last thing but for blanks, comments and processing instructions?
fn is_closed(content: &str, name: &str) -> bool {
    let mut rest = content.trim_ascii_end();
    loop {
        let start = if rest.ends_with("-->") {
            rest.rfind("<!--")
        } else if rest.ends_with("?>") {
            rest.rfind("<?")
        } else {
            break;
        };
        let Some(start) = start else { return false };
        rest = rest[..start].trim_ascii_end();
    }
    rest.strip_suffix('>')
        .map(str::trim_ascii_end)
        .and_then(|rest| rest.strip_suffix(name))
        .is_some_and(|rest| rest.ends_with("</"))
}

/// `xs:duration`: `PnYnMnDTnHnMnS`, the seconds perhaps with a fraction. A year counts as 365 days
/// and a month as 30. `None` when it is malformed or negative.
fn duration(text: &str) -> Option<Duration> {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let period = text.strip_prefix('P')?;
    let (date, time) = match period.split_once('T') {
        Some((_, "")) => return None,
        Some((date, time)) => (date, time),
        None if period.is_empty() => return None,
        None => (period, ""),
    };
    let (date, rest) = units(date, &[('Y', 365 * DAY), ('M', 30 * DAY), ('D', DAY)])?;
    if !rest.is_empty() {
        return None;
    }
    let (time, rest) = units(time, &[('H', HOUR), ('M', MINUTE)])?;
    let seconds = match rest.strip_suffix('S') {
        Some(digits) => decimal(digits)?,
        None if rest.is_empty() => Duration::ZERO,
        None => return None,
    };
    date.checked_add(time)?.checked_add(seconds)
}

/// Counts of whole units, each at most once and in the order given; and what follows them.
fn units<'a>(text: &'a str, order: &[(char, u64)]) -> Option<(Duration, &'a str)> {
    let mut rest = text;
    let mut sum = 0_u64;
    for &(letter, seconds) in order {
        let digits = rest.len()
            - rest
                .trim_start_matches(|it: char| it.is_ascii_digit())
                .len();
        let Some(after) = rest[digits..].strip_prefix(letter) else {
            continue;
        };
        let count: u64 = rest[..digits].parse().ok()?;
        sum = sum.checked_add(count.checked_mul(seconds)?)?;
        rest = after;
    }
    Some((Duration::from_secs(sum), rest))
}

/// Digits, perhaps with a fraction, of which nine digits count.
fn decimal(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let nanos = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0_u32, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    Some(Duration::new(whole.parse().ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIVE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <!-- made > by a packager -->\n\
        <MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" xsi:type='none' type=\"dynamic\"\n\
          minimumUpdatePeriod = 'PT1.5S' publishTime=\"2024-01-01T00:00:00Z\">\n\
          <Period type=\"static\" id=\"1\"/>\n</MPD>\n";

    fn liveness(text: &str) -> Option<Liveness> {
        read(text).ok().map(|facts| facts.liveness)
    }

    #[test]
    fn a_live_mpd() {
        let facts = read(LIVE);
        let expected = Facts {
            liveness: Liveness::Live,
            target_duration: Some(Duration::from_millis(1500)),
            part_target: None,
            last_sequence: None,
            multivariant: false,
        };
        assert_eq!(facts, Ok(expected));
    }

    // ISO/IEC 23009-1, table of the MPD element: `@type` defaults to static.
    #[test]
    fn static_is_the_default() {
        assert_eq!(liveness("<MPD></MPD>"), Some(Liveness::Ended));
        assert_eq!(liveness("<MPD type='static'></MPD>"), Some(Liveness::Ended));
        assert_eq!(liveness("<MPD type='dynamic'></MPD>"), Some(Liveness::Live));
        assert_eq!(liveness("<MPD type='new'></MPD>"), Some(Liveness::Live));
        assert_eq!(
            liveness("<d:MPD xsi:type=\"dynamic\"></d:MPD >"),
            Some(Liveness::Ended)
        );
    }

    #[test]
    fn the_end_tag_may_be_followed_by_notes() {
        let noted = format!("{LIVE}<!-- </x --> <?pi a?>\n<!-- b -->\n");
        assert!(read(&noted).is_ok());
        assert!(read(&format!("{LIVE} x")).is_err());
        assert!(read(&format!("{LIVE}<!-- open")).is_err());
    }

    #[test]
    fn what_is_not_whole_is_broken() {
        for text in [
            "<MPD",
            "<MPD>",
            "<MPD/>",
            "<MPD></MPD",
            "<MPD></Mpd>",
            "<a:MPD></MPD>",
            "<MPDX></MPDX>",
            "<MPD type=dynamic></MPD>",
            "<MPD type=\"dynamic></MPD>",
            "<html></html>",
            "<Patch></Patch>",
            "#EXTM3U\na.ts\n",
            "<?xml version='1.0'",
            "</MPD>",
            "<!-- </MPD>",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    // XML Schema part 2, §3.2.6.
    #[test]
    fn durations() {
        let seconds = |text| duration(text).map(|duration| duration.as_secs_f64());
        assert_eq!(seconds("PT2S"), Some(2.0));
        assert_eq!(seconds("PT0S"), Some(0.0));
        assert_eq!(seconds("PT0.5S"), Some(0.5));
        assert_eq!(seconds("PT1M30.25S"), Some(90.25));
        assert_eq!(seconds("PT1H"), Some(3600.0));
        assert_eq!(seconds("P1DT1S"), Some(86_401.0));
        assert_eq!(seconds("P0Y0M0DT0H0M3.000S"), Some(3.0));
        for text in [
            "",
            "P",
            "PT",
            "2",
            "-PT2S",
            "PT2",
            "PTS",
            "PT1.5M",
            "PT2S1M",
            "P1S",
            "PT.S",
            "PT1.S",
            "PT99999999999999999999S",
            "P99999999999999999Y",
            "PT2S ",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_cut_is_seen(at in 0..LIVE.trim_end().len()) {
            prop_assert!(read(&LIVE[..at]).is_err());
        }

        #[test]
        fn no_mutation_panics(
            at in 0..LIVE.len(), width in 0_usize..20, new in "[<>!?/='\"MPD -]{0,6}",
        ) {
            let end = (at + width).min(LIVE.len());
            let _ = read(&[&LIVE[..at], &new, &LIVE[end..]].concat());
        }

        #[test]
        fn no_text_panics(text in "(<MPD )?[<>!?/='\"MPDT0-9.\\-é ]{0,80}") {
            let _ = read(&text);
            let _ = duration(&text);
        }
    }
}
