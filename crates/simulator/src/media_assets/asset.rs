//! Reads one of the media files: only the part of ISO/IEC 14496-12 that ffmpeg writes with the
//! options of `make.sh`, which is an empty `moov` and one fragment with all samples.

use std::ops::Range;

/// A parsed file.
pub(super) struct MediaFile {
    pub(super) init: &'static [u8],
    pub(super) timescale: u32,
    pub(super) size: Option<(u16, u16)>,
    pub(super) sample_ticks: u32,
    pub(super) samples: Vec<Range<usize>>,
    pub(super) setup: DecoderSetup,
}

/// The decoder configuration.
#[derive(Clone, Copy, Debug)]
pub(super) enum DecoderSetup {
    /// The first bytes of the `AVCDecoderConfigurationRecord`, a sequence and a picture parameter
    /// set.
    Avc {
        profile: [u8; 3],
        sps: &'static [u8],
        pps: &'static [u8],
    },
    /// AAC-LC, 48 kHz, one channel.
    Aac,
}

impl DecoderSetup {
    /// The codec string (RFC 6381 §3.3, §3.4).
    pub(super) fn codec(&self) -> String {
        match self {
            DecoderSetup::Avc {
                profile: [profile, compatible, level],
                ..
            } => format!("avc1.{profile:02X}{compatible:02X}{level:02X}"),
            DecoderSetup::Aac => "mp4a.40.2".to_owned(),
        }
    }
}

impl MediaFile {
    pub(super) fn read(file: &'static [u8]) -> Option<MediaFile> {
        let moov = find(file, &["moov"])?;
        let moof = find(file, &["moof"])?.0;
        let media = find(file, &["moov", "trak", "mdia"])?.bytes(file);
        let mdhd = find(media, &["mdhd"])?.bytes(media);
        let (setup, size) = setup(find(media, &["minf", "stbl", "stsd"])?.bytes(media))?;
        let traf = find(file, &["moof", "traf"])?.bytes(file);
        let tfhd = find(traf, &["tfhd"])?.bytes(traf);
        let trun = find(traf, &["trun"])?.bytes(traf);
        // `moof` includes its own header: offsets count from there.
        let samples = samples(trun, moof.start - HEAD_BYTES)?;
        Some(MediaFile {
            init: &file[..moov.0.end],
            timescale: u32_at(mdhd, 12)?,
            size,
            // Flags, track, then the duration: with the options of make.sh ffmpeg writes no other
            // optional field before it.
            sample_ticks: u32_at(tfhd, 8)?,
            samples,
            setup,
        })
    }
}

const HEAD_BYTES: usize = 8;

/// A box's content, as a range of the searched bytes.
struct BoxContent(Range<usize>);

impl BoxContent {
    fn bytes(self, within: &'static [u8]) -> &'static [u8] {
        &within[self.0]
    }
}

/// The first box on this path.
fn find(bytes: &[u8], path: &[&str]) -> Option<BoxContent> {
    let (name, inner_path) = path.split_first()?;
    let mut offset = 0;
    loop {
        let length = u32_at(bytes, offset)? as usize;
        let content = offset + HEAD_BYTES..offset + length;
        if bytes.get(offset + 4..offset + HEAD_BYTES)? == name.as_bytes() {
            if inner_path.is_empty() {
                return bytes.get(content.clone()).map(|_| BoxContent(content));
            }
            let inner = find(bytes.get(content.clone())?, inner_path)?.0;
            let start = content.start;
            return Some(BoxContent(start + inner.start..start + inner.end));
        }
        offset += length.max(HEAD_BYTES);
    }
}

/// The decoder configuration in the first sample entry, and the picture size.
fn setup(stsd: &'static [u8]) -> Option<(DecoderSetup, Option<(u16, u16)>)> {
    const BEFORE_ENTRIES: usize = 8;
    const VISUAL_ENTRY: usize = 78;
    const AUDIO_ENTRY: usize = 28;
    /// Tag, length, and the configuration of `DecoderSetup::Aac` (ISO/IEC 14496-3 §1.6.2.1).
    const AAC: [u8; 3] = [2, 0x11, 0x88];
    let entries = stsd.get(BEFORE_ENTRIES..)?;
    let Some(avc1) = find(entries, &["avc1"]) else {
        let mp4a = find(entries, &["mp4a"])?.bytes(entries);
        let boxes = mp4a.get(AUDIO_ENTRY..)?;
        let descriptor = find(boxes, &["esds"])?.bytes(boxes);
        let is_known = descriptor.windows(AAC.len()).any(|bytes| bytes == AAC);
        return is_known.then_some((DecoderSetup::Aac, None));
    };
    let avc1 = avc1.bytes(entries);
    let boxes = avc1.get(VISUAL_ENTRY..)?;
    let record = find(boxes, &["avcC"])?.bytes(boxes);
    let sps_bytes = usize::from(u16_at(record, 6)?);
    let sps = record.get(8..8 + sps_bytes)?;
    let pps_bytes = usize::from(u16_at(record, 9 + sps_bytes)?);
    let pps = record.get(11 + sps_bytes..11 + sps_bytes + pps_bytes)?;
    let profile = [*record.get(1)?, *record.get(2)?, *record.get(3)?];
    let size = (u16_at(avc1, 24)?, u16_at(avc1, 26)?);
    Some((DecoderSetup::Avc { profile, sps, pps }, Some(size)))
}

/// The positions of a `trun`'s samples in the file.
fn samples(trun: &[u8], moof_start: usize) -> Option<Vec<Range<usize>>> {
    const FIRST_FLAGS: u32 = 0x4;
    const PER_SAMPLE: [(u32, bool); 4] = [
        (0x100, false),
        (0x200, true),
        (0x400, false),
        (0x800, false),
    ];
    let flags = u32_at(trun, 0)?;
    let count = u32_at(trun, 4)?;
    let mut data = moof_start + u32_at(trun, 8)? as usize;
    let mut offset = if flags & FIRST_FLAGS == 0 { 12 } else { 16 };
    let mut samples = Vec::new();
    for _ in 0..count {
        for (flag, is_size) in PER_SAMPLE {
            if flags & flag == 0 {
                continue;
            }
            if is_size {
                let end = data + u32_at(trun, offset)? as usize;
                samples.push(data..end);
                data = end;
            }
            offset += 4;
        }
    }
    Some(samples)
}

/// The NAL units of a picture, each preceded by its length (ISO/IEC 14496-15).
pub(super) fn nals(sample: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = sample;
    std::iter::from_fn(move || {
        let length = u32_at(rest, 0)? as usize;
        let nal = rest.get(4..4 + length)?;
        rest = &rest[4 + length..];
        Some(nal)
    })
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset + 4)?;
    bytes.try_into().ok().map(u32::from_be_bytes)
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..offset + 2)?;
    bytes.try_into().ok().map(u16::from_be_bytes)
}
