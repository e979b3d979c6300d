//! The steps of the process that a trajectory visits.

/// `n` steps from 0 to `t_0`, ascending: the whole parts of evenly spread numbers.
///
/// A single step is 0; with `n` 0 the list is empty.
///
/// Source: Asyrp `diffusion_latent.py`, `int(linspace(0, 1, n) * t_0 + 1e-6)`; without the last summand rounding loses whole steps.
#[must_use]
pub fn sequence(n: usize, t_0: usize) -> Vec<usize> {
    spread(n, t_0).map(whole).collect()
}

/// The steps of [`sequence`] at which a direction is trained: those that are not below `t_edit` before their fraction is dropped.
///
/// Source: Asyrp `diffusion_latent.py`, `run_training`.
#[must_use]
pub fn training_sequence(n: usize, t_0: usize, t_edit: usize) -> Vec<usize> {
    let kept = spread(n, t_0).filter(|&place| place >= t_edit as f64);
    kept.map(whole).collect()
}

/// The step that the reverse process goes to from each step: the one before it; `None` from the first, which leads to the clean image.
#[must_use]
pub fn shifted(steps: &[usize]) -> Vec<Option<usize>> {
    let before = steps.iter().copied().map(Some);
    std::iter::once(None)
        .chain(before)
        .take(steps.len())
        .collect()
}

/// `linspace(0, 1, n) * t_0` in double precision.
fn spread(n: usize, t_0: usize) -> impl Iterator<Item = f64> {
    let step = 1.0 / (n.max(2) - 1) as f64;
    (0..n).map(move |i| match i + 1 == n && n > 1 {
        true => t_0 as f64,
        false => i as f64 * step * t_0 as f64,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and the fraction is to be dropped"
)]
fn whole(place: f64) -> usize {
    (place + 1e-6) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_the_published_ones() {
        let forty = sequence(40, 999);
        assert_eq!(forty[..8], [0, 25, 51, 76, 102, 128, 153, 179]);
        assert_eq!(forty[32..], [819, 845, 870, 896, 922, 947, 973, 999]);
        assert_eq!(sequence(1000, 999), (0..1000).collect::<Vec<_>>());
        assert_eq!(sequence(100, 999)[..5], [0, 10, 20, 30, 40]);
        assert_eq!((sequence(0, 9), sequence(1, 9)), (vec![], vec![0]));
    }

    #[test]
    fn training_keeps_what_lies_above_and_ends_clean() {
        let trained = training_sequence(10, 999, 400);
        assert_eq!(trained, [444, 555, 666, 777, 888, 999]);
        assert_eq!(shifted(&trained)[..3], [None, Some(444), Some(555)]);
        assert_eq!(shifted(&[]), []);
    }
}
