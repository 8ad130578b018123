//! Says in words what a token contains, for operators. Nothing is verified here.

use std::fmt::{self, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::HEXLOWER;

use super::super::{TokenExplanation, TokenRejection, TokenValidity};
use super::cbor::CborValue;
use super::claims;
use super::envelope::Envelope;
use super::labels;
use super::networks;

/// Names of algorithms (IANA, COSE Algorithms).
const ALGORITHMS: [(i64, &str); 4] = [
    (4, "HMAC 256/64"),
    (5, "HS256"),
    (-7, "ES256"),
    (-37, "PS256"),
];

/// Explains a Common Access Token.
pub(crate) fn explain(token: &str) -> Result<TokenExplanation, TokenRejection> {
    let token = super::decode(token)?;
    let envelope = Envelope::open(&token)?;
    let mut fields = vec![
        (
            "algorithm".to_owned(),
            name_in(&ALGORITHMS, envelope.algorithm),
        ),
        ("key id".to_owned(), text_or_hex(&envelope.key_id)),
    ];
    for claim in claims::claims(envelope.payload)? {
        let label = claim.name.as_integer();
        let name = label.map(|label| name_in(&labels::NAMES, label));
        let name = name.unwrap_or_else(|| claim.name.to_string());
        let value = label.and_then(|label| in_words(label, &claim.value));
        // In the diagnostic notation of CBOR.
        let value = value.unwrap_or_else(|| claim.value.to_string());
        fields.push((name, value));
    }
    Ok(TokenExplanation {
        format: "Common Access Token",
        fields,
        validity: validity(&envelope),
    })
}

/// When it is valid, as a verifier that has its key would say.
fn validity(envelope: &Envelope<'_>) -> TokenValidity {
    let claims = match claims::read(envelope.payload) {
        _ if envelope.key_id.is_empty() => Err(TokenRejection::UnknownKey),
        _ if !envelope.has_known_algorithm() => Err(TokenRejection::Algorithm),
        claims => claims,
    };
    match claims {
        Err(never) => TokenValidity {
            never: Some(never),
            ..TokenValidity::default()
        },
        Ok(claims) => claims.cat.validity(),
    }
}

/// Parts of URLs and kinds of comparison in `catu`, by their labels.
const COMPONENTS: [(i64, &str); 9] = [
    (0, "scheme"),
    (1, "host"),
    (2, "port"),
    (3, "path"),
    (4, "query"),
    (5, "parent path"),
    (6, "filename"),
    (7, "stem"),
    (8, "extension"),
];
const MATCHES: [(i64, &str); 7] = [
    (0, "is"),
    (1, "begins with"),
    (2, "ends with"),
    (3, "contains"),
    (4, "matches the regular expression"),
    (-1, "has the SHA-256"),
    (-2, "has the SHA-512/256"),
];

/// Parameters of `catr`, and the values of the first.
const RENEWAL: [(i64, &str); 8] = [
    (0, "by"),
    (1, "extension"),
    (2, "deadline"),
    (3, "cookie"),
    (4, "header"),
    (5, "cookie parameters"),
    (6, "header parameters"),
    (7, "status"),
];
const RENEWAL_KINDS: [(i64, &str); 4] = [
    (0, "the same carrier"),
    (1, "cookie"),
    (2, "header"),
    (3, "redirect"),
];

/// The value as an operator reads it. `None`: it is no such value, or needs no words.
fn in_words(label: i64, value: &CborValue<'_>) -> Option<String> {
    match label {
        labels::EXP..=labels::IAT => Some(date(u64::try_from(value.as_integer()?).ok()?)),
        labels::CATNIP => {
            let entries = value.as_array()?.iter().map(network_in_words);
            Some(entries.collect::<Vec<_>>().join(", "))
        }
        labels::CATU => {
            let mut rules = Vec::new();
            for (component, matches) in value.as_map()? {
                let component = name_in(&COMPONENTS, component.as_integer()?);
                for (kind, value) in matches.as_map()? {
                    let kind = name_in(&MATCHES, kind.as_integer()?);
                    rules.push(format!("{component} {kind} {value}"));
                }
            }
            Some(rules.join(", "))
        }
        labels::CATR => {
            let mut parameters = Vec::new();
            for (parameter, value) in value.as_map()? {
                let parameter = parameter.as_integer()?;
                let kind = value.as_integer().filter(|_| parameter == 0);
                let kind = kind.map(|kind| name_in(&RENEWAL_KINDS, kind));
                let value = kind.unwrap_or_else(|| value.to_string());
                parameters.push(format!("{} {value}", name_in(&RENEWAL, parameter)));
            }
            Some(parameters.join(", "))
        }
        _ => None,
    }
}

fn network_in_words(entry: &CborValue<'_>) -> String {
    if let CborValue::Integer(system) = entry {
        return format!("AS{system}");
    }
    let network = networks::network(entry);
    network.map_or_else(|| entry.to_string(), |network| network.to_string())
}

/// Seconds since 1970, and the date.
pub(crate) fn date(seconds: u64) -> String {
    /// The last second that HTTP dates can say: of the year 9999.
    const SECONDS_MAX: u64 = 253_402_300_799;
    if seconds > SECONDS_MAX {
        return seconds.to_string();
    }
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    format!("{seconds} ({})", httpdate::fmt_http_date(time))
}

fn name_in(names: &[(i64, &str)], number: i64) -> String {
    let name = names.iter().find(|(label, _)| *label == number);
    name.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

fn text_or_hex(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => format!("h'{}'", HEXLOWER.encode(bytes)),
    }
}

/// Diagnostic notation (RFC 8949, section 8).
impl fmt::Display for CborValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CborValue::Integer(value) => value.fmt(f),
            CborValue::Bytes(bytes) => write!(f, "h'{}'", HEXLOWER.encode(bytes)),
            CborValue::Text(text) => write!(f, "{text:?}"),
            CborValue::Array(items) => {
                f.write_char('[')?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index == 0 { "" } else { ", " })?;
                }
                f.write_char(']')
            }
            CborValue::Map(entries) => {
                f.write_char('{')?;
                for (index, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{}{key}: {value}", if index == 0 { "" } else { ", " })?;
                }
                f.write_char('}')
            }
            CborValue::Tagged(tag, value) => write!(f, "{tag}({value})"),
            CborValue::Float(value) => write!(f, "{value:?}"),
            CborValue::Simple(20) => f.write_str("false"),
            CborValue::Simple(21) => f.write_str("true"),
            CborValue::Simple(22) => f.write_str("null"),
            CborValue::Simple(value) => write!(f, "simple({value})"),
        }
    }
}
