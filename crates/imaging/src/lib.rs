//! Reads and writes pictures: every file format, depth and number of channels, exact resizing, conversions to [-1, 1], contact sheets.
//!
//! In computations an image is f32 in [-1, 1], channels first. In files it is an [`Image`] of any number of channels, of 8 bits, 16 bits or
//! floats, whose form is an [`ImageSpec`]; what a screen shows is [`Rgb8`]. The results equal those of the Python code that published results
//! were made with:
//!
//! ```text
//! decode   = PIL.Image.open, tifffile.imread, numpy.load, upright, in sRGB, on a background
//! resize   = PIL.Image.resize, bit for bit: modes L, RGB, RGBA, I;16 and F        crop = guided-diffusion's center_crop_arr
//! to f32   = v / 127.5 - 1, or from the range of the data        from f32 = floor(255 (clamp(x, -1, 1) + 1) / 2 + 0.5)
//! ```
//!
//! | format | what is read |
//! |---|---|
//! | PNG, WebP, BMP, JPEG, GIF | grey and colour with and without alpha, palettes, 1 to 16 bits; the first frame of animations; inks of JPEG without their profile |
//! | TIFF, BigTIFF | strips, tiles and planes; 1 to 64 bits, integers and floats; grey, RGB, palettes, inks, any bands; uncompressed, LZW, Deflate, PackBits, JPEG; pages, ImageJ's stacks |
//! | NPY, NPZ | `[H, W]`, `[H, W, C]` and `[N, H, W, C]` of integers and floats |
//!
//! Integers that are signed or have more than 16 bits are read as floats of the same value. Colour profiles are applied, except those for
//! inks and of floats, which [`Decoded::profile`] names. Files are written as PNG, as TIFF (floats) and as NPY (other numbers of channels).
//!
//! ```
//! use sdft_imaging::{Limits, Rgb8, center_crop, decode_bytes, encode_png, to_unit_range};
//!
//! let photo = Rgb8::filled(90, 70, [255, 0, 51]);
//! let decoded = decode_bytes(&encode_png(&photo)?, &Limits::default())?;
//! let square = center_crop(&decoded, 32);
//! let x = to_unit_range(&square); // [3, 32, 32]
//! assert_eq!((x.len(), x[0], x[1024], x[2048]), (3 * 32 * 32, 1.0, -1.0, -0.6));
//! # Ok::<(), sdft_imaging::ImagingError>(())
//! ```
//!
//! **Invariant:** knows no tensor library and draws no random numbers; checks the size of a picture before decoding it.

mod alpha;
mod bands;
mod channels;
mod compose;
mod conversions;
mod crop;
mod decode;
mod depth;
mod encode;
mod error;
mod filter;
mod fit;
mod font;
mod gif;
mod ifd;
mod interpolate;
mod jpeg;
mod kind;
mod levels;
mod limits;
mod npy;
mod picture;
mod png;
mod profile;
mod raster;
mod reading;
mod resize;
mod rgb8;
mod sample;
mod spec;
mod tiff;
mod upright;

pub use compose::{contact_sheet, enlarge, framed, grid, side_by_side, stacked, titled};
pub use conversions::Conversions;
pub use crop::{center_crop, resize_short_side, resize_short_side_square, resize_to_cover};
pub use decode::{Decoded, decode_as_pillow, decode_bytes, decode_file, read_image_file};
pub use depth::Depth;
pub use error::{ImagingError, Result};
pub use filter::{Filter, resize_matrix};
pub use fit::{Fit, Fitted, Fitting, fit, mask_like};
pub use font::{draw_text, text_size};
pub use interpolate::{Sampling, interpolate};
pub use kind::{Kind, START, is_named_like_a_picture, kind_of_bytes, without_ending};
pub use limits::Limits;
pub use picture::{Image, Samples};
pub use png::{encode_png, encode_sheet, is_sheet, write_png};
pub use profile::Profile;
pub use raster::Picture;
pub use reading::Reading;
pub use resize::{resize, resize_f32};
pub use rgb8::Rgb8;
pub use spec::{ImageSpec, to_unit_range};
