//! An object as a manifest names it.

/// An object that a manifest names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedObject<'a> {
    /// What it is.
    pub role: ObjectRole,
    /// Bits per second of its rendition, where the manifest says so.
    pub bandwidth: Option<u64>,
    /// Its track: players choose between renditions of the same track. In an MPD, one for each
    /// adaptation set of each period, or for those that players switch between; in a playlist, 0.
    pub track: usize,
    /// As written; in an MPD, joined with its base URLs.
    pub uri: &'a str,
}

/// What an object is to the manifest that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectRole {
    /// The playlist of a variant.
    Variant,
    /// The playlist of an alternative rendition, such as audio or subtitles.
    Rendition,
    /// The playlist of a variant that has only key frames.
    Frames,
    /// An initialization segment.
    Init,
    /// A segment, or the file that contains it.
    Segment,
    /// A decryption key.
    Key,
}
