//! What do the objects look like? Playlists a player would take, and bytes that betray mix-ups.

use std::hash::{DefaultHasher, Hasher};
use std::io::Read;

use bytes::Bytes;

/// A live HLS media playlist whose first segment has this number. Six seconds of target duration:
/// where the origin names a shorter lifetime, that one holds.
pub fn playlist(first: u64) -> String {
    let head = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:6\n";
    let segment = |number: u64| format!("#EXTINF:6.0,\nseg{number}.ts\n");
    let segments: String = (first..first + 3).map(segment).collect();
    format!("{head}#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}")
}

/// The same stream after it has ended.
pub fn ended_playlist(first: u64) -> String {
    playlist(first) + "#EXT-X-ENDLIST\n"
}

/// In a content coding.
pub fn gzip(text: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    let mut reader = flate2::read::GzEncoder::new(text, flate2::Compression::default());
    reader.read_to_end(&mut coded).unwrap();
    coded
}

/// `length` bytes without any period: a shifted, mixed or repeated piece shows.
/// Different `seed`s share no piece.
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

/// Tells bodies apart without keeping them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// How many bytes there were.
    pub length: u64,
    /// A hash over all of them in order.
    pub hash: u64,
}

impl Fingerprint {
    /// The fingerprint of bytes at hand.
    pub fn of(bytes: &[u8]) -> Fingerprint {
        let mut press = Press::default();
        press.feed(bytes);
        press.finish()
    }
}

/// Takes a fingerprint piece by piece: however a body was cut into pieces, the hash is the same.
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

    /// The fingerprint of everything fed.
    pub fn finish(&self) -> Fingerprint {
        Fingerprint {
            length: self.length,
            hash: self.hasher.finish(),
        }
    }
}
