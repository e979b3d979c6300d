//! NumPy's archive of arrays, as far as sample files need it.

use anyhow::{Result, bail};
use std::io::Write;

/// Bytes of a `.npz` that holds `images` `[n, h, w, 3]` of unsigned bytes under `arr_0`, not compressed.
pub(crate) fn encode(images: &[u8], [n, h, w]: [usize; 3]) -> Result<Vec<u8>> {
    let mut header =
        format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({n}, {h}, {w}, 3), }}");
    // The data begin at a multiple of 64 bytes.
    let unpadded = 10 + header.len() + 1;
    header.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let mut array = b"\x93NUMPY\x01\x00".to_vec();
    array.extend(u16::try_from(header.len())?.to_le_bytes());
    array.extend(header.as_bytes());
    array.extend(images);
    let Ok(size) = u32::try_from(array.len()) else {
        bail!(
            "{n} images of {h}x{w} are more than an uncompressed .npz of 4 GB holds; draw fewer at a time"
        );
    };
    let name = b"arr_0.npy";
    let crc = crc32fast::hash(&array);
    // Version 2.0, no flags, stored, 1 January 1980.
    let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
    common.extend(crc.to_le_bytes());
    common.extend(size.to_le_bytes());
    common.extend(size.to_le_bytes());
    common.extend(u16::try_from(name.len())?.to_le_bytes());
    common.extend(0u16.to_le_bytes());
    let mut out = Vec::with_capacity(array.len() + 256);
    out.write_all(b"PK\x03\x04")?;
    out.write_all(&common)?;
    out.write_all(name)?;
    out.write_all(&array)?;
    let directory = u32::try_from(out.len())?;
    out.write_all(b"PK\x01\x02\x14\x00")?;
    out.write_all(&common)?;
    // No comment, first disk, binary, no attributes, local header at 0.
    out.write_all(&[0; 14])?;
    out.write_all(name)?;
    let length = u32::try_from(out.len())? - directory;
    out.write_all(b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00")?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&directory.to_le_bytes())?;
    out.write_all(&[0, 0])?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_has_numpys_layout() {
        let images: Vec<u8> = (0..2 * 4 * 4 * 3)
            .map(|i| u8::try_from(i).unwrap())
            .collect();
        let bytes = encode(&images, [2, 4, 4]).unwrap();
        assert_eq!(bytes[..4], *b"PK\x03\x04");
        assert_eq!(bytes[30..39], *b"arr_0.npy");
        let array = &bytes[39..];
        assert_eq!(array[..8], *b"\x93NUMPY\x01\x00");
        let header = usize::from(u16::from_le_bytes([array[8], array[9]]));
        assert_eq!((10 + header) % 64, 0);
        assert!(
            std::str::from_utf8(&array[10..10 + header])
                .unwrap()
                .contains("'shape': (2, 4, 4, 3)")
        );
        assert_eq!(array[10 + header..10 + header + images.len()], images);
        let end = bytes.len() - 22;
        assert_eq!(bytes[end..end + 4], *b"PK\x05\x06");
        let directory = u32::from_le_bytes(bytes[end + 16..end + 20].try_into().unwrap()) as usize;
        assert_eq!(bytes[directory..directory + 4], *b"PK\x01\x02");
        assert_eq!(directory, 39 + 10 + header + images.len());
    }
}
