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
type Fields = Vec<(String, Vec<u8>)>;

/// A question for an object.
#[derive(Serialize, Deserialize)]
pub(super) struct ObjectQuestion {
    /// The bytes of its key.
    pub(super) key: Vec<u8>,
    /// The kind by its URL.
    pub(super) kind: String,
    /// The request headers as they would be sent to the origin.
    pub(super) fields: Fields,
}

/// An object that is given; its body follows.
#[derive(Serialize, Deserialize)]
pub(super) struct GivenHead {
    /// The response headers of the origin.
    pub(super) fields: Fields,
    /// The age of the object.
    pub(super) age_millis: u64,
    /// The bytes of the keys of its tags.
    pub(super) tags: Vec<Vec<u8>>,
    /// The length of its body.
    pub(super) length: u64,
}

pub(super) async fn send<M: Serialize>(stream: &mut UnixStream, message: &M) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    stream.write_u32(length).await?;
    stream.write_all(&body).await
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

pub(super) fn fields_of(headers: &HeaderMap) -> Fields {
    let fields = headers.iter();
    let fields = fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    fields.collect()
}

/// The headers. Malformed fields are left out.
pub(super) fn headers_of(fields: Fields) -> HeaderMap {
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
