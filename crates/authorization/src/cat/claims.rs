//! Reads the claims of a verified token, and compares them with requests.

use ipnet::IpNet;

use super::super::{TokenRejection, TokenRequest, TokenValidity};
use super::cbor::{CborReader, CborValue};
use super::labels;
use super::networks;
use super::renewal::CatRenewal;
use super::uri::UriRule;

/// More claims are not read: CTA-5007-B has fewer than thirty.
const CLAIMS_MAX: usize = 64;

/// The version of CTA-5007 that is understood.
const VERSION: i64 = 1;
/// The value of `catreplay` that permits to use a token many times. A cache cannot know whether
/// another one saw it.
const REPLAY_PERMITTED: i64 = 0;

/// What a verified token permits. A restriction that it does not have is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cat {
    pub(super) key_id: Vec<u8>,
    pub(super) expires_at: Option<u64>,
    not_before: Option<u64>,
    uri: Option<UriRule>,
    methods: Option<Vec<String>>,
    networks: Option<Vec<IpNet>>,
    protocols: Option<Vec<Vec<u8>>>,
    pub(super) renewal: Option<Box<CatRenewal>>,
}

/// All claims that are evaluated.
pub(super) struct ClaimSet {
    pub(super) issuer: Option<String>,
    pub(super) audiences: Vec<String>,
    pub(super) cat: Cat,
}

impl Cat {
    /// The first second since 1970 in which it is not valid. `None`: it is valid for ever.
    pub fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }

    pub(super) fn validity(&self) -> TokenValidity {
        TokenValidity {
            never: None,
            not_before: self.not_before,
            expires_at: self.expires_at,
        }
    }

    pub(crate) fn is_for_connection(&self) -> bool {
        self.networks.is_some() || self.protocols.is_some()
    }

    /// Memory besides the value itself, in bytes, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        let texts = self.methods.iter().flatten().map(String::len);
        let names = self.protocols.iter().flatten().map(Vec::len);
        let lists = texts
            .chain(names)
            .map(|length| length + size_of::<String>());
        let networks = self.networks.as_ref().map_or(0, Vec::len) * size_of::<IpNet>();
        let uri = self.uri.as_ref().map_or(0, UriRule::heap_bytes);
        let renewal = self
            .renewal
            .as_ref()
            .map_or(0, |renewal| renewal.heap_bytes());
        self.key_id.len() + lists.sum::<usize>() + networks + uri + renewal
    }

    /// Whether it permits the request. `now` is in seconds since 1970.
    pub fn check(&self, request: &TokenRequest<'_>, now: u64) -> Result<(), TokenRejection> {
        self.validity().check(now)?;
        if let Some(uri) = &self.uri {
            request.check_path()?;
            if !uri.permits(request) {
                return Err(TokenRejection::Url);
            }
        }
        let is_method = |method: &String| method == request.method;
        if self
            .methods
            .as_ref()
            .is_some_and(|all| !all.iter().any(is_method))
        {
            return Err(TokenRejection::Method);
        }
        if self
            .networks
            .as_ref()
            .is_some_and(|all| !request.is_from(all))
        {
            return Err(TokenRejection::Address);
        }
        let protocol = request.protocol.map(str::as_bytes);
        let is_protocol = |permitted: &Vec<u8>| Some(permitted.as_slice()) == protocol;
        if self
            .protocols
            .as_ref()
            .is_some_and(|all| !all.iter().any(is_protocol))
        {
            return Err(TokenRejection::Protocol);
        }
        Ok(())
    }
}

/// Reads the payload of a token. The caller has verified it.
pub(super) fn read(payload: &[u8]) -> Result<ClaimSet, TokenRejection> {
    let mut set = ClaimSet {
        issuer: None,
        audiences: Vec::new(),
        cat: Cat::default(),
    };
    let mut renewal = None;
    let mut kept = Vec::new();
    let mut kept_count = 0;
    for claim in claims(payload)? {
        let Claim { name, value, bytes } = &claim;
        let Some(label) = name.as_integer() else {
            // Names in text are the issuer's own.
            kept.extend_from_slice(bytes);
            kept_count += 1;
            continue;
        };
        if label == labels::CATR {
            renewal = Some(value.clone());
        }
        evaluate(label, value, &mut set).ok_or(TokenRejection::Claim(label))?;
        if label != labels::EXP && label != labels::IAT {
            kept.extend_from_slice(bytes);
            kept_count += 1;
        }
    }
    if let Some(value) = renewal {
        let renewal = CatRenewal::read(&value, kept_count, kept);
        let renewal = renewal.ok_or(TokenRejection::Claim(labels::CATR))?;
        set.cat.renewal = Some(Box::new(renewal));
    }
    Ok(set)
}

/// A claim as it is in the payload.
pub(super) struct Claim<'a> {
    pub(super) name: CborValue<'a>,
    pub(super) value: CborValue<'a>,
    /// Both, encoded.
    bytes: &'a [u8],
}

/// The claims in their order. A name that is there twice would have two meanings.
pub(super) fn claims(payload: &[u8]) -> Result<Vec<Claim<'_>>, TokenRejection> {
    let malformed = TokenRejection::Malformed;
    let mut reader = CborReader::new(payload);
    let count = reader.read_map_head().map_err(|_| malformed)?;
    let mut claims: Vec<Claim<'_>> = Vec::new();
    while match count {
        Some(count) => (claims.len() as u64) < count,
        None => !reader.read_break(),
    } {
        let from = reader.rest();
        let name = reader.read_item().map_err(|_| malformed)?;
        let value = reader.read_item().map_err(|_| malformed)?;
        let is_repeated = claims.iter().any(|claim| claim.name == name);
        if is_repeated || claims.len() >= CLAIMS_MAX {
            return Err(malformed);
        }
        let bytes = &from[..from.len() - reader.rest().len()];
        claims.push(Claim { name, value, bytes });
    }
    if !reader.is_at_end() {
        return Err(malformed);
    }
    Ok(claims)
}

/// `None`: the claim is not evaluated here, or the value is not understood.
fn evaluate(label: i64, value: &CborValue<'_>, set: &mut ClaimSet) -> Option<()> {
    let cat = &mut set.cat;
    match label {
        labels::ISS => set.issuer = Some(value.as_text()?.to_owned()),
        labels::AUD => {
            set.audiences = match value {
                CborValue::Text(audience) => vec![audience.to_string()],
                audiences => texts(audiences)?,
            };
        }
        // A time within a second does not end, nor begin, before that second.
        labels::EXP => cat.expires_at = Some(seconds(value, f64::floor)?),
        labels::NBF => cat.not_before = Some(seconds(value, f64::ceil)?),
        // When it was issued permits and forbids nothing.
        labels::IAT => drop(seconds(value, f64::floor)?),
        // These restrict nothing; how to renew is read with all the others.
        labels::SUB | labels::CTI | labels::CATR => {}
        labels::CATREPLAY => {
            (value.as_integer()? == REPLAY_PERMITTED).then_some(())?;
        }
        labels::CATV => {
            (value.as_integer()? == VERSION).then_some(())?;
        }
        labels::CATNIP => cat.networks = Some(networks::read(value)?),
        labels::CATU => cat.uri = Some(UriRule::read(value)?),
        labels::CATM => cat.methods = Some(texts(value)?),
        labels::CATALPN => cat.protocols = Some(protocols(value)?),
        // Negative ones are for private use.
        label if label < 0 => {}
        _ => return None,
    }
    Some(())
}

fn texts(value: &CborValue<'_>) -> Option<Vec<String>> {
    let texts = value.as_array()?.iter();
    texts
        .map(|text| text.as_text().map(str::to_owned))
        .collect()
}

/// Byte strings, as TLS has them; some issuers write text.
fn protocols(value: &CborValue<'_>) -> Option<Vec<Vec<u8>>> {
    let names = value.as_array()?.iter();
    let bytes = |name: &CborValue<'_>| match name {
        CborValue::Bytes(name) => Some(name.to_vec()),
        CborValue::Text(name) => Some(name.as_bytes().to_vec()),
        _ => None,
    };
    names.map(bytes).collect()
}

/// A time in seconds since 1970, which may be a fraction (RFC 8392, section 2). One before 1970
/// has passed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the bounds are checked"
)]
fn seconds(value: &CborValue<'_>, round: fn(f64) -> f64) -> Option<u64> {
    match value {
        CborValue::Integer(seconds) => u64::try_from((*seconds).max(0)).ok(),
        // Beyond 2^53 a fraction has no seconds.
        CborValue::Float(seconds) if seconds.abs() <= 9_007_199_254_740_992.0 => {
            Some(round(*seconds).max(0.0) as u64)
        }
        _ => None,
    }
}
