//! Where an edit begins and where it is sharpened, from how far the trajectory is from the image.

use candle_core::{Result, bail};

/// The first step of a curve of distances that reaches a threshold.
///
/// `curve` holds steps of the process, ascending, with the perceptual distance to the clean image at each. For `t_edit` it is that of the
/// predicted image and the threshold 0.33 times the cosine of the two texts; for `t_boost` that of the state and 1.2.
///
/// Source: Asyrp `diffusion_latent.py` `set_t_edit_t_addnoise`.
///
/// # Errors
/// A curve without steps, or whose steps do not ascend; one that never reaches the threshold.
pub fn first_reaching(curve: &[(usize, f64)], threshold: f64) -> Result<usize> {
    if curve.is_empty() || !curve.is_sorted_by(|a, b| a.0 < b.0) {
        bail!(
            "a curve of distances: expected steps that ascend, found {} of them",
            curve.len()
        );
    }
    let found = curve.iter().find(|(_, distance)| *distance >= threshold);
    found.map_or_else(
        || {
            let most = curve.iter().map(|c| c.1).fold(f64::NEG_INFINITY, f64::max);
            bail!("no step is as far from the image as {threshold}: the largest distance is {most}")
        },
        |(t, _)| Ok(*t),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_that_is_far_enough_is_found() {
        // Part of the published curves of MetFaces: predicted images, states.
        let predicted = [
            (25, 0.0898),
            (200, 0.2590),
            (250, 0.2754),
            (400, 0.3327),
            (999, 1.2407),
        ];
        let states = [(100, 0.9342), (150, 1.1336), (200, 1.2315)];
        assert_eq!(first_reaching(&predicted, 0.33 * 0.8).unwrap(), 250);
        assert_eq!(first_reaching(&states, 1.2).unwrap(), 200);
        assert!(
            first_reaching(&predicted, 2.0)
                .unwrap_err()
                .to_string()
                .contains("1.2407")
        );
        assert!(first_reaching(&[], 0.1).is_err());
        assert!(first_reaching(&[(5, 0.1), (3, 0.2)], 0.1).is_err());
    }
}
