//! TensorBoard event files: a record of a few protobuf fields per step.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// Appends scalars and pictures to one event file.
#[derive(Debug)]
pub(crate) struct EventFile {
    file: File,
}

impl EventFile {
    /// Opens `path` and truncates it to `length` bytes. At 0, or if it is shorter, it starts again with the header.
    pub(crate) fn open(path: &Path, length: u64, seconds: f64) -> io::Result<Self> {
        let mut file = sdft_files::open_append(path)?;
        let length = if file.metadata()?.len() < length {
            0
        } else {
            length
        };
        file.set_len(length)?;
        file.seek(SeekFrom::End(0))?;
        let mut out = Self { file };
        if length == 0 {
            let mut event = Vec::new();
            double(&mut event, 1, seconds);
            bytes(&mut event, 3, b"brain.Event:2");
            out.record(&event)?;
        }
        Ok(out)
    }

    /// Writes scalars of one step.
    pub(crate) fn scalars(
        &mut self,
        step: u64,
        seconds: f64,
        values: &[(&str, f64)],
    ) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = Vec::new();
            bytes(&mut entry, 1, tag.as_bytes());
            entry.push(2 << 3 | 5);
            #[expect(clippy::cast_possible_truncation, reason = "the format has f32")]
            entry.extend((*value as f32).to_le_bytes());
            bytes(&mut summary, 1, &entry);
        }
        self.summary(step, seconds, &summary)
    }

    /// Writes an RGB picture of one step, as the PNG file that it is.
    pub(crate) fn png(&mut self, step: u64, seconds: f64, tag: &str, png: &[u8]) -> io::Result<()> {
        // Width and height are the first values of the first chunk, IHDR.
        let side = |at: usize| {
            let bytes = png.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_be_bytes).map(u64::from)
        };
        let (Some(width), Some(height)) = (side(16), side(20)) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a PNG file"));
        };
        let mut image = Vec::with_capacity(png.len() + 32);
        for (field, value) in [(1, height), (2, width), (3, 3)] {
            image.push(field << 3);
            varint(&mut image, value);
        }
        bytes(&mut image, 4, png);
        let mut entry = Vec::with_capacity(image.len() + 32);
        bytes(&mut entry, 1, tag.as_bytes());
        bytes(&mut entry, 4, &image);
        let mut summary = Vec::with_capacity(entry.len() + 16);
        bytes(&mut summary, 1, &entry);
        self.summary(step, seconds, &summary)
    }

    fn summary(&mut self, step: u64, seconds: f64, summary: &[u8]) -> io::Result<()> {
        let mut event = Vec::with_capacity(summary.len() + 32);
        double(&mut event, 1, seconds);
        event.push(2 << 3);
        varint(&mut event, step);
        bytes(&mut event, 5, summary);
        self.record(&event)
    }

    /// Flushes to the disk and returns the length.
    pub(crate) fn sync(&mut self) -> io::Result<u64> {
        self.file.sync_data()?;
        self.file.stream_position()
    }

    /// A TFRecord: length, its checksum, data, its checksum.
    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut out = Vec::with_capacity(data.len() + 16);
        out.extend(length);
        out.extend(masked_crc32c(&length).to_le_bytes());
        out.extend(data);
        out.extend(masked_crc32c(data).to_le_bytes());
        self.file.write_all(&out)
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn bytes(out: &mut Vec<u8>, field: u8, data: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, data.len() as u64);
    out.extend(data);
}

fn double(out: &mut Vec<u8>, field: u8, value: f64) {
    out.push(field << 3 | 1);
    out.extend(value.to_le_bytes());
}

/// CRC-32C of each byte.
const CRC_OF_BYTE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn masked_crc32c(data: &[u8]) -> u32 {
    let crc = !data.iter().fold(!0u32, |crc, &byte| {
        (crc >> 8) ^ CRC_OF_BYTE[usize::from(crc as u8 ^ byte)]
    });
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a file into the payloads of its records and checks both checksums.
    fn records(mut data: &[u8]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while !data.is_empty() {
            let (length, rest) = data.split_at(8);
            let n = usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap();
            assert_eq!(rest[..4], masked_crc32c(length).to_le_bytes());
            assert_eq!(
                rest[4 + n..8 + n],
                masked_crc32c(&rest[4..4 + n]).to_le_bytes()
            );
            out.push(rest[4..4 + n].to_vec());
            data = &rest[8 + n..];
        }
        out
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of CRC-32C, before masking.
        let unmasked = masked_crc32c(b"123456789")
            .wrapping_sub(0xa282_ead8)
            .rotate_left(15);
        assert_eq!(unmasked, 0xe306_9283);
    }

    #[test]
    fn events_are_framed_and_can_be_cut_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let mut file = EventFile::open(&path, 0, 1.5).unwrap();
        file.scalars(300, 2.0, &[("loss", 0.25)]).unwrap();
        let length = file.sync().unwrap();
        file.scalars(301, 3.0, &[("loss", 0.5)]).unwrap();
        drop(file);
        let mut again = EventFile::open(&path, length, 9.0).unwrap();
        assert_eq!(again.sync().unwrap(), length);
        let found = records(&std::fs::read(&path).unwrap());
        assert_eq!(found.len(), 2);
        assert_eq!(found[0][9..], *b"\x1a\x0dbrain.Event:2");
        let mut want = vec![0x09];
        want.extend(2.0f64.to_le_bytes());
        want.extend([0x10, 0xac, 0x02, 0x2a, 13, 0x0a, 11, 0x0a, 4]);
        want.extend(*b"loss");
        want.push(0x15);
        want.extend(0.25f32.to_le_bytes());
        assert_eq!(found[1], want);
    }
    #[test]
    fn a_picture_is_an_image_of_the_summary_with_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let picture = sdft_imaging::Rgb8::new(3, 2, (0..18).collect()).unwrap();
        let png = sdft_imaging::encode_png(&picture).unwrap();
        let mut file = EventFile::open(&path, 0, 1.5).unwrap();
        file.png(300, 2.0, "samples", &png).unwrap();
        assert!(file.png(300, 2.0, "samples", b"GIF").is_err());
        let event = records(&std::fs::read(&path).unwrap()).swap_remove(1);
        // Summary.Image: height, width, colorspace 3 (RGB), the file.
        let mut image = vec![0x08, 2, 0x10, 3, 0x18, 3];
        bytes(&mut image, 4, &png);
        let mut entry = vec![0x0a, 7];
        entry.extend(*b"samples");
        bytes(&mut entry, 4, &image);
        let mut summary = Vec::new();
        bytes(&mut summary, 1, &entry);
        let mut want = vec![0x10, 0xac, 0x02];
        bytes(&mut want, 5, &summary);
        assert_eq!(event[9..], want);
    }
}
