//! The non-leaking augmentation of EDM: which transformations an image gets, and their labels.

use std::f64::consts::PI;

use sdft_noise::Draw;

use super::{
    flip_x, flip_y,
    warp::{Affine, warp, warp_mask},
};

/// Standard deviation of both scalings, in octaves.
const SCALE_STD: f64 = 0.2;
/// Standard deviation of a translation, relative to the side.
const TRANSLATE_STD: f64 = 0.125;
/// Probability that a stretch has a random direction. Otherwise it is horizontal.
const STRETCH_ROTATED: f64 = 0.5;
/// Position of the normal numbers in a stream, behind the words of the uniform ones.
const NORMALS: u64 = 64;

/// EDM's pipeline with the settings of its training (Karras et al. 2022, Table 6): flips, scale, rotation, stretch and translation.
///
/// A network that gets the labels learns the clean images; one that does not also generates augmented ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct EdmAugment {
    /// The probability of each transformation. Horizontal flips have probability 1/2.
    pub(crate) p: f64,
}

/// The transformations of one image.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Transform {
    pub(super) flip_x: bool,
    pub(super) flip_y: bool,
    /// Enlargement in standard deviations.
    pub(super) scale: f64,
    /// Rotation in radians.
    pub(super) rotation: f64,
    /// Stretch along `stretch_angle` in standard deviations; the other direction shrinks.
    pub(super) stretch: f64,
    /// In radians.
    pub(super) stretch_angle: f64,
    /// Translation to the right and down in standard deviations.
    pub(super) translation: [f64; 2],
}

impl EdmAugment {
    /// Augments an image and returns it with its labels.
    ///
    /// # Shapes
    /// - `image`: `[C, H, W]`, the value of `shape`
    /// - returns the same shape, and nine labels: flips in x and y, scale, cosine - 1 and sine of the rotation, the stretch times cosine and
    ///   sine of its angle, translation in x and y. All are 0 for the unchanged image.
    pub(crate) fn apply(
        &self,
        draw: &Draw,
        image: &[f32],
        shape: [usize; 3],
    ) -> (Vec<f32>, [f32; 9]) {
        let transform = self.draw(draw);
        (transform.apply(image, shape), transform.labels())
    }

    /// Transforms the mask of an image in the same way. Pixels from outside have the value 0.
    ///
    /// # Shapes
    /// - `mask`: `[H, W]`, the value of `shape`
    /// - returns the same
    pub(crate) fn apply_to_mask(&self, draw: &Draw, mask: &[f32], shape: [usize; 2]) -> Vec<f32> {
        self.draw(draw).apply_to_mask(mask, shape)
    }

    /// Draws the transformations of one image. Every number has its own place in the stream, whatever `p` is.
    pub(super) fn draw(&self, draw: &Draw) -> Transform {
        let mut normals = [0.0; 4];
        draw.fill_normal_from(NORMALS, &mut normals);
        let [scale, stretch, x, y] = normals.map(f64::from);
        let coin = |i| draw.below(i, 2) == 1;
        let happens = |i, p: f64| draw.uniform(i) < p;
        let angle = |i| (2.0 * draw.uniform(i) - 1.0) * PI;
        let value = |i, value: f64| if happens(i, self.p) { value } else { 0.0 };
        let stretch_angle = match happens(8, STRETCH_ROTATED) {
            true => angle(6),
            false => 0.0,
        };
        Transform {
            flip_x: coin(0),
            flip_y: coin(1) && happens(2, self.p),
            scale: value(3, scale),
            rotation: value(5, angle(4)),
            stretch: value(7, stretch),
            stretch_angle,
            translation: [x, y].map(|by| value(9, by)),
        }
    }
}

impl Transform {
    /// The labels of EDM's networks.
    pub(super) fn labels(&self) -> [f32; 9] {
        let (sin, cos) = libm::sincos(self.rotation);
        let (along_y, along_x) = libm::sincos(self.stretch_angle);
        let [x, y] = self.translation;
        [
            f64::from(u8::from(self.flip_x)),
            f64::from(u8::from(self.flip_y)),
            self.scale,
            cos - 1.0,
            sin,
            self.stretch * along_x,
            self.stretch * along_y,
            x,
            y,
        ]
        .map(|label| label as f32)
    }

    /// Transforms an image `[C, H, W]`.
    pub(super) fn apply(&self, image: &[f32], shape: [usize; 3]) -> Vec<f32> {
        let [_, height, width] = shape;
        let mut out = image.to_vec();
        self.flip(&mut out, [height, width]);
        match self.inverse([height, width]) {
            Some(inverse) => warp(&out, shape, &inverse),
            None => out,
        }
    }

    /// Transforms a mask `[H, W]`.
    pub(super) fn apply_to_mask(&self, mask: &[f32], shape: [usize; 2]) -> Vec<f32> {
        let mut out = mask.to_vec();
        self.flip(&mut out, shape);
        match self.inverse(shape) {
            Some(inverse) => warp_mask(&out, shape, &inverse),
            None => out,
        }
    }

    fn flip(&self, planes: &mut [f32], shape: [usize; 2]) {
        if self.flip_x {
            flip_x(planes, shape[1]);
        }
        if self.flip_y {
            flip_y(planes, shape);
        }
    }

    /// From a pixel of the result to a pixel of the image, both relative to the centre; `None` for the identity.
    fn inverse(&self, [height, width]: [usize; 2]) -> Option<Affine> {
        let [x, y] = self.translation;
        if [self.scale, self.rotation, self.stretch, x, y] == [0.0; 5] {
            return None;
        }
        let shrink = libm::exp2(-self.scale * SCALE_STD);
        let squeeze = libm::exp2(-self.stretch * SCALE_STD);
        let shift = |by: f64, side: usize| -by * side as f64 * TRANSLATE_STD;
        let inverse = Affine::scale(shrink, shrink)
            .then_first(Affine::rotation(self.rotation))
            .then_first(Affine::rotation(-self.stretch_angle))
            .then_first(Affine::scale(squeeze, 1.0 / squeeze))
            .then_first(Affine::rotation(self.stretch_angle))
            .then_first(Affine::translation(shift(x, width), shift(y, height)));
        Some(inverse)
    }
}

#[cfg(test)]
mod tests {
    use sdft_noise::Purpose;
    use serde_json::Value;

    use super::*;

    /// Numbers in [-1, 1), as `tests/edm/reference.py` computes them.
    fn noise(len: usize, seed: u64) -> Vec<f32> {
        let number = |i: u64| (((i + seed * 100_003) * 2_654_435_761) % (1 << 32)) >> 16;
        let value = |i| number(i) as f32 / 32_768.0 - 1.0;
        (0..len as u64).map(value).collect()
    }

    fn transform(value: &Value) -> Transform {
        let flag = |key: &str| value[key].as_bool().expect(key);
        let number = |value: &Value| value.as_f64().expect("a number");
        Transform {
            flip_x: flag("flip_x"),
            flip_y: flag("flip_y"),
            scale: number(&value["scale"]),
            rotation: number(&value["rotation"]),
            stretch: number(&value["stretch"]),
            stretch_angle: number(&value["stretch_angle"]),
            translation: [0, 1].map(|i| number(&value["translation"][i])),
        }
    }

    fn draw(seed: u64) -> Draw {
        Draw::new(seed, Purpose::Augment, 0, 3)
    }

    #[test]
    fn images_equal_those_of_the_reference() {
        let cases: Vec<Value> =
            serde_json::from_str(include_str!("../../tests/edm/cases.json")).expect("JSON");
        let results = include_bytes!("../../tests/edm/results.f32").as_chunks().0;
        let mut results = results.iter().map(|bytes| f32::from_le_bytes(*bytes));
        for case in &cases {
            let whole = |value: &Value| value.as_u64().expect("a whole number");
            let shape = [0, 1, 2].map(|i| whole(&case["shape"][i]) as usize);
            let len = shape.iter().product();
            let found =
                transform(&case["transform"]).apply(&noise(len, whole(&case["seed"])), shape);
            let expected: Vec<f32> = results.by_ref().take(len).collect();
            assert_eq!(expected.len(), len);
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            let worst = worst.fold(0.0, f32::max);
            assert!(worst < 1e-5, "{worst} in {case}");
        }
        assert_eq!((cases.len(), results.next()), (12, None));
    }

    #[test]
    fn an_image_without_transformations_is_unchanged_and_its_labels_are_zero() {
        let image = noise(3 * 7 * 5, 0);
        let (same, labels) = (
            Transform::default().apply(&image, [3, 7, 5]),
            Transform::default().labels(),
        );
        assert_eq!((same, labels), (image.clone(), [0.0; 9]));
        // The filters alone change nothing either.
        let nearly = Transform {
            scale: 1e-9,
            ..Transform::default()
        };
        for (a, b) in nearly.apply(&image, [3, 7, 5]).iter().zip(&image) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn transformations_have_the_given_probability_and_normal_sizes() {
        const N: u64 = 4000;
        let pipeline = EdmAugment { p: 0.12 };
        let all: Vec<Transform> = (0..N).map(|seed| pipeline.draw(&draw(seed))).collect();
        let share =
            |of: fn(&Transform) -> bool| all.iter().filter(|t| of(t)).count() as f64 / N as f64;
        for (found, expected) in [
            (share(|t| t.flip_x), 0.5),
            (share(|t| t.flip_y), 0.06),
            (share(|t| t.scale != 0.0), 0.12),
            (share(|t| t.rotation != 0.0), 0.12),
            (share(|t| t.stretch != 0.0), 0.12),
            (share(|t| t.stretch_angle != 0.0), 0.5),
            (share(|t| t.translation != [0.0; 2]), 0.12),
            (share(|t| t.rotation.abs() > PI / 2.0), 0.06),
            (share(|t| t.scale.abs() > 1.0), 0.12 * 0.3173),
            (share(|t| t.scale != 0.0 && t.stretch != 0.0), 0.0144),
        ] {
            let spread = (expected * (1.0 - expected) / N as f64).sqrt();
            assert!(
                (found - expected).abs() < 4.0 * spread,
                "{found} {expected}"
            );
        }
        let same = |p: f64| EdmAugment { p }.draw(&draw(0)).flip_x;
        assert_eq!(same(0.01), same(1.0));
    }

    #[test]
    fn a_mask_moves_with_its_image_and_is_zero_outside() {
        let right = Transform {
            translation: [2.0, 0.0],
            flip_x: true,
            ..Transform::default()
        };
        let mask = [0.25, 0.5, 0.75, 1.0];
        assert_eq!(right.apply_to_mask(&mask, [1, 4]), [0.0, 1.0, 0.75, 0.5]);
        let turned = Transform {
            rotation: PI / 2.0,
            ..Transform::default()
        };
        let (a, b) = (
            turned.apply(&noise(64, 1), [1, 8, 8]),
            turned.apply_to_mask(&[1.0; 64], [8, 8]),
        );
        assert_eq!(a.len(), 64);
        assert!(b.iter().all(|v| *v > 0.999_999 && *v <= 1.0), "{b:?}");
    }
}
