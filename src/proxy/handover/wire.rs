//! The messages between the two processes: JSON with its length before it; the body of an object
//! follows as it is. Fields are only added: the processes may be of different versions.

use std::io;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// More than the longest message.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;

/// Header fields.
pub(super) type WireFields = Vec<(String, Vec<u8>)>;

/// A question for an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::proxy) struct ObjectQuestion {
    /// The bytes of its key.
    pub(in crate::proxy) key: Vec<u8>,
    /// The kind by its URL.
    pub(in crate::proxy) kind: String,
    /// The request headers as they would be sent to the origin.
    pub(super) fields: WireFields,
    /// A longer object is of no use.
    pub(in crate::proxy) length_max: u64,
}

impl ObjectQuestion {
    pub(in crate::proxy) fn new(
        key: &[u8],
        kind: &str,
        upstream_headers: &HeaderMap,
        length_max: u64,
    ) -> ObjectQuestion {
        ObjectQuestion {
            key: key.to_vec(),
            kind: kind.to_owned(),
            fields: fields_of(upstream_headers),
            length_max,
        }
    }
}

/// An object that is given; its body follows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct GivenHead {
    pub(super) status: u16,
    /// The response headers of the origin, without those that say its age.
    pub(super) fields: WireFields,
    /// The bytes of the keys of its tags.
    pub(super) tags: Vec<Vec<u8>>,
    /// The length of its body.
    pub(super) length: u64,
    /// The object is stored in slices, which have keys of their own: it has this length, and no
    /// body follows.
    #[serde(default)]
    pub(super) sliced_length: Option<u64>,
    /// Since the origin generated it.
    pub(super) age_millis: u64,
    /// From its generation until it is stale.
    pub(super) fresh_for_millis: u64,
    /// As in [`seawall_policy::Lifetime`].
    pub(super) stale_while_revalidate_millis: u64,
    pub(super) stale_if_error_millis: u64,
}

pub(super) async fn send<M: Serialize>(stream: &mut UnixStream, message: &M) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    // In one write: most messages are short.
    let framed = [&length.to_be_bytes()[..], &body].concat();
    stream.write_all(&framed).await
}

pub(super) async fn receive<M: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<M> {
    let length = stream.read_u32().await?;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::other("the message is too long"));
    }
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

pub(super) fn fields_of(headers: &HeaderMap) -> WireFields {
    let fields = headers.iter();
    let fields = fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    fields.collect()
}

/// The headers. Malformed fields are left out.
pub(super) fn headers_of(fields: WireFields) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        if let Ok(name) = HeaderName::try_from(name)
            && let Ok(value) = HeaderValue::try_from(value)
        {
            headers.append(name, value);
        }
    }
    headers
}
