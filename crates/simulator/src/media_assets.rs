//! The media of the stream: a loop of 24 seconds, with two video renditions that show a running
//! clock, and an audio rendition. Knows samples and fragments; knows nothing of segments, playlists
//! or the time of day.
//!
//! The files were made by `media_assets/make.sh` and are part of the program. Fragment `n` is a
//! third of a second: ten pictures, or fifteen or sixteen audio frames. Its samples come from the
//! loop; its timestamps increase for ever.

mod asset;
mod fmp4;
mod ts;

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use self::asset::MediaFile;

/// Fragments per second.
pub(super) const FRAGMENTS_PER_SECOND: u64 = 3;

/// Fragments from one IDR picture to the next. A segment has whole GOPs.
pub(super) const FRAGMENTS_PER_GOP: u64 = 6;

/// Fragments per round of the loop.
pub(super) const FRAGMENTS_PER_LOOP: u64 = 72;

const LOOP_SECONDS: u64 = FRAGMENTS_PER_LOOP / FRAGMENTS_PER_SECOND;

/// The media loop in all renditions.
#[derive(Debug)]
pub(super) struct MediaAssets {
    tracks: [SampleTrack; 3],
}

/// One rendition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DemoRendition {
    /// 640x360.
    High,
    /// 320x180.
    Low,
    /// Audio.
    Audio,
}

impl DemoRendition {
    /// All renditions.
    pub const ALL: [DemoRendition; 3] = [
        DemoRendition::High,
        DemoRendition::Low,
        DemoRendition::Audio,
    ];

    /// The video renditions.
    pub const VIDEO: [DemoRendition; 2] = [DemoRendition::High, DemoRendition::Low];

    /// The name in URLs.
    pub fn name(self) -> &'static str {
        match self {
            DemoRendition::High => "360p",
            DemoRendition::Low => "180p",
            DemoRendition::Audio => "audio",
        }
    }

    /// The rendition with this name.
    pub fn from_name(name: &str) -> Option<DemoRendition> {
        DemoRendition::ALL
            .into_iter()
            .find(|one| one.name() == name)
    }
}

/// A rendition's samples, all of one duration.
#[derive(Debug)]
pub(super) struct SampleTrack {
    /// `ftyp` and `moov`.
    pub(super) init: Bytes,
    /// Ticks per second.
    pub(super) timescale: u64,
    /// As in `CODECS` (RFC 6381).
    pub(super) codec: String,
    /// Width and height; `None` for audio.
    pub(super) size: Option<(u16, u16)>,
    sample_ticks: u64,
    samples: Vec<Range<usize>>,
    data: &'static [u8],
    /// The decoder configuration, for formats without an init segment.
    setup: asset::DecoderSetup,
}

/// A fragment: its number on the timeline, and the offset of its media in the loop. After a restart
/// the offset differs, so that the same names have other bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MediaFragment {
    pub(super) number: u64,
    pub(super) shift: u64,
}

impl MediaAssets {
    /// The media that are part of the program.
    pub(super) fn bundled() -> Arc<MediaAssets> {
        static SHIPPED: LazyLock<Arc<MediaAssets>> = LazyLock::new(|| {
            let files: [&'static [u8]; 3] = [
                include_bytes!("media_assets/360p.mp4"),
                include_bytes!("media_assets/180p.mp4"),
                include_bytes!("media_assets/audio.mp4"),
            ];
            #[expect(clippy::expect_used, reason = "a unit test reads the same bytes")]
            let tracks =
                files.map(|file| SampleTrack::of(file).expect("the bundled media can be read"));
            Arc::new(MediaAssets { tracks })
        });
        SHIPPED.clone()
    }

    pub(super) fn track(&self, rendition: DemoRendition) -> &SampleTrack {
        &self.tracks[rendition as usize]
    }

    /// A piece of a transport stream: this video rendition, and audio.
    pub(super) fn ts(&self, rendition: DemoRendition, fragments: Range<MediaFragment>) -> Bytes {
        let sound = self.track(DemoRendition::Audio);
        ts::segment(self.track(rendition), sound, &fragments)
    }
}

impl SampleTrack {
    fn of(file: &'static [u8]) -> Option<SampleTrack> {
        let asset = MediaFile::read(file)?;
        let timescale = u64::from(asset.timescale);
        let sample_ticks = u64::from(asset.sample_ticks);
        let is_complete = asset.samples.len() as u64 * sample_ticks == LOOP_SECONDS * timescale;
        is_complete.then_some(SampleTrack {
            init: Bytes::from_static(asset.init),
            timescale,
            codec: asset.setup.codec(),
            size: asset.size,
            sample_ticks,
            samples: asset.samples,
            data: file,
            setup: asset.setup,
        })
    }

    /// When a fragment begins, in ticks since the broadcast began.
    pub(super) fn ticks(&self, fragment: u64) -> u64 {
        self.first_sample(fragment) * self.sample_ticks
    }

    /// The duration of these fragments, in ticks.
    pub(super) fn ticks_between(&self, from: u64, to: u64) -> u64 {
        self.ticks(to) - self.ticks(from)
    }

    /// A fragment as `moof` and `mdat`.
    pub(super) fn fragment(&self, fragment: MediaFragment) -> Bytes {
        fmp4::fragment(self, fragment)
    }

    /// The length of [`SampleTrack::fragment`] in bytes.
    pub(super) fn fragment_bytes(&self, fragment: MediaFragment) -> u64 {
        fmp4::fragment_bytes(self, fragment)
    }

    /// Bits per second: over the busiest two seconds, and over the whole loop.
    pub(super) fn bits_per_second(&self) -> (u64, u64) {
        let gop = |gop: u64| -> u64 {
            let fragments = gop * FRAGMENTS_PER_GOP..(gop + 1) * FRAGMENTS_PER_GOP;
            fragments
                .map(|number| self.fragment_bytes(MediaFragment { number, shift: 0 }))
                .sum()
        };
        let gops: Vec<u64> = (0..FRAGMENTS_PER_LOOP / FRAGMENTS_PER_GOP)
            .map(gop)
            .collect();
        let peak = gops.iter().copied().max().unwrap_or_default();
        let gop_seconds = FRAGMENTS_PER_GOP / FRAGMENTS_PER_SECOND;
        (
            peak * 8 / gop_seconds,
            gops.iter().sum::<u64>() * 8 / LOOP_SECONDS,
        )
    }

    fn is_video(&self) -> bool {
        self.size.is_some()
    }

    /// The first sample of a fragment. Audio frames do not divide into thirds of a second; rounding
    /// down keeps audio fragments from ending after video.
    fn first_sample(&self, fragment: u64) -> u64 {
        fragment * self.samples.len() as u64 / FRAGMENTS_PER_LOOP
    }

    /// A fragment's samples: their begin in ticks, and their bytes.
    fn samples(&self, fragment: MediaFragment) -> impl Iterator<Item = (u64, &'static [u8])> {
        let count = self.samples.len() as u64;
        let sample_shift = self.first_sample(fragment.shift);
        let numbers = self.first_sample(fragment.number)..self.first_sample(fragment.number + 1);
        numbers.map(move |number| {
            #[expect(clippy::cast_possible_truncation, reason = "less than a length")]
            let resource = ((number + sample_shift) % count) as usize;
            let bytes = &self.data[self.samples[resource].clone()];
            (number * self.sample_ticks, bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundled_media_match_make_sh() {
        let assets = MediaAssets::bundled();
        let track_facts = |rendition| {
            let track = assets.track(rendition);
            (track.codec.clone(), track.size, track.samples.len())
        };
        assert_eq!(
            track_facts(DemoRendition::High),
            ("avc1.4D401E".into(), Some((640, 360)), 720)
        );
        assert_eq!(
            track_facts(DemoRendition::Low),
            ("avc1.4D400D".into(), Some((320, 180)), 720)
        );
        assert_eq!(
            track_facts(DemoRendition::Audio),
            ("mp4a.40.2".into(), None, 1125)
        );
    }

    #[test]
    fn timestamps_continue_across_the_loop() {
        let assets = MediaAssets::bundled();
        for rendition in DemoRendition::ALL {
            let track = assets.track(rendition);
            let mut expected = 0;
            for number in 0..3 * FRAGMENTS_PER_LOOP {
                for (ticks, _) in track.samples(MediaFragment { number, shift: 6 }) {
                    assert_eq!(ticks, expected);
                    expected += track.sample_ticks;
                }
            }
            assert_eq!(expected, 3 * LOOP_SECONDS * track.timescale);
        }
    }

    #[test]
    fn starts_each_gop_with_an_idr() {
        let assets = MediaAssets::bundled();
        let is_idr = |sample: &[u8]| asset::nals(sample).any(|nal| nal[0] & 0x1f == 5);
        for rendition in DemoRendition::VIDEO {
            for number in 0..FRAGMENTS_PER_LOOP {
                let fragment = MediaFragment { number, shift: 0 };
                let idrs: Vec<bool> = assets
                    .track(rendition)
                    .samples(fragment)
                    .map(|(_, sample)| is_idr(sample))
                    .collect();
                assert_eq!(idrs.len(), 10);
                assert_eq!(idrs[0], number % FRAGMENTS_PER_GOP == 0, "{number}");
                assert!(!idrs[1..].contains(&true));
            }
        }
    }
}
