//! Reads the orientation of a picture from EXIF or XMP.

use image::metadata::Orientation;

use crate::{Image, ifd::Container, picture::map_samples, profile::Stated};

/// The orientation in an EXIF block: a TIFF header and its first directory. The value may have any integer type.
pub(crate) fn of_exif(block: &[u8]) -> Option<Orientation> {
    let block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    let (container, first) = Container::open(block)?;
    let offset = container.number(first, container.offset_len())?;
    let numbers = container.numbers(container.directory(offset)?.entry(0x0112)?)?;
    match numbers[..] {
        [number] => of_number(usize::try_from(number).ok()?),
        _ => None,
    }
}

/// The orientation in an XMP packet, as an attribute or an element.
pub(crate) fn of_xmp(packet: &[u8]) -> Option<Orientation> {
    const NAME: &[u8] = b"tiff:Orientation";
    let at = packet.windows(NAME.len()).position(|w| w == NAME)? + NAME.len();
    let rest = packet.get(at..)?.iter();
    let mut rest = rest.skip_while(|b| b.is_ascii_whitespace() || b"=>\"'".contains(b));
    let digit = rest.next()?.checked_sub(b'0')?;
    match rest.next() {
        Some(next) if next.is_ascii_digit() => None,
        _ => of_number(usize::from(digit)),
    }
}

/// The orientation in a PNG file, whose chunks may also come after the pixels.
pub(crate) fn of_png(bytes: &[u8]) -> Option<Orientation> {
    png_chunks(bytes)
        .filter(|(kind, _)| kind == b"eXIf")
        .find_map(|(_, data)| of_exif(data))
        .or_else(|| {
            png_chunks(bytes)
                .filter(|(kind, data)| kind == b"iTXt" && data.starts_with(b"XML:com.adobe.xmp\0"))
                .find_map(|(_, data)| of_xmp(data))
        })
}

/// What a PNG file states about its colours; `icc` returns its decompressed profile. The chunk `gAMA` is ignored, as in Pillow.
pub(crate) fn png_profile(bytes: &[u8], icc: impl FnOnce() -> Option<Vec<u8>>) -> Option<Stated> {
    let before = || png_chunks(bytes).take_while(|(kind, _)| kind != b"IDAT");
    let chunk = |name: &[u8; 4]| before().find(|(kind, _)| kind == name);
    if let Some((_, &[primaries, transfer, ..])) = chunk(b"cICP") {
        return Some(Stated::CodePoints {
            primaries,
            transfer,
        });
    }
    chunk(b"iCCP").map(|_| icc().map_or(Stated::Damaged, Stated::Icc))
}

/// Whether a PNG file is an animation.
pub(crate) fn is_animated_png(bytes: &[u8]) -> bool {
    png_chunks(bytes).any(|(kind, _)| kind == b"acTL")
}

/// Type and data of each chunk of a PNG file.
fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let (kind, data) = (rest.get(4..8)?, rest.get(8..length.checked_add(8)?)?);
        rest = rest.get(length + 12..).unwrap_or_default();
        Some((kind, data))
    })
}

/// Turns a picture upright.
pub(crate) fn oriented(image: Image, orientation: Orientation) -> Image {
    use Orientation::{
        FlipHorizontal, FlipVertical, NoTransforms, Rotate90, Rotate90FlipH, Rotate180, Rotate270,
        Rotate270FlipH,
    };
    // Whether rows and columns are swapped, and then columns and rows are reversed.
    let (swap, reverse_x, reverse_y) = match orientation {
        NoTransforms => return image,
        FlipHorizontal => return image.flip_horizontal(),
        FlipVertical => return image.flip_vertical(),
        Rotate180 => (false, true, true),
        Rotate90 => (true, true, false),
        Rotate90FlipH => (true, false, false),
        Rotate270 => (true, false, true),
        Rotate270FlipH => (true, true, true),
    };
    let (width, height) = match swap {
        true => (image.height, image.width),
        false => (image.width, image.height),
    };
    let n = image.channels;
    let samples = map_samples!(&image.samples, values => {
        let mut out = Vec::with_capacity(values.len());
        for y in 0..height {
            let y = if reverse_y { height - 1 - y } else { y };
            for x in 0..width {
                let x = if reverse_x { width - 1 - x } else { x };
                let at = if swap { x * image.width + y } else { y * image.width + x };
                out.extend_from_slice(&values[n * at..][..n]);
            }
        }
        out
    });
    Image {
        width,
        height,
        channels: n,
        samples,
    }
}

fn of_number(n: usize) -> Option<Orientation> {
    Orientation::from_exif(u8::try_from(n).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An EXIF block with one entry, in either byte order.
    fn block(big: bool, kind: u16, value: &[u8]) -> Vec<u8> {
        let short = |n: u16| {
            if big {
                n.to_be_bytes()
            } else {
                n.to_le_bytes()
            }
        };
        let long = |n: u32| {
            if big {
                n.to_be_bytes()
            } else {
                n.to_le_bytes()
            }
        };
        let mut out = if big { b"MM\0*" } else { b"II*\0" }.to_vec();
        out.extend(long(8));
        for two in [1, 0x0112, kind] {
            out.extend(short(two));
        }
        out.extend(long(1));
        out.extend(value);
        out.resize(out.len().next_multiple_of(4).max(22), 0);
        out.extend([0; 4]);
        out
    }

    #[test]
    fn a_number_of_any_whole_type_is_read_in_both_byte_orders() {
        let expected = Some(Orientation::Rotate90);
        for (big, kind, value) in [
            (false, 3, &[6, 0, 0, 0][..]),
            (true, 3, &[0, 6, 0, 0]),
            (false, 4, &[6, 0, 0, 0]),
            (true, 4, &[0, 0, 0, 6]),
            (true, 1, &[6, 0, 0, 0]),
        ] {
            let exif = block(big, kind, value);
            assert_eq!(of_exif(&exif), expected, "{big} {kind}");
            assert_eq!(of_exif(&[b"Exif\0\0", &exif[..]].concat()), expected);
            for n in 0..exif.len() {
                of_exif(&exif[..n]);
            }
        }
        assert_eq!(of_exif(&block(false, 4, &[6, 1, 0, 0])), None);
        assert_eq!(of_exif(&block(false, 3, &[9, 0, 0, 0])), None);
        assert_eq!(of_exif(&block(false, 2, &[6, 0, 0, 0])), None);
        assert_eq!(of_exif(b"II*\0\xff\xff\xff\xff"), None);
    }

    #[test]
    fn the_orientation_in_xmp_is_an_attribute_or_an_element() {
        for text in [
            "<x tiff:Orientation=\"8\" a=\"1\">",
            "<tiff:Orientation>8</tiff:Orientation>",
            "<x tiff:Orientation = '8'/>",
        ] {
            let found = of_xmp(text.as_bytes());
            assert_eq!(found, Some(Orientation::Rotate270), "{text}");
        }
        for text in ["", "tiff:Orientation", "<tiff:Orientation>88<", "x"] {
            assert_eq!(of_xmp(text.as_bytes()), None, "{text}");
        }
    }
}
