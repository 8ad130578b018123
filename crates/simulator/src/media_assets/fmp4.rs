//! Writes a fragment as CMAF (ISO/IEC 14496-12, 23000-19): a `moof` with its time, and an `mdat`
//! with its samples. Knows nothing of segments: a segment is several fragments.

use bytes::{BufMut, Bytes, BytesMut};

use super::{FRAGMENTS_PER_GOP, MediaFragment, SampleTrack};

/// tfhd: offsets count from the `moof`; default duration and flags follow.
const TFHD_FLAGS: u32 = 0x02_0000 | 0x08 | 0x20;
/// trun: a data offset, flags of the first sample, a size per sample.
const TRUN_FLAGS: u32 = 0x01 | 0x04 | 0x200;
/// The sample does not depend on others.
const SYNC: u32 = 0x0200_0000;
/// The sample depends on others.
const NOT_SYNC: u32 = 0x0101_0000;

const HEAD: u32 = 8;
const MFHD: u32 = HEAD + 8;
const TFHD: u32 = HEAD + 16;
const TFDT: u32 = HEAD + 12;
const TRUN: u32 = HEAD + 16;
const SAMPLE: u32 = 4;

/// Each file has one track.
const TRACK_ID: u32 = 1;

pub(super) fn fragment(track: &SampleTrack, fragment: MediaFragment) -> Bytes {
    let samples: Vec<_> = track.samples(fragment).collect();
    let start = samples.first().map_or(0, |(ticks, _)| *ticks);
    let count = to_u32(samples.len());
    let data = samples
        .iter()
        .map(|(_, bytes)| to_u32(bytes.len()))
        .sum::<u32>();
    let trun = TRUN + SAMPLE * count;
    let traf = HEAD + TFHD + TFDT + trun;
    let moof = HEAD + MFHD + traf;
    let begins_gop = fragment.number.is_multiple_of(FRAGMENTS_PER_GOP);
    let (first, others) = match (track.is_video(), begins_gop) {
        (false, _) => (SYNC, SYNC),
        (true, true) => (SYNC, NOT_SYNC),
        (true, false) => (NOT_SYNC, NOT_SYNC),
    };

    let mut out = BytesMut::with_capacity((moof + HEAD + data) as usize);
    write_box_header(&mut out, moof, *b"moof");
    write_full_box_header(&mut out, MFHD, *b"mfhd", 0);
    // The sequence number starts at one, and may wrap.
    #[expect(clippy::cast_possible_truncation)]
    out.put_u32((fragment.number as u32).wrapping_add(1));
    write_box_header(&mut out, traf, *b"traf");
    write_full_box_header(&mut out, TFHD, *b"tfhd", TFHD_FLAGS);
    out.put_u32(TRACK_ID);
    out.put_u32(to_u32(track.sample_ticks));
    out.put_u32(others);
    write_full_box_header(&mut out, TFDT, *b"tfdt", 1 << 24);
    out.put_u64(start);
    write_full_box_header(&mut out, trun, *b"trun", TRUN_FLAGS);
    out.put_u32(count);
    out.put_u32(moof + HEAD);
    out.put_u32(first);
    for (_, bytes) in &samples {
        out.put_u32(to_u32(bytes.len()));
    }
    write_box_header(&mut out, HEAD + data, *b"mdat");
    for (_, bytes) in &samples {
        out.put_slice(bytes);
    }
    out.freeze()
}

pub(super) fn fragment_bytes(track: &SampleTrack, fragment: MediaFragment) -> u64 {
    let fixed = HEAD + MFHD + HEAD + TFHD + TFDT + TRUN + HEAD;
    let samples = track.samples(fragment);
    let each = samples.map(|(_, bytes)| u64::from(SAMPLE) + bytes.len() as u64);
    u64::from(fixed) + each.sum::<u64>()
}

fn write_box_header(out: &mut BytesMut, length: u32, name: [u8; 4]) {
    out.put_u32(length);
    out.put_slice(&name);
}

/// A full box: with a version (its first byte) and flags.
fn write_full_box_header(out: &mut BytesMut, length: u32, name: [u8; 4], version_and_flags: u32) {
    write_box_header(out, length, name);
    out.put_u32(version_and_flags);
}

/// All sizes, counts and durations of the loop are far below 4 GiB.
fn to_u32(value: impl TryInto<u32>) -> u32 {
    value.try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{DemoRendition, FRAGMENTS_PER_LOOP, MediaAssets};
    use super::*;

    #[test]
    fn computes_fragment_length_without_writing_it() {
        let assets = MediaAssets::bundled();
        for rendition in DemoRendition::ALL {
            let track = assets.track(rendition);
            for number in 0..FRAGMENTS_PER_LOOP {
                let one = MediaFragment { number, shift: 6 };
                let made = fragment(track, one);
                assert_eq!(made.len() as u64, fragment_bytes(track, one));
            }
        }
    }

    #[test]
    fn repeats_the_same_samples_at_later_times() {
        let assets = MediaAssets::bundled();
        let track = assets.track(DemoRendition::High);
        let of_round = |round: u64| {
            fragment(
                track,
                MediaFragment {
                    number: round * FRAGMENTS_PER_LOOP + 7,
                    shift: 0,
                },
            )
        };
        let (first, second) = (of_round(0), of_round(1));
        let time = |bytes: &[u8]| u64::from_be_bytes(bytes[68..76].try_into().unwrap());
        assert_eq!(time(&first), 70_000);
        assert_eq!(time(&second), 24 * 30_000 + 70_000);
        assert_eq!(first[76..], second[76..]);
    }
}
