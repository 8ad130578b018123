//! Says in words what a token contains, for operators. Nothing is verified here.

use std::fmt::{self, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::HEXLOWER;

use super::super::{TokenExplanation, TokenRejection};
use super::cbor::CborValue;
use super::claims;
use super::envelope::Envelope;
use super::labels;

/// Names of algorithms (IANA, COSE Algorithms).
const ALGORITHMS: [(i64, &str); 4] = [
    (4, "HMAC 256/64"),
    (5, "HS256"),
    (-7, "ES256"),
    (-37, "PS256"),
];

/// Explains a Common Access Token. Values are in the diagnostic notation of CBOR.
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
        let mut value = claim.value.to_string();
        let time = label.filter(|label| (labels::EXP..=labels::IAT).contains(label));
        if let Some(seconds) = time.and_then(|_| claim.value.as_integer()) {
            value = date(u64::try_from(seconds).unwrap_or_default());
        }
        fields.push((name, value));
    }
    Ok(TokenExplanation {
        format: "Common Access Token",
        fields,
    })
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
