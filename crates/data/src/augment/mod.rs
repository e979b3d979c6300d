//! Augmentation of images in [-1, 1]: vertical flips, zoom, and EDM's pipeline.

mod edm;
mod warp;
mod zoom;

use sdft_noise::{Draw, Purpose};

pub(crate) use edm::EdmAugment;

/// What [`apply`] does to an image. Horizontal flips and shifts move whole pixels and come first, before the image becomes floats.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct AugmentPlan {
    /// Mirror top to bottom with probability 1/2.
    pub(crate) flip_vertical: bool,
    /// Zoom by a factor from `1 / (1 + scale)` to `1 + scale`, uniform in its logarithm; 0 is off.
    pub(crate) scale: f64,
    /// The probability of each transformation of EDM's pipeline; 0 is off.
    pub(crate) edm: f64,
}

/// Augments sample `g` of the run with `seed`: the image, and its mask in the same way.
///
/// The random numbers are a pure function of `(seed, g)`: element 1 of [`Purpose::Flip`], element 2 of [`Purpose::Shift`] (the zoom), and
/// [`Purpose::Augment`].
///
/// # Shapes
/// - `image`: `[C, H, W]`, the value of `shape`
/// - `mask`: `[H, W]`
///
/// # Units
/// - `mask` in 0 to 1, before and after
/// - returns the augmentation labels of EDM, or `None` if `plan.edm` is 0
pub(crate) fn apply(
    plan: &AugmentPlan,
    seed: u64,
    g: u64,
    image: &mut Vec<f32>,
    shape: [usize; 3],
    mut mask: Option<&mut Vec<f32>>,
) -> Option<[f32; 9]> {
    let [_, height, width] = shape;
    let address = |purpose| Draw::new(seed, purpose, 0, g);
    if plan.flip_vertical && address(Purpose::Flip).below(1, 2) == 1 {
        flip_y(image, [height, width]);
        if let Some(mask) = mask.as_deref_mut() {
            flip_y(mask, [height, width]);
        }
    }
    if plan.scale > 0.0 {
        let factor = zoom::factor(plan.scale, address(Purpose::Shift).uniform(2));
        *image = zoom::zoom(image, [height, width], factor);
        if let Some(mask) = mask.as_deref_mut() {
            *mask = zoom::zoom(mask, [height, width], factor);
        }
    }
    if plan.edm <= 0.0 {
        return None;
    }
    let (pipeline, draw) = (EdmAugment { p: plan.edm }, address(Purpose::Augment));
    let (augmented, labels) = pipeline.apply(&draw, image, shape);
    *image = augmented;
    if let Some(mask) = mask {
        *mask = pipeline.apply_to_mask(&draw, mask, [height, width]);
    }
    Some(labels)
}

/// Mirrors every plane left to right.
fn flip_x(planes: &mut [f32], width: usize) {
    for row in planes.chunks_exact_mut(width) {
        row.reverse();
    }
}

/// Mirrors every plane top to bottom.
fn flip_y(planes: &mut [f32], [height, width]: [usize; 2]) {
    for plane in planes.chunks_exact_mut(height * width) {
        let (upper, lower) = plane.split_at_mut(height / 2 * width);
        let rows = upper.chunks_exact_mut(width);
        for (a, b) in rows.zip(lower.chunks_exact_mut(width).rev()) {
            a.swap_with_slice(b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Image 2x3x4 whose first plane is `0..12`.
    fn numbered() -> Vec<f32> {
        (0..24).map(|v| v as f32 / 24.0).collect()
    }

    fn applied(plan: AugmentPlan, g: u64) -> (Vec<f32>, Vec<f32>, Option<[f32; 9]>) {
        let mut image = numbered();
        let mut mask = image[..12].to_vec();
        let labels = apply(&plan, 7, g, &mut image, [2, 3, 4], Some(&mut mask));
        (image, mask, labels)
    }

    #[test]
    fn nothing_is_the_default() {
        let (image, mask, labels) = applied(AugmentPlan::default(), 0);
        assert_eq!(
            (image, mask, labels),
            (numbered(), numbered()[..12].to_vec(), None)
        );
    }

    #[test]
    fn half_of_the_images_are_mirrored_top_to_bottom_with_their_masks() {
        let plan = AugmentPlan {
            flip_vertical: true,
            ..AugmentPlan::default()
        };
        let mut flipped = numbered();
        flip_y(&mut flipped, [3, 4]);
        assert_eq!(flipped[..5], [8.0, 9.0, 10.0, 11.0, 4.0].map(|v| v / 24.0));
        let n = (0..200).filter(|&g| {
            let (image, mask, _) = applied(plan, g);
            assert_eq!(mask, image[..12]);
            assert!(image == flipped || image == numbered());
            image == flipped
        });
        assert!((70..130).contains(&n.count()));
    }

    #[test]
    fn a_zoom_and_the_pipeline_are_functions_of_the_sample_and_take_the_mask_along() {
        let zoomed = AugmentPlan {
            scale: 0.5,
            ..AugmentPlan::default()
        };
        let piped = AugmentPlan {
            edm: 1.0,
            ..AugmentPlan::default()
        };
        for plan in [zoomed, piped] {
            let [a, b] = [5, 6].map(|g| applied(plan, g));
            assert_eq!(a, applied(plan, 5));
            assert!(a.0 != b.0 && a.1 != b.1 && a.0 != numbered());
            assert!(a.1.iter().all(|v| (0.0..=1.0).contains(v)));
            assert_eq!(a.2.is_some(), plan.edm > 0.0);
        }
        let (image, mask, _) = applied(zoomed, 5);
        assert_eq!(mask, image[..12]);
    }
}
