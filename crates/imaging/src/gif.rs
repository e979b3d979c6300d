//! Decodes the first frame of a GIF file on its screen like Pillow.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions};
use image::metadata::Orientation;

use crate::{
    Image, Result, Samples,
    channels::{Layout, compact},
    decode::{Raw, Source},
};

/// Decodes the first frame and places it on the screen.
///
/// The rest of the screen has the transparent colour if there is one, and the first colour otherwise. A frame that extends beyond the screen
/// enlarges it.
pub(crate) fn decode(source: &Source<'_>) -> Result<Raw> {
    let bytes = source.bytes;
    let fail = |error: gif::DecodingError| source.broken(error.to_string());
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(fail)?;
    let screen = [decoder.width(), decoder.height()];
    let Some(frame) = decoder.next_frame_info().map_err(fail)? else {
        return Err(source.broken("it has no frame".to_owned()));
    };
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (columns, rows) = (usize::from(frame.width), usize::from(frame.height));
    let clear = frame.transparent;
    let width = usize::from(screen[0]).max(left + columns);
    let height = usize::from(screen[1]).max(top + rows);
    // Each side is the sum of two 16-bit numbers.
    source.check_size([width as u32, height as u32], 4)?;
    let palette = decoder.palette().map_err(fail)?.to_vec();
    let colour = |index: u8| -> [u8; 4] {
        let at = 3 * usize::from(index);
        let rgb = palette.get(at..at + 3).unwrap_or(&[0; 3]);
        let alpha = if Some(index) == clear { 0 } else { 255 };
        [rgb[0], rgb[1], rgb[2], alpha]
    };
    let mut indices = vec![0; columns * rows];
    if !indices.is_empty() {
        decoder.read_into_buffer(&mut indices).map_err(fail)?;
    }
    let mut data = colour(clear.unwrap_or(0)).repeat(width * height);
    for (y, row) in indices.chunks_exact(columns.max(1)).enumerate() {
        let at = 4 * ((top + y) * width + left);
        for (pixel, &index) in data[at..].chunks_exact_mut(4).zip(row) {
            pixel.copy_from_slice(&colour(index));
        }
    }
    let has_alpha = clear.is_some();
    if !has_alpha {
        compact(&mut data, 4, 3);
    }
    let layout = Layout {
        channels: 3 + usize::from(has_alpha),
        has_alpha,
        colours: 3,
    };
    Ok(Raw {
        image: Image::new(width, height, layout.channels, Samples::U8(data))?,
        layout,
        range: None,
        narrowed: false,
        profile: None,
        animated: matches!(decoder.next_frame_info(), Ok(Some(_))),
        orientation: Orientation::NoTransforms,
        pages: 1,
    })
}
