//! Test content: valid playlists, and bytes in which mix-ups show.

use std::hash::{DefaultHasher, Hasher};
use std::io::Read;

use bytes::Bytes;

/// A live HLS media playlist whose first segment has this number. Its target duration is 6 s, so a
/// shorter lifetime from the origin applies.
pub fn playlist(first: u64) -> String {
    let head = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:6\n";
    let segment = |number: u64| format!("#EXTINF:6.0,\nseg{number}.ts\n");
    let segments: String = (first..first + 3).map(segment).collect();
    format!("{head}#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}")
}

/// The same stream after its end.
pub fn ended_playlist(first: u64) -> String {
    playlist(first) + "#EXT-X-ENDLIST\n"
}

/// Compressed with gzip.
pub fn gzip(text: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    let mut reader = flate2::read::GzEncoder::new(text, flate2::Compression::default());
    reader.read_to_end(&mut coded).unwrap();
    coded
}

/// `length` bytes without a period: shifted, mixed or repeated pieces show. Different seeds share
/// no piece.
pub fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// Identifies a body without storing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The number of bytes.
    pub length: u64,
    /// A hash over all bytes in order.
    pub hash: u64,
}

impl Fingerprint {
    /// The fingerprint of these bytes.
    pub fn of(bytes: &[u8]) -> Fingerprint {
        let mut press = Press::default();
        press.feed(bytes);
        press.finish()
    }
}

/// Computes a fingerprint incrementally: the division into pieces does not change the hash.
#[derive(Default)]
pub struct Press {
    length: u64,
    hasher: DefaultHasher,
}

impl Press {
    /// Adds the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        self.hasher.write(piece);
    }

    /// The fingerprint of all pieces.
    pub fn finish(&self) -> Fingerprint {
        Fingerprint {
            length: self.length,
            hash: self.hasher.finish(),
        }
    }
}
