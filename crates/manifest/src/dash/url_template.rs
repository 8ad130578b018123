//! Formats and parses segment names (ISO/IEC 23009-1 §5.3.9.4.4, `$Number%05d$`).

use super::super::limits::NAME_BYTES_MAX;
use super::reference;

/// More pieces than any packager writes.
const PIECES_MAX: usize = 16;
/// More numbers in one name than any packager writes.
const NUMBERS_MAX: usize = 3;
/// The digits of a `u64`.
const WIDTH_MAX: usize = 20;

/// A name with variables: only those that differ between the segments of one representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UrlTemplate {
    pieces: Box<[TemplatePiece]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TemplatePiece {
    Text(String),
    Gap(TemplateVariable, usize),
}

/// The variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TemplateVariable {
    Number,
    Time,
}

/// The position of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentPosition {
    pub(super) number: u64,
    pub(super) time: u64,
}

/// The values parsed from a name: at least one of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentNumbers {
    pub(super) number: Option<u64>,
    pub(super) time: Option<u64>,
}

impl UrlTemplate {
    /// Substitutes the variables that are equal for all segments of a representation. `None` if a
    /// variable is unknown, or names are longer than any request.
    pub(super) fn new(base: &str, written: &str, id: &str, bandwidth: &str) -> Option<UrlTemplate> {
        let mut size = base.len() + written.len();
        let mut fits = |more: usize| {
            size += more;
            size <= NAME_BYTES_MAX
        };
        if !fits(0) {
            return None;
        }
        let mut pieces = Vec::new();
        let mut text = reference::stem(base, written);
        let mut rest = written;
        while let Some((before, after)) = rest.split_once('$') {
            let (gap, after) = after.split_once('$')?;
            text.push_str(before);
            rest = after;
            let (name, width) = match gap.split_once('%') {
                Some((name, format)) => (name, width(format)?),
                None => (gap, 1),
            };
            let gap = match name {
                "" if gap.is_empty() => {
                    text.push('$');
                    continue;
                }
                "RepresentationID" if gap == name => {
                    if !fits(id.len()) {
                        return None;
                    }
                    text.push_str(id);
                    continue;
                }
                "Bandwidth" => {
                    if !fits(bandwidth.len().max(width)) {
                        return None;
                    }
                    text.extend(padding(bandwidth.len(), width));
                    text.push_str(bandwidth);
                    continue;
                }
                "Number" => TemplateVariable::Number,
                "Time" => TemplateVariable::Time,
                _ => return None,
            };
            pieces.push(TemplatePiece::Text(std::mem::take(&mut text)));
            pieces.push(TemplatePiece::Gap(gap, width));
            if pieces.len() > PIECES_MAX || pieces.len() > 2 * NUMBERS_MAX {
                return None;
            }
        }
        text.push_str(rest);
        pieces.push(TemplatePiece::Text(text));
        Some(UrlTemplate {
            pieces: pieces.into(),
        })
    }

    /// Approximate bytes of memory in addition to its own size.
    pub(super) fn weight_bytes(&self) -> usize {
        let texts = self.pieces.iter().map(|piece| match piece {
            TemplatePiece::Text(text) => text.capacity(),
            TemplatePiece::Gap(..) => 0,
        });
        size_of_val(&*self.pieces) + texts.sum::<usize>()
    }

    /// Do names contain the segment number?
    pub(super) fn has_number(&self) -> bool {
        self.has(TemplateVariable::Number)
    }

    /// Do names contain the segment's start time?
    pub(super) fn has_time(&self) -> bool {
        self.has(TemplateVariable::Time)
    }

    fn has(&self, variable: TemplateVariable) -> bool {
        let mut pieces = self.pieces.iter();
        pieces.any(|piece| matches!(piece, TemplatePiece::Gap(gap, _) if *gap == variable))
    }

    /// The name of a segment.
    pub(super) fn name(&self, position: SegmentPosition) -> String {
        let mut name = String::new();
        for piece in &self.pieces {
            match piece {
                TemplatePiece::Text(text) => name.push_str(text),
                TemplatePiece::Gap(gap, width) => {
                    let value = match gap {
                        TemplateVariable::Number => position.number,
                        TemplateVariable::Time => position.time,
                    };
                    let digits = value.to_string();
                    name.extend(padding(digits.len(), *width));
                    name.push_str(&digits);
                }
            }
        }
        name
    }

    /// The values in a path that ends with a name; they must be formatted exactly as
    /// [`UrlTemplate::name`] does. Variables in the query are ignored.
    pub(super) fn read(&self, path: &str) -> Option<SegmentNumbers> {
        let mut pieces: Vec<(&str, Option<(TemplateVariable, usize)>)> = Vec::new();
        for piece in &self.pieces {
            match piece {
                TemplatePiece::Text(text) => {
                    let (text, query) = text
                        .split_once('?')
                        .map_or((text.as_str(), false), |it| (it.0, true));
                    let text = if pieces.is_empty() {
                        reference::local(text)
                    } else {
                        text
                    };
                    pieces.push((text, None));
                    if query {
                        break;
                    }
                }
                TemplatePiece::Gap(gap, width) => pieces.push(("", Some((*gap, *width)))),
            }
        }
        let path = path.split('?').next().unwrap_or_default();
        let read = read_end(&pieces, path, SegmentNumbers::default())?;
        (read != SegmentNumbers::default()).then_some(read)
    }
}

/// Parses the pieces backwards. Bounded: a template has few variables, a variable few digits.
fn read_end(
    pieces: &[(&str, Option<(TemplateVariable, usize)>)],
    path: &str,
    seen: SegmentNumbers,
) -> Option<SegmentNumbers> {
    let Some(((text, gap), before)) = pieces.split_last() else {
        return (path.is_empty() || path.ends_with('/')).then_some(seen);
    };
    let Some((gap, width)) = gap else {
        return read_end(before, path.strip_suffix(text)?, seen);
    };
    let digits = path.len() - path.trim_end_matches(|it: char| it.is_ascii_digit()).len();
    (1..=digits.min(WIDTH_MAX)).rev().find_map(|count| {
        let (path, digits) = path.split_at(path.len() - count);
        let is_canonical = count == *width || (count > *width && !digits.starts_with('0'));
        let value: u64 = digits.parse().ok().filter(|_| is_canonical)?;
        let mut seen = seen;
        let position = match gap {
            TemplateVariable::Number => &mut seen.number,
            TemplateVariable::Time => &mut seen.time,
        };
        let agrees = position.replace(value).is_none_or(|other| other == value);
        agrees.then(|| read_end(before, path, seen))?
    })
}

/// The zeros that pad a number to `width`.
fn padding(digits: usize, width: usize) -> impl Iterator<Item = char> {
    std::iter::repeat_n('0', width.saturating_sub(digits))
}

/// The width in `0[width]d`.
fn width(format: &str) -> Option<usize> {
    let digits = format.strip_prefix('0')?.strip_suffix('d')?;
    let width = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())??;
    (1..=WIDTH_MAX).contains(&width).then_some(width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url_template(written: &str) -> Option<UrlTemplate> {
        UrlTemplate::new("", written, "v1", "128000")
    }

    fn name(written: &str) -> String {
        url_template(written).unwrap().name(SegmentPosition {
            number: 7,
            time: 90_000,
        })
    }

    #[test]
    fn formats_names_from_templates() {
        assert_eq!(name("$RepresentationID$/$Number$.m4s"), "v1/7.m4s");
        assert_eq!(name("$Bandwidth$-$Number%05d$.m4s"), "128000-00007.m4s");
        assert_eq!(name("$Bandwidth%08d$-$Time$"), "00128000-90000");
        assert_eq!(name("$Time%03d$$Number%01d$"), "900007");
        assert_eq!(name("a$$b$Number$"), "a$b7");
        assert_eq!(name("init.mp4"), "init.mp4");
        let based = UrlTemplate::new("https://h/p/x?y", "s/$Number$.ts?m=1", "", "").unwrap();
        assert_eq!(
            based.name(SegmentPosition { number: 1, time: 0 }),
            "https://h/p/s/1.ts?m=1"
        );
    }

    #[test]
    fn rejects_unknown_or_malformed_identifiers() {
        for written in [
            "$Number",
            "$SubNumber$",
            "$number$",
            "$RepresentationID%05d$",
            "$Number%5d$",
            "$Number%05x$",
            "$Number%0d$",
            "$Number%00d$",
            "$Number%021d$",
            "$Number%0+1d$",
            "$%05d$",
            "$Number$$Number$$Number$$Number$",
        ] {
            assert_eq!(url_template(written), None, "{written}");
        }
    }

    #[test]
    fn rejects_templates_whose_names_would_be_too_long() {
        let long = "x".repeat(NAME_BYTES_MAX);
        let ids = "$RepresentationID$".repeat(20) + "$Number$";
        assert_eq!(UrlTemplate::new(&long, "$Number$", "", ""), None);
        assert_eq!(
            UrlTemplate::new("", &(long.clone() + "$Number$"), "", ""),
            None
        );
        assert_eq!(UrlTemplate::new("", &ids, &long[..300], ""), None);
        assert!(UrlTemplate::new("", &ids, "v", "").is_some());
        let rates = "$Bandwidth$".repeat(20) + "$Number$";
        assert_eq!(UrlTemplate::new("", &rates, "", &long[..300]), None);
    }

    #[test]
    fn parses_number_and_time_from_names() {
        let number = |written: &str, path: &str| url_template(written).unwrap().read(path)?.number;
        assert_eq!(number("s_$Number$.m4s", "s_7.m4s"), Some(7));
        assert_eq!(number("s_$Number$.m4s", "/out/v1/s_7.m4s"), Some(7));
        assert_eq!(number("s_$Number$.m4s", "/out/v1/xs_7.m4s"), None);
        assert_eq!(number("s_$Number$.m4s", "s_07.m4s"), None);
        assert_eq!(number("s_$Number$.m4s", "s_.m4s"), None);
        assert_eq!(number("s_$Number$.m4s", "s_99999999999999999999.m4s"), None);
        assert_eq!(number("s_1$Number$.m4s", "s_17.m4s"), Some(7));
        assert_eq!(number("$Number$1.m4s", "71.m4s"), Some(7));
        assert_eq!(number("$Number$", "/a/7"), Some(7));
        assert_eq!(
            number(
                "../$RepresentationID$/$Number%03d$.m4s?m=1",
                "/a/v1/007.m4s"
            ),
            Some(7)
        );
        assert_eq!(
            number("$RepresentationID$/$Number%03d$.m4s", "/a/v2/007.m4s"),
            None
        );
        assert_eq!(number("$Number$-$Number$.m4s", "7-7.m4s"), Some(7));
        assert_eq!(number("$Number$-$Number$.m4s", "7-8.m4s"), None);
        assert_eq!(number("init.mp4", "init.mp4"), None);
        let absolute = url_template("https://h/a/$Number$-$Time$.ts").unwrap();
        let read = SegmentNumbers {
            number: Some(7),
            time: Some(9),
        };
        assert_eq!(absolute.read("/a/7-9.ts"), Some(read));
    }

    const FORMS: &[&str] = &["$Number%0Wd$.m4s", "a/$Number$-$Time%0Wd$", "9$Time%0Wd$"];

    proptest! {
        #[test]
        fn formatted_name_parses_back(
            number: u64, time: u64, width in 1_usize..=20, base in "(\\.\\./)?[a-z]{0,3}/?",
            form in prop::sample::select(FORMS),
        ) {
            let written = form.replace('W', &width.to_string());
            let url_template = UrlTemplate::new(&base, &written, "v", "1").unwrap();
            let read = url_template.read(&url_template.name(SegmentPosition { number, time })).unwrap();
            prop_assert!(read.number.is_none_or(|it| it == number));
            prop_assert!(read.time.is_none_or(|it| it == time));
            prop_assert_eq!(read.number.is_some(), url_template.has_number());
            prop_assert_eq!(read.time.is_some(), url_template.has_time());
        }

        #[test]
        fn arbitrary_template_does_not_panic(
            written in "(\\$|%|0|5|d|Number|Time|\\$Number\\$|[a/?.é]){0,12}",
            path in "[0-9a/.é]{0,30}",
        ) {
            if let Some(url_template) = url_template(&written) {
                let _ = url_template.read(&path);
                let _ = url_template.name(SegmentPosition::default());
            }
        }
    }
}
