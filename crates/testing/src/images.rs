//! Test images and folders of them.

use sdft_imaging::{Rgb8, encode_png};
use std::path::{Path, PathBuf};

/// An image that is different for every `n`.
pub fn test_image(n: usize, width: usize, height: usize) -> Rgb8 {
    let level = |i: usize| ((i * 7 + n * 31 + i * i * (n + 1) / 5) % 256) as u8;
    let levels = (0..3 * width * height).map(level).collect();
    Rgb8::new(width, height, levels).expect("as many levels as pixels")
}

/// Writes `n` images of `side` x `side` pixels to `folder` as `000.png`, `001.png`, .., and returns their paths. The folder is created.
///
/// # Panics
/// A file cannot be written.
pub fn write_images(folder: &Path, n: usize, side: usize) -> Vec<PathBuf> {
    std::fs::create_dir_all(folder).expect("a folder for the images");
    let write = |i: usize| {
        let path = folder.join(format!("{i:03}.png"));
        let png = encode_png(&test_image(i, side, side)).expect("an image to encode");
        std::fs::write(&path, png).expect("an image to write");
        path
    };
    (0..n).map(write).collect()
}
