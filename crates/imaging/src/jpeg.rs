//! Reads the segments of a JPEG file before it is decoded.

/// The result of reading the segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segments {
    /// Whether the end-of-image marker was found.
    pub(crate) complete: bool,
    /// Number of scans, which are passes over the picture.
    pub(crate) scans: usize,
    /// Whether a segment has a part of a colour profile.
    pub(crate) has_profile: bool,
}

/// Reads the segments of a file.
///
/// Decoders fill missing data with grey and report success, and a model would learn the grey. So truncated files are refused, as in Pillow.
/// Searching for the bytes `FF D9` is not enough, because an embedded preview contains them, too.
pub(crate) fn segments(bytes: &[u8]) -> Segments {
    let mut found = Segments {
        complete: false,
        scans: 0,
        has_profile: false,
    };
    found.complete = walk(bytes, &mut found).is_some();
    found
}

/// `None` if the bytes end first.
fn walk(bytes: &[u8], found: &mut Segments) -> Option<()> {
    let mut at = 2; // after the start-of-image marker
    loop {
        // In coded data, 00 follows a real FF. Skip bytes outside segments, as decoders do.
        while *bytes.get(at)? != 0xFF {
            at += 1;
        }
        while *bytes.get(at)? == 0xFF {
            at += 1;
        }
        let marker = *bytes.get(at)?;
        at += 1;
        match marker {
            0xD9 => return Some(()),
            // A stuffed FF, a restart marker, a temporary marker, a start of image: none of them has a length.
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            _ => {
                found.scans += usize::from(marker == 0xDA);
                let data = bytes.get(at + 2..).unwrap_or_default();
                found.has_profile |= marker == 0xE2 && data.starts_with(b"ICC_PROFILE\0");
                let length = usize::from(*bytes.get(at)?) << 8 | usize::from(*bytes.get(at + 1)?);
                at += length.max(2);
            }
        }
    }
}

/// Width and height of the first frame.
pub(crate) fn frame(bytes: &[u8]) -> Option<[u32; 2]> {
    let mut at = 2;
    loop {
        while *bytes.get(at)? != 0xFF || *bytes.get(at + 1)? == 0xFF {
            at += 1;
        }
        let marker = bytes[at + 1];
        let short = |at: usize| {
            let bytes = bytes.get(at..at + 2)?;
            Some(u32::from(bytes[0]) << 8 | u32::from(bytes[1]))
        };
        match marker {
            0x00 | 0x01 | 0xD0..=0xD8 => at += 2,
            // Frames, without the tables among their markers.
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                return Some([short(at + 7)?, short(at + 5)?]);
            }
            _ => at += 2 + short(at + 2)?.max(2) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_marker_counts_outside_segments_only() {
        let head = [0xFF, 0xD8, 0xFF, 0xE1, 0x00, 0x04, 0xFF, 0xD9]; // an APP1 segment that contains FF D9
        let scan = [
            0xFF, 0xDA, 0x00, 0x02, 0x12, 0xFF, 0x00, 0x34, 0xFF, 0xD0, 0x56,
        ];
        let open = [&head[..], &scan[..]].concat();
        assert!(!segments(&open).complete);
        let closed = [&open[..], &[0xFF, 0xFF, 0xD9]].concat();
        let whole = Segments {
            complete: true,
            scans: 1,
            has_profile: false,
        };
        assert_eq!(segments(&closed), whole);
        for n in 0..closed.len() {
            assert!(!segments(&closed[..n]).complete, "prefix of {n}");
        }
    }
}
