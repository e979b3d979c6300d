//! Reads pictures from NumPy's arrays: `[H, W]`, `[H, W, C]` and `[N, H, W, C]`.

use image::metadata::Orientation;
use sdft_npz::{Array, Values, npy_shape, npz_shapes, read_npy_bytes, read_npz_array};

use crate::{
    Image, ImagingError, Result, Samples,
    channels::Layout,
    decode::{Raw, Source},
};

/// Whether these are the sides and channels of a picture, rather than a picture with channels first or a stack without channels: the channels
/// asked for, or few of them, or fewer than rows and columns, and not more channels than fit behind 1 to 4 rows.
fn may_be([height, width, channels]: [usize; 3], asked: Option<usize>) -> bool {
    let few = channels <= 64 || channels < height.min(width);
    asked == Some(channels) || few && (height > 4 || channels <= 4)
}

/// Where the array of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// The file is the array.
    Alone,
    /// The file is an archive: its only array, or `arr_0`.
    Archive,
}

/// What an array's shape says.
struct Form {
    name: String,
    shape: Vec<usize>,
    /// Number of pictures.
    pages: usize,
    /// Height, width and channels.
    size: [usize; 3],
}

/// The error of a file that cannot be read, which names it once.
fn broken(source: &Source<'_>, error: &sdft_npz::Error) -> ImagingError {
    let text = error.to_string();
    let rest = text.strip_prefix(source.origin);
    let rest = rest.and_then(|rest| rest.strip_prefix(": "));
    source.broken(rest.unwrap_or(&text).to_owned())
}

/// Number of pictures in a file.
pub(crate) fn count_pages(source: &Source<'_>, store: Store) -> Result<usize> {
    Ok(form(source, store)?.pages)
}

fn form(source: &Source<'_>, store: Store) -> Result<Form> {
    let broken = |error| broken(source, &error);
    let (name, shape) = match store {
        Store::Alone => {
            let shape = npy_shape(source.bytes, source.origin).map_err(broken)?;
            (String::new(), shape)
        }
        Store::Archive => {
            let mut shapes = npz_shapes(source.bytes, source.origin).map_err(broken)?;
            let only = match shapes.len() {
                1 => shapes.pop_first(),
                _ => shapes.remove_entry("arr_0"),
            };
            only.ok_or_else(|| {
                let names: Vec<_> = shapes.into_keys().take(8).collect();
                source.broken(format!(
                    "expected one array, or one named arr_0; found {names:?}"
                ))
            })?
        }
    };
    let asked = source.reading.channels;
    let (pages, size) = match shape[..] {
        [height, width] => (1, [height, width, 1]),
        [height, width, channels] if may_be([height, width, channels], asked) => {
            (1, [height, width, channels])
        }
        [pages, height, width, channels] if may_be([height, width, channels], asked) => {
            (pages, [height, width, channels])
        }
        _ => {
            let transpose = match shape.len() {
                3 => "; if channels are first, transpose it: numpy.moveaxis(a, 0, -1)",
                4 => "; if channels are second, transpose it: numpy.moveaxis(a, 1, -1)",
                _ => "",
            };
            return Err(source.broken(format!(
                "expected an array of [height, width], [height, width, channels] or [images, height, width, channels], found \
                 {shape:?}{transpose}"
            )));
        }
    };
    Ok(Form {
        name,
        shape,
        pages,
        size,
    })
}

/// Decodes a picture of an array.
pub(crate) fn decode(source: &Source<'_>, store: Store, page: usize) -> Result<Raw> {
    let broken = |error| broken(source, &error);
    let form = form(source, store)?;
    source.check_page(page, form.pages)?;
    let [height, width, channels] = form.size;
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    source.check_size(
        [side(width), side(height)],
        channels.max(1).saturating_mul(4),
    )?;
    let item = (form.shape.len() == 4).then_some(page);
    let array = match store {
        Store::Alone => read_npy_bytes(source.bytes, source.origin, item),
        Store::Archive => read_npz_array(source.bytes, source.origin, &form.name, item),
    }
    .map_err(broken)?;
    let narrowed = matches!(array.values, Values::I64(_) | Values::F64(_));
    let image = Image::new(width, height, channels, samples(array))?;
    Ok(Raw {
        image,
        layout: Layout::plain(channels),
        range: None,
        narrowed,
        profile: None,
        orientation: Orientation::NoTransforms,
        animated: false,
        pages: form.pages,
    })
}

/// 8 and 16 bits as they are; other integers keep their value, rounded to a float.
fn samples(array: Array) -> Samples {
    match array.values {
        Values::U8(values) => Samples::U8(values),
        Values::U16(values) => Samples::U16(values),
        Values::I64(values) => Samples::F32(values.into_iter().map(|v| v as f32).collect()),
        Values::F32(values) => Samples::F32(values),
        Values::F64(values) => Samples::F32(values.into_iter().map(|v| v as f32).collect()),
    }
}
