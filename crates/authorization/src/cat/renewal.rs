//! Reads `catr`, and writes the claims and the field of a token that replaces an older one.

use http::header::SET_COOKIE;
use http::{HeaderName, HeaderValue};

use super::super::{TokenCarrier, TokenCarriers};
use super::cbor::{CborValue, major};
use super::envelope::{push_head, push_integer};
use super::labels;

/// How long before its expiry a token is replaced, in seconds, where it does not say.
const DEADLINE_DEFAULT: u64 = 60;

/// A field of a response that gives a client its new token. Such a response is for this client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewedToken {
    /// The name: `set-cookie`, or that of the header that carries tokens.
    pub name: HeaderName,
    /// The value.
    pub value: HeaderValue,
}

/// How a token wants to be renewed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CatRenewal {
    kind: RenewalKind,
    extension: u64,
    deadline: u64,
    cookie_name: Option<String>,
    header_name: Option<String>,
    cookie_parameters: Vec<String>,
    header_parameters: Vec<String>,
    /// The claims that stay: all but `exp` and `iat`, encoded.
    claims: Vec<u8>,
    claims_count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RenewalKind {
    /// By the carrier that the token came in.
    Automatic,
    Cookie,
    Header,
    /// By a redirect to the URL with the new token, which is not done here.
    Redirect,
}

impl CatRenewal {
    /// `None`: the value is not understood.
    pub(super) fn read(
        value: &CborValue<'_>,
        claims_count: u64,
        claims: Vec<u8>,
    ) -> Option<CatRenewal> {
        let (mut kind, mut extension) = (None, None);
        let mut renewal = CatRenewal {
            kind: RenewalKind::Redirect,
            extension: 0,
            deadline: DEADLINE_DEFAULT,
            cookie_name: None,
            header_name: None,
            cookie_parameters: Vec::new(),
            header_parameters: Vec::new(),
            claims,
            claims_count,
        };
        for (parameter, value) in value.as_map()? {
            let seconds = || {
                value
                    .as_integer()
                    .and_then(|value| u64::try_from(value).ok())
            };
            let text = || value.as_text().map(str::to_owned);
            match parameter.as_integer()? {
                0 => kind = Some(RenewalKind::of(value.as_integer()?)?),
                1 => extension = Some(seconds()?),
                2 => renewal.deadline = seconds()?,
                3 => renewal.cookie_name = Some(text()?),
                4 => renewal.header_name = Some(text()?),
                5 => renewal.cookie_parameters = parameters(value)?,
                6 => renewal.header_parameters = parameters(value)?,
                // The status of a redirect.
                7 => drop(seconds()?),
                _ => return None,
            }
        }
        (renewal.kind, renewal.extension) = (kind?, extension?);
        Some(renewal)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let names = self.cookie_name.iter().chain(&self.header_name);
        let texts = names
            .chain(&self.cookie_parameters)
            .chain(&self.header_parameters);
        let texts = texts.map(|text| text.len() + size_of::<String>());
        size_of::<CatRenewal>() + self.claims.len() + texts.sum::<usize>()
    }

    /// The claims of the next token. `None`: it is not time.
    pub(super) fn renewed_claims(&self, expires_at: u64, now: u64) -> Option<Vec<u8>> {
        let is_time = now < expires_at && now >= expires_at.saturating_sub(self.deadline);
        let expiry = now.checked_add(self.extension).filter(|_| is_time)?;
        // A replacement that ends sooner is none.
        let expiry = i64::try_from(expiry).ok().filter(|_| expiry > expires_at)?;
        let mut payload = Vec::new();
        push_head(&mut payload, major::MAP, self.claims_count + 2);
        payload.extend_from_slice(&self.claims);
        push_integer(&mut payload, labels::EXP);
        push_integer(&mut payload, expiry);
        push_integer(&mut payload, labels::IAT);
        push_integer(&mut payload, i64::try_from(now).ok()?);
        Some(payload)
    }

    /// The field that carries it: only one in which the route looks for tokens.
    pub(super) fn field(
        &self,
        carriers: &TokenCarriers,
        carrier: TokenCarrier,
        token: &str,
    ) -> Option<RenewedToken> {
        match (self.kind, carrier) {
            (RenewalKind::Cookie, _) | (RenewalKind::Automatic, TokenCarrier::Cookie) => {
                let name = carriers.cookie.as_ref()?;
                let is_read = self
                    .cookie_name
                    .as_ref()
                    .is_none_or(|wanted| wanted == name);
                let value = format!("{name}={token}");
                let value = with_parameters(value, &self.cookie_parameters).filter(|_| is_read)?;
                let name = SET_COOKIE;
                Some(RenewedToken { name, value })
            }
            (RenewalKind::Header, _) | (RenewalKind::Automatic, TokenCarrier::Header) => {
                let name = carriers.header.clone()?;
                let is_name = |wanted: &String| wanted.eq_ignore_ascii_case(name.as_str());
                let is_read = self.header_name.as_ref().is_none_or(is_name);
                let value = with_parameters(token.to_owned(), &self.header_parameters);
                let value = value.filter(|_| is_read)?;
                Some(RenewedToken { name, value })
            }
            (RenewalKind::Automatic | RenewalKind::Redirect, _) => None,
        }
    }
}

impl RenewalKind {
    fn of(number: i64) -> Option<RenewalKind> {
        Some(match number {
            0 => RenewalKind::Automatic,
            1 => RenewalKind::Cookie,
            2 => RenewalKind::Header,
            3 => RenewalKind::Redirect,
            _ => return None,
        })
    }
}

/// A text, or an array of texts.
fn parameters(value: &CborValue<'_>) -> Option<Vec<String>> {
    if let Some(text) = value.as_text() {
        return Some(vec![text.to_owned()]);
    }
    let texts = value.as_array()?.iter();
    texts
        .map(|text| text.as_text().map(str::to_owned))
        .collect()
}

/// `None`: a parameter has bytes that no field may have.
fn with_parameters(mut value: String, parameters: &[String]) -> Option<HeaderValue> {
    for parameter in parameters {
        value.push_str("; ");
        value.push_str(parameter);
    }
    HeaderValue::from_str(&value).ok()
}
