//! Reads `catu`, and compares it with the URL of a request.

use ring::digest;

use super::super::TokenRequest;
use super::cbor::CborValue;

/// What the URL of a request must be. All comparisons must hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct UriRule(Vec<(UriComponent, TextMatch)>);

/// The parts of a URL, in the order of their labels in CTA-5007-B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UriComponent {
    Scheme,
    Host,
    Port,
    Path,
    Query,
    ParentPath,
    Filename,
    Stem,
    Extension,
}

const COMPONENTS: [UriComponent; 9] = [
    UriComponent::Scheme,
    UriComponent::Host,
    UriComponent::Port,
    UriComponent::Path,
    UriComponent::Query,
    UriComponent::ParentPath,
    UriComponent::Filename,
    UriComponent::Stem,
    UriComponent::Extension,
];

/// How a part is compared.
#[derive(Clone, Debug, PartialEq)]
enum TextMatch {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Sha256([u8; 32]),
    Sha512_256([u8; 32]),
}

impl UriRule {
    /// `None`: a part or a kind of comparison is not known, among them regular expressions.
    pub(super) fn read(value: &CborValue<'_>) -> Option<UriRule> {
        let mut rule = Vec::new();
        for (label, matches) in value.as_map()? {
            let index = usize::try_from(label.as_integer()?).ok()?;
            let component = *COMPONENTS.get(index)?;
            let matches = matches.as_map()?;
            if matches.is_empty() {
                return None;
            }
            for (kind, value) in matches {
                rule.push((component, TextMatch::read(component, kind, value)?));
            }
        }
        Some(UriRule(rule))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let texts = self.0.iter().map(|(_, text)| text.bytes());
        texts.sum::<usize>() + self.0.len() * size_of::<(UriComponent, TextMatch)>()
    }

    pub(super) fn permits(&self, request: &TokenRequest<'_>) -> bool {
        self.0.iter().all(|(component, text)| match component {
            UriComponent::Port => ports(request).iter().any(|port| text.matches(port)),
            component => text.matches(component.of(request)),
        })
    }
}

impl UriComponent {
    /// The part as sent. Scheme and host are in lower case.
    fn of<'a>(self, request: &TokenRequest<'a>) -> &'a str {
        let parent_and_filename = || {
            let path = request.path();
            path.rsplit_once('/').unwrap_or(("", path))
        };
        let stem_and_extension = || {
            let (_, filename) = parent_and_filename();
            filename.split_at(filename.rfind('.').unwrap_or(filename.len()))
        };
        match self {
            UriComponent::Scheme => request.scheme,
            UriComponent::Host => request.host,
            UriComponent::Port => "",
            UriComponent::Path => request.path(),
            UriComponent::Query => request.query(),
            UriComponent::ParentPath => parent_and_filename().0,
            UriComponent::Filename => parent_and_filename().1,
            UriComponent::Stem => stem_and_extension().0,
            UriComponent::Extension => stem_and_extension().1,
        }
    }
}

/// The ways to write the port. The default one of the scheme may be left out: of the published
/// validators, one compares it as a number, the other as nothing.
fn ports(request: &TokenRequest<'_>) -> Vec<String> {
    let default = match request.scheme {
        "https" => 443,
        _ => 80,
    };
    let port = request.port.unwrap_or(default);
    let omitted = (port == default).then(String::new);
    [port.to_string()].into_iter().chain(omitted).collect()
}

impl TextMatch {
    fn read(component: UriComponent, kind: &CborValue<'_>, value: &CborValue<'_>) -> Option<Self> {
        let text = || {
            let text = value.as_text()?;
            Some(match component {
                UriComponent::Scheme | UriComponent::Host => text.to_ascii_lowercase(),
                _ => text.to_owned(),
            })
        };
        let hash = || value.as_bytes()?.try_into().ok();
        Some(match kind.as_integer()? {
            0 => TextMatch::Exact(text()?),
            1 => TextMatch::Prefix(text()?),
            2 => TextMatch::Suffix(text()?),
            3 => TextMatch::Contains(text()?),
            -1 => TextMatch::Sha256(hash()?),
            -2 => TextMatch::Sha512_256(hash()?),
            _ => return None,
        })
    }

    fn bytes(&self) -> usize {
        match self {
            TextMatch::Exact(text)
            | TextMatch::Prefix(text)
            | TextMatch::Suffix(text)
            | TextMatch::Contains(text) => text.len(),
            TextMatch::Sha256(_) | TextMatch::Sha512_256(_) => 0,
        }
    }

    fn matches(&self, text: &str) -> bool {
        let has_hash = |algorithm, hash: &[u8; 32]| {
            digest::digest(algorithm, text.as_bytes()).as_ref() == hash
        };
        match self {
            TextMatch::Exact(expected) => text == expected,
            TextMatch::Prefix(prefix) => text.starts_with(prefix.as_str()),
            TextMatch::Suffix(suffix) => text.ends_with(suffix.as_str()),
            TextMatch::Contains(part) => text.contains(part.as_str()),
            TextMatch::Sha256(hash) => has_hash(&digest::SHA256, hash),
            TextMatch::Sha512_256(hash) => has_hash(&digest::SHA512_256, hash),
        }
    }
}
