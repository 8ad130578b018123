//! Writes a piece of the media loop as a transport stream (ISO/IEC 13818-1): video as Annex B,
//! audio as ADTS, and continuity counters that continue from the piece before. Knows nothing of
//! playlists.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::asset::{self, DecoderSetup};
use super::{FRAGMENTS_PER_LOOP, MediaFragment, SampleTrack};

const PACKET: usize = 188;
const HEAD: usize = 4;
const PAYLOAD_BYTES_MAX: usize = PACKET - HEAD;
/// Length, flags, PCR.
const CLOCK_FIELD: usize = 8;

const PMT: u16 = 0x1000;
const VIDEO: u16 = 0x100;
const AUDIO: u16 = 0x101;

/// The PCR is this far behind the timestamps, so that all data arrive in time: audio comes in
/// pieces of a third of a second. In units of 1/90000 s.
const LEAD: u64 = 45_000;

const PES_HEAD: usize = 14;
const DELIMITER: [u8; 6] = [0, 0, 0, 1, 9, 0xf0];
const START_CODE: [u8; 4] = [0, 0, 0, 1];
const ADTS_HEAD: usize = 7;

/// These fragments of video and audio, after the PAT and the PMT.
pub(super) fn segment(
    video: &SampleTrack,
    audio: &SampleTrack,
    fragments: &Range<MediaFragment>,
) -> Bytes {
    let Range { start, end } = fragments;
    let mut out = Packets::default();
    // One of each table per segment, so their counters follow the segment's number.
    let table_counter = start.number / (end.number - start.number).max(1);
    out.table(0, table_counter, &program_association_table());
    out.table(PMT, table_counter, &program_map_table());
    let (mut pictures, mut sounds) = packets_before(video, audio, *start);
    for number in start.number..end.number {
        let fragment = MediaFragment {
            number,
            shift: start.shift,
        };
        let frames: Vec<_> = audio.samples(fragment).collect();
        let start_ticks = frames.first().map_or(0, |(ticks, _)| *ticks) * 90_000 / audio.timescale;
        let unit = audio_frames(start_ticks, &frames);
        sounds += out.unit(AUDIO, sounds, None, &unit);
        for (ticks, sample) in video.samples(fragment) {
            let time = ticks * 90_000 / video.timescale;
            let unit = video_access_unit(time, sample, &video.setup);
            pictures += out.unit(VIDEO, pictures, Some(time), &unit);
        }
    }
    out.0.freeze()
}

/// The number of video and audio packets since the beginning of the broadcast.
fn packets_before(video: &SampleTrack, audio: &SampleTrack, fragment: MediaFragment) -> (u64, u64) {
    let count = |from: u64, to: u64| {
        let mut counts = (0, 0);
        for number in from..to {
            let one = MediaFragment {
                number,
                shift: fragment.shift,
            };
            let pictures = video.samples(one);
            let pictures = pictures.map(|(_, sample)| picture_bytes(sample, &video.setup));
            counts.0 += pictures.map(|bytes| packets(bytes, true)).sum::<u64>();
            let sound = audio.samples(one);
            let sound: usize = sound.map(|(_, frame)| ADTS_HEAD + frame.len()).sum();
            counts.1 += packets(PES_HEAD + sound, false);
        }
        counts
    };
    let rounds = fragment.number / FRAGMENTS_PER_LOOP;
    let (round, remaining) = (
        count(0, FRAGMENTS_PER_LOOP),
        count(0, fragment.number % FRAGMENTS_PER_LOOP),
    );
    (
        rounds * round.0 + remaining.0,
        rounds * round.1 + remaining.1,
    )
}

fn packets(bytes: usize, with_clock: bool) -> u64 {
    let clock = if with_clock { CLOCK_FIELD } else { 0 };
    (bytes + clock).div_ceil(PAYLOAD_BYTES_MAX) as u64
}

/// One access unit: a delimiter, the parameter sets before an IDR picture, the picture.
fn video_access_unit(time: u64, sample: &[u8], setup: &DecoderSetup) -> BytesMut {
    let mut out = pes(0xe0, 0, time);
    out.put_slice(&DELIMITER);
    for set in parameter_sets_before(sample, setup) {
        out.put_slice(&START_CODE);
        out.put_slice(set);
    }
    for nal in asset::nals(sample) {
        out.put_slice(&START_CODE);
        out.put_slice(nal);
    }
    out
}

fn picture_bytes(sample: &[u8], setup: &DecoderSetup) -> usize {
    let sets = parameter_sets_before(sample, setup).into_iter();
    let nals = sets.chain(asset::nals(sample));
    PES_HEAD + DELIMITER.len() + nals.map(|nal| START_CODE.len() + nal.len()).sum::<usize>()
}

fn parameter_sets_before<'a>(sample: &'a [u8], setup: &'a DecoderSetup) -> Vec<&'a [u8]> {
    const IDR: u8 = 5;
    let idr = asset::nals(sample).any(|nal| nal.first().is_some_and(|kind| kind & 0x1f == IDR));
    match setup {
        DecoderSetup::Avc { sps, pps, .. } if idr => vec![sps, pps],
        _ => Vec::new(),
    }
}

/// A fragment's audio frames, each with its ADTS header (ISO/IEC 13818-7): AAC-LC, 48 kHz, mono.
fn audio_frames(time: u64, frames: &[(u64, &[u8])]) -> BytesMut {
    let bytes: usize = frames
        .iter()
        .map(|(_, frame)| ADTS_HEAD + frame.len())
        .sum();
    // The length counts the bytes after it: three of flags and five of time.
    let mut out = pes(0xc0, bytes + 8, time);
    for (_, frame) in frames {
        let length = ADTS_HEAD + frame.len();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the bits that belong there"
        )]
        out.put_slice(&[
            0xff,
            0xf1,
            0b0100_1100,
            0b0100_0000 | (length >> 11) as u8,
            (length >> 3) as u8,
            (length << 5) as u8 | 0x1f,
            0xfc,
        ]);
        out.put_slice(frame);
    }
    out
}

/// The header of a PES packet. A length of 0 is unbounded (video only).
fn pes(stream: u8, length: usize, time: u64) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_slice(&[0, 0, 1, stream]);
    out.put_u16(u16::try_from(length).unwrap_or(0));
    // Aligned; only a presentation time.
    out.put_slice(&[0x84, 0x80, 5]);
    let time = (time + LEAD) % (1 << 33);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the bits that belong there"
    )]
    out.put_slice(&[
        0x21 | (time >> 29) as u8 & 0x0e,
        (time >> 22) as u8,
        (time >> 14) as u8 | 1,
        (time >> 7) as u8,
        (time << 1) as u8 | 1,
    ]);
    out
}

/// The program association table (PAT): one program.
fn program_association_table() -> Vec<u8> {
    let mut section = vec![0, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1];
    section.extend((0xe000 | PMT).to_be_bytes());
    section
}

/// The program map table (PMT): H.264 and ADTS; the PCR is in the video.
fn program_map_table() -> Vec<u8> {
    let mut section = vec![2, 0xb0, 23, 0, 1, 0xc1, 0, 0];
    section.extend((0xe000 | VIDEO).to_be_bytes());
    section.extend([0xf0, 0]);
    for (kind, pid) in [(0x1b, VIDEO), (0x0f, AUDIO)] {
        section.push(kind);
        section.extend((0xe000 | pid).to_be_bytes());
        section.extend([0xf0, 0]);
    }
    section
}

#[derive(Default)]
struct Packets(BytesMut);

impl Packets {
    fn table(&mut self, pid: u16, counter: u64, section: &[u8]) {
        let mut unit = vec![0];
        unit.extend(section);
        unit.extend(crc(section).to_be_bytes());
        // Tables are padded at their end, not with an adaptation field.
        unit.resize(PAYLOAD_BYTES_MAX, 0xff);
        self.unit(pid, counter, None, &unit);
    }

    /// Splits a unit into packets and returns their number.
    fn unit(&mut self, pid: u16, counter: u64, clock: Option<u64>, unit: &[u8]) -> u64 {
        let mut remaining = unit;
        let mut number = 0;
        while !remaining.is_empty() {
            let first = number == 0;
            let field = adaptation(clock.filter(|_| first), remaining.len());
            let (payload_part, remaining_after) =
                remaining.split_at(remaining.len().min(PAYLOAD_BYTES_MAX - field.len()));
            let flags = if first { 0x4000 } else { 0 };
            self.0.put_u8(0x47);
            self.0.put_u16(pid | flags);
            let has_field = if field.is_empty() { 0x10 } else { 0x30 };
            self.0.put_u8(has_field | ((counter + number) & 0xf) as u8);
            self.0.put_slice(&field);
            self.0.put_slice(payload_part);
            remaining = remaining_after;
            number += 1;
        }
        number
    }
}

/// The adaptation field: the PCR, and padding if the last payload is short.
fn adaptation(clock: Option<u64>, payload: usize) -> Vec<u8> {
    let mut field = match clock {
        None => Vec::new(),
        Some(time) => {
            let base = time % (1 << 33);
            let mut field = vec![7, 0x10];
            // 33 bits, six reserved bits, and an extension of zero.
            field.extend(&((base << 15) | 0x7e00).to_be_bytes()[2..]);
            field
        }
    };
    let stuffing = PAYLOAD_BYTES_MAX.saturating_sub(field.len() + payload);
    if stuffing > 0 {
        if field.is_empty() {
            field.push(0);
            if stuffing > 1 {
                field.push(0);
            }
        }
        let length = PAYLOAD_BYTES_MAX - payload;
        field.resize(length, 0xff);
        field[0] = u8::try_from(length - 1).unwrap_or(0);
    }
    field
}

/// The checksum of tables (annex A).
fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            let carry = if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 };
            crc << 1 ^ carry
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::{DemoRendition, MediaAssets};
    use super::*;

    fn piece(number: u64, shift: u64) -> Bytes {
        let at = |number| MediaFragment { number, shift };
        MediaAssets::bundled().ts(DemoRendition::Low, at(number)..at(number + 6))
    }

    #[test]
    fn continues_counters_across_segments() {
        for shift in [0, 6] {
            let mut counters = HashMap::new();
            // Across the end of the loop.
            for number in (48..96).step_by(6) {
                for packet in piece(number, shift).chunks(PACKET) {
                    assert_eq!((packet.len(), packet[0]), (PACKET, 0x47));
                    let pid = u16::from_be_bytes([packet[1], packet[2]]) & 0x1fff;
                    let counter = packet[3] & 0xf;
                    if let Some(before) = counters.insert(pid, counter) {
                        assert_eq!(counter, (before + 1) & 0xf, "{pid:#x} in {number}");
                    }
                }
            }
            assert_eq!(counters.len(), 4);
        }
    }

    #[test]
    fn writes_tables_with_valid_crc() {
        // A section followed by its own checksum gives zero.
        for section in [program_association_table(), program_map_table()] {
            let whole = [&section[..], &crc(&section).to_be_bytes()].concat();
            assert_eq!(crc(&whole), 0);
            assert_eq!(usize::from(section[2]) + 3, whole.len());
        }
        assert_eq!(crc(b"123456789"), 0x0376_e6e7);
    }

    #[test]
    fn fills_packets_with_adaptation_fields() {
        for payload in 0..=PAYLOAD_BYTES_MAX {
            let field = adaptation(None, payload);
            assert_eq!(field.len() + payload, PAYLOAD_BYTES_MAX, "{payload}");
        }
        assert_eq!(adaptation(None, 500), [0_u8; 0]);
        assert_eq!(adaptation(Some(1), 500).len(), CLOCK_FIELD);
    }
}
