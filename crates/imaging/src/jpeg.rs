//! Reads the segments of a JPEG file before it is decoded.

/// The result of reading the segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segments {
    /// Whether the end-of-image marker was found.
    pub(crate) complete: bool,
    /// Number of scans, which are passes over the picture.
    pub(crate) scans: usize,
}

/// Reads the segments of a file.
///
/// Decoders fill missing data with grey and report success, and a model would learn the grey. So truncated files are refused, as in Pillow.
/// Searching for the bytes `FF D9` is not enough, because an embedded preview contains them, too.
pub(crate) fn segments(bytes: &[u8]) -> Segments {
    let mut scans = 0;
    let complete = walk(bytes, &mut scans).is_some();
    Segments { complete, scans }
}

/// `None` if the bytes end first.
fn walk(bytes: &[u8], scans: &mut usize) -> Option<()> {
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
                *scans += usize::from(marker == 0xDA);
                let length = usize::from(*bytes.get(at)?) << 8 | usize::from(*bytes.get(at + 1)?);
                at += length.max(2);
            }
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
        };
        assert_eq!(segments(&closed), whole);
        for n in 0..closed.len() {
            assert!(!segments(&closed[..n]).complete, "prefix of {n}");
        }
    }
}
