//! Preprocessing of 8-bit images for each network.

use crate::Error;
use crate::inception::INCEPTION_SIDE;
use sdft_imaging::{
    Filter, Rgb8, Sampling, interpolate, resize, resize_f32, resize_short_side_square,
};
use std::fmt;
use std::str::FromStr;

/// How images are resized to the 299 x 299 of Inception. Scores of different modes are not comparable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InceptionResize {
    /// pytorch-fid: bilinear without antialiasing, `2 (v / 255) - 1`.
    #[default]
    PytorchFid,
    /// clean-fid: Pillow's antialiased bicubic on floats, clipped to 0..255, `(v - 128) / 128`.
    Clean,
    /// torch-fidelity, after TensorFlow 1: bilinear from corner to corner without antialiasing, `(v - 128) / 128`.
    Tensor,
}

const MODES: [(InceptionResize, &str); 3] = [
    (InceptionResize::PytorchFid, "pytorch-fid"),
    (InceptionResize::Clean, "clean-fid"),
    (InceptionResize::Tensor, "torch-fidelity"),
];

impl fmt::Display for InceptionResize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = MODES.iter().find(|(mode, _)| mode == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

impl FromStr for InceptionResize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = MODES.iter().find(|(_, name)| *name == text);
        found
            .map(|(mode, _)| *mode)
            .ok_or_else(|| Error::ResizeMode {
                found: text.to_owned(),
                expected: MODES.map(|(_, name)| name).join(", "),
            })
    }
}

/// One channel as floats, 0..=255.
fn plane(image: &Rgb8, channel: usize) -> Vec<f32> {
    let values = image.pixels.iter().skip(channel).step_by(3);
    values.map(|&v| f32::from(v)).collect()
}

/// Resizes one plane of 0..255 to 299 x 299 in this mode, without changing the range.
///
/// # Shapes
/// - `plane`: `[H, width]` · returns `[299, 299]`
pub fn inception_plane(plane: &[f32], width: usize, mode: InceptionResize) -> Vec<f32> {
    let side = INCEPTION_SIDE;
    match mode {
        InceptionResize::PytorchFid => interpolate(plane, width, side, side, Sampling::Centres),
        InceptionResize::Tensor => interpolate(plane, width, side, side, Sampling::Corners),
        InceptionResize::Clean => {
            let mut out = resize_f32(plane, width, side, side, Filter::Bicubic);
            out.iter_mut().for_each(|v| *v = v.clamp(0.0, 255.0));
            out
        }
    }
}

/// The input of Inception for an image, `[3, 299, 299]` about [-1, 1].
pub fn inception_input(image: &Rgb8, mode: InceptionResize) -> Vec<f32> {
    let mut out = Vec::with_capacity(3 * INCEPTION_SIDE * INCEPTION_SIDE);
    for channel in 0..3 {
        let values = inception_plane(&plane(image, channel), image.width, mode);
        out.extend(values.into_iter().map(|v| match mode {
            InceptionResize::PytorchFid => 2.0 * (v / 255.0) - 1.0,
            InceptionResize::Clean | InceptionResize::Tensor => (v - 128.0) / 128.0,
        }));
    }
    out
}

/// Channel means and deviations of CLIP's training images in [0, 1].
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// The input of CLIP for an image, `[3, side, side]`: short side resized to `side` with Pillow's bicubic, centre crop, channels normalised.
///
/// Source: the `preprocess` that CLIP's own `load` returns.
pub fn clip_input(image: &Rgb8, side: usize) -> Vec<f32> {
    let side = side.max(1);
    normalised(&resize_short_side_square(image, side), CLIP_MEAN, CLIP_STD)
}

/// Side of the images that DINOv2 sees.
pub const DINOV2_SIDE: usize = 224;
/// Channel means and deviations of ImageNet in [0, 1].
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// The input of DINOv2 for an image, `[3, 224, 224]`: resized with Pillow's bicubic, regardless of its aspect ratio, channels normalised.
///
/// Source: dgm-eval's `DINOv2Encoder.transform`, without `--clean_resize`.
pub fn dinov2_input(image: &Rgb8) -> Vec<f32> {
    let small = resize(image, DINOV2_SIDE, DINOV2_SIDE, Filter::Bicubic);
    normalised(&small, IMAGENET_MEAN, IMAGENET_STD)
}

/// `[3, H, W]`: the channels of an image in [0, 1], less their means, divided by their deviations.
fn normalised(image: &Rgb8, mean: [f32; 3], deviation: [f32; 3]) -> Vec<f32> {
    let mut out = Vec::with_capacity(image.pixels.len());
    for channel in 0..3 {
        let values = image.pixels.iter().skip(channel).step_by(3);
        out.extend(values.map(|&v| (f32::from(v) / 255.0 - mean[channel]) / deviation[channel]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_names_and_scales_of_their_own() {
        let white = Rgb8::filled(40, 30, [255, 0, 128]);
        for (mode, [red, green, blue]) in [
            (InceptionResize::PytorchFid, [1.0, -1.0, 0.003_921_628]),
            (InceptionResize::Clean, [0.992_187_5, -1.0, 0.0]),
            (InceptionResize::Tensor, [0.992_187_5, -1.0, 0.0]),
        ] {
            let x = inception_input(&white, mode);
            let n = INCEPTION_SIDE * INCEPTION_SIDE;
            assert_eq!(x.len(), 3 * n);
            for (got, want) in [(x[7], red), (x[n + 7], green), (x[3 * n - 1], blue)] {
                assert!((got - want).abs() < 1e-5, "{mode}: {got} {want}");
            }
            assert_eq!(mode.to_string().parse::<InceptionResize>().unwrap(), mode);
        }
        let error = "bicubic"
            .parse::<InceptionResize>()
            .unwrap_err()
            .to_string();
        assert!(error.contains("bicubic") && error.contains("clean-fid"));
    }

    #[test]
    fn clip_gets_the_centre_of_a_wide_image() {
        // Left third black, middle grey, right third white.
        let row = [[0u8; 3]; 30]
            .into_iter()
            .chain([[128; 3]; 30])
            .chain([[255; 3]; 30]);
        let row: Vec<u8> = row.flatten().collect();
        let image = Rgb8::new(90, 30, row.repeat(30)).unwrap();
        let x = clip_input(&image, 224);
        assert_eq!(x.len(), 3 * 224 * 224);
        let grey = (128.0 / 255.0 - CLIP_MEAN[2]) / CLIP_STD[2];
        assert!((x[2 * 224 * 224 + 112 * 224 + 112] - grey).abs() < 1e-5);
    }

    #[test]
    fn dinov2_sees_the_whole_of_a_wide_image() {
        // Left half black, right half white.
        let row: Vec<u8> = [[0u8; 3]; 60]
            .into_iter()
            .chain([[255; 3]; 60])
            .flatten()
            .collect();
        let x = dinov2_input(&Rgb8::new(120, 30, row.repeat(30)).unwrap());
        assert_eq!(x.len(), 3 * 224 * 224);
        let black = -IMAGENET_MEAN[1] / IMAGENET_STD[1];
        let white = (1.0 - IMAGENET_MEAN[1]) / IMAGENET_STD[1];
        let line = &x[224 * 224 + 100 * 224..][..224];
        assert!((line[10] - black).abs() < 1e-6 && (line[213] - white).abs() < 1e-6);
    }
}
