//! Reads the elements of an XML text, one level at a time, without knowing their meaning.
//!
//! Supports the entities that XML itself defines, and namespaces by the root's prefix: an element
//! with another prefix is foreign.

use std::borrow::Cow;
use std::io::BufRead;

use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::attributes::Attributes;
use quick_xml::events::{BytesStart, Event};

use super::super::info::ManifestError;

/// An MPD's root has about a dozen, including namespaces.
const ATTRIBUTES_MAX: usize = 256;
/// Most nested elements: an MPD has eight levels.
const DEPTH_MAX: u32 = 64;

const ILL_FORMED: ManifestError = ManifestError::Broken("not well-formed XML");

/// A document during parsing.
pub(super) struct Xml<'a> {
    text: &'a str,
    reader: Reader<&'a [u8]>,
    /// The root's prefix with its colon, or empty.
    prefix: &'a str,
    /// Number of open elements.
    depth: u32,
    /// The innermost open element is an empty-element tag, `<a/>`.
    in_empty: bool,
    /// How much is kept of what is read.
    pub(super) extent: ReadExtent,
}

/// How much of a presentation is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadExtent {
    /// What is near the live edge.
    Edge,
    /// All of it.
    Whole,
}

/// The start tag of an element.
pub(super) struct XmlTag<'a> {
    /// Without the root's prefix; empty for a foreign element.
    pub(super) name: &'a str,
    attributes: &'a str,
}

impl<'a> XmlTag<'a> {
    /// Names as written, and values with entities replaced; invalid ones are omitted.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        let mut attributes = Attributes::new(self.attributes, 0);
        attributes.with_checks(false);
        attributes.flatten().filter_map(|attribute| {
            let value = match attribute.value {
                Cow::Borrowed(value) => trim_and_unescape(value)?,
                Cow::Owned(value) => Cow::Owned(trim_and_unescape(&value)?.into_owned()),
            };
            Some((attribute.key.0, value))
        })
    }

    /// The value of one attribute.
    pub(super) fn attribute(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut attributes = self.attributes();
        attributes
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    fn is_well_formed(&self) -> bool {
        // Each is compared with all previous ones.
        let mut attributes = Attributes::new(self.attributes, 0);
        let all = attributes
            .by_ref()
            .take(ATTRIBUTES_MAX)
            .all(|it| it.is_ok());
        all && attributes.next().is_none()
    }
}

/// Trims the text and replaces entities.
fn trim_and_unescape(text: &str) -> Option<Cow<'_, str>> {
    let text = text.trim_ascii();
    if text.contains('&') {
        unescape(text).ok()
    } else {
        Some(Cow::Borrowed(text))
    }
}

impl<'a> Xml<'a> {
    /// Reads up to the root element.
    pub(super) fn open(text: &'a str) -> Result<(Xml<'a>, XmlTag<'a>), ManifestError> {
        let mut xml = Xml {
            text,
            reader: Reader::from_str(text),
            prefix: "",
            depth: 0,
            in_empty: false,
            extent: ReadExtent::Edge,
        };
        loop {
            match xml.event()? {
                Event::Start(start) => {
                    let mut tag = xml.tag(&start, 1).ok_or(ILL_FORMED)?;
                    if let Some(colon) = tag.name.find(':') {
                        (xml.prefix, tag.name) = tag.name.split_at(colon + 1);
                    }
                    xml.depth = 1;
                    let sound = tag.is_well_formed();
                    return sound.then_some((xml, tag)).ok_or(ILL_FORMED);
                }
                Event::Text(text) if is_blank(&text) => {}
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::DocType(_) => {}
                _ => return Err(ILL_FORMED),
            }
        }
    }

    /// The depth of the element whose tag was read last; see [`Xml::child`].
    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// The next child of the element at `depth`; `None` at its end. Unread content of the previous
    /// child is skipped.
    pub(super) fn child(&mut self, depth: u32) -> Result<Option<XmlTag<'a>>, ManifestError> {
        loop {
            if self.in_empty {
                self.in_empty = false;
                self.depth -= 1;
            } else {
                match self.event()? {
                    Event::Start(start) => {
                        self.depth += 1;
                        if self.depth > DEPTH_MAX {
                            return Err(ManifestError::Broken("too many elements in elements"));
                        }
                        if self.depth == depth + 1 {
                            return Ok(self.tag(&start, 1));
                        }
                    }
                    Event::Empty(start) if self.depth == depth => {
                        self.depth += 1;
                        self.in_empty = true;
                        return Ok(self.tag(&start, 2));
                    }
                    Event::End(_) => self.depth -= 1,
                    Event::Eof => return Err(ILL_FORMED),
                    _ => {}
                }
            }
            if self.depth < depth {
                return Ok(None);
            }
        }
    }

    /// The text of the element whose tag was read last; `None` if it contains elements or comments.
    pub(super) fn content(&mut self) -> Result<Option<Cow<'a, str>>, ManifestError> {
        let (start, depth) = (self.at(), self.depth);
        if self.in_empty {
            return Ok(None);
        }
        while self.child(depth)?.is_some() {}
        let inside = self.text.get(start..self.at()).unwrap_or_default();
        let inside = inside.rsplit_once("</").map_or("", |(inside, _)| inside);
        let section = inside.trim_ascii().strip_prefix("<![CDATA[");
        if let Some(verbatim) = section.and_then(|it| it.strip_suffix("]]>")) {
            return Ok(Some(Cow::Borrowed(verbatim.trim_ascii())));
        }
        Ok(trim_and_unescape(inside).filter(|_| !inside.contains('<')))
    }

    /// Lets `take` consume whole elements at the current position, if the root's namespace has no
    /// prefix. `take` returns the number of bytes consumed.
    pub(super) fn eat(&mut self, take: impl FnOnce(&'a str) -> usize) {
        if self.prefix.is_empty() && !self.in_empty {
            let eaten = take(self.text.get(self.at()..).unwrap_or_default());
            self.reader.stream().consume(eaten);
        }
    }

    /// Only blanks and comments may follow the root.
    pub(super) fn close(mut self) -> Result<(), ManifestError> {
        while self.depth > 0 {
            self.child(1)?;
        }
        loop {
            match self.event()? {
                Event::Eof => return Ok(()),
                Event::Text(text) if is_blank(&text) => {}
                Event::PI(_) | Event::Comment(_) => {}
                _ => return Err(ManifestError::Broken("something after its end")),
            }
        }
    }

    fn event(&mut self) -> Result<Event<'a>, ManifestError> {
        self.reader.read_event().map_err(|_| ILL_FORMED)
    }

    /// Offset of the next event in the text.
    fn at(&self) -> usize {
        usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX)
    }

    /// The tag that was read last, as a slice of the text: it ends before `>` or `/>`.
    fn tag(&self, start: &BytesStart<'_>, close: usize) -> Option<XmlTag<'a>> {
        let end = self.at().checked_sub(close)?;
        let inside = self.text.get(end.checked_sub(start.len())?..end)?;
        let (name, attributes) = inside.split_at_checked(start.name().0.len())?;
        let name = match name.strip_prefix(self.prefix) {
            Some(name) if self.depth == 0 || !name.contains(':') => name,
            _ => "",
        };
        Some(XmlTag { name, attributes })
    }
}

fn is_blank(text: &str) -> bool {
    text.trim_ascii().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<'a>(xml: &mut Xml<'a>) -> Vec<&'a str> {
        let depth = xml.depth();
        let mut names = Vec::new();
        while let Some(tag) = xml.child(depth).unwrap() {
            names.push(tag.name);
        }
        names
    }

    #[test]
    fn lists_children_and_skips_their_content() {
        let text = "<?xml version='1.0'?><a x='1'>\n<b><b/><c>d</c></b><!-- <d/> --><c/>&lt;</a>";
        let (mut xml, root) = Xml::open(text).unwrap();
        assert_eq!(
            (root.name, root.attribute("x").as_deref()),
            ("a", Some("1"))
        );
        assert_eq!(names(&mut xml), ["b", "c"]);
        assert_eq!(xml.close(), Ok(()));
    }

    #[test]
    fn empty_element_has_no_children() {
        let (mut xml, _) = Xml::open("<a><b/><c/></a>").unwrap();
        assert_eq!(xml.child(1).unwrap().unwrap().name, "b");
        assert_eq!(names(&mut xml), [""; 0]);
        assert_eq!(names(&mut xml), ["c"]);
    }

    #[test]
    fn elements_with_foreign_prefix_have_no_name() {
        let (mut xml, root) = Xml::open("<d:a><d:b/><b/><x:b/></d:a>").unwrap();
        assert_eq!(root.name, "a");
        assert_eq!(names(&mut xml), ["b", "", ""]);
        let (mut xml, _) = Xml::open("<a><b/><x:b/></a>").unwrap();
        assert_eq!(names(&mut xml), ["b", ""]);
    }

    #[test]
    fn attribute_entities_are_decoded() {
        let text = "<a x=' &amp;&#x31;&quot; ' y = \"'\" z='&bad;' x:w='1'></a>";
        let (_, root) = Xml::open(text).unwrap();
        assert_eq!(root.attribute("x").as_deref(), Some("&1\""));
        assert_eq!(root.attribute("y").as_deref(), Some("'"));
        assert_eq!(root.attribute("z"), None);
        assert_eq!(root.attribute("w"), None);
    }

    #[test]
    fn text_content_is_read_only_without_child_nodes() {
        for (inside, expected) in [
            ("<b> u&amp;v </b>", Some("u&v")),
            ("<b><![CDATA[u&v]]></b>", Some("u&v")),
            ("<b></b>", Some("")),
            ("<b/>", None),
            ("<b>u<c/></b>", None),
            ("<b>u<!-- v --></b>", None),
        ] {
            let text = format!("<a>{inside}<c/></a>");
            let (mut xml, _) = Xml::open(&text).unwrap();
            xml.child(1).unwrap();
            assert_eq!(xml.content().unwrap().as_deref(), expected, "{inside}");
            assert_eq!(xml.child(1).unwrap().unwrap().name, "c", "{inside}");
        }
    }

    #[test]
    fn rejects_xml_that_is_not_well_formed() {
        for text in ["", "a", "<a/>", "<a b></a>", "<a b=c></a>", "&amp;<a></a>"] {
            assert!(Xml::open(text).is_err(), "{text}");
        }
        let many = (0..200_000).map(|number| [" a", &number.to_string(), "=''"].concat());
        let many: String = many.collect();
        assert!(Xml::open(&format!("<a{many}></a>")).is_err());
        let deep = "<a>".repeat(100);
        for text in ["<a><b></a>", "<a></a>b", "<a></a><a></a>", "<a><b>", &deep] {
            assert!(Xml::open(text).unwrap().0.close().is_err(), "{text}");
        }
    }
}
