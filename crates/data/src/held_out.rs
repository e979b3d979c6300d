//! Which images are held out of a training.

/// The indices of `n` images to train on, and of those held out: a `share` of them, spread evenly, and at least one if `share` is not 0.
pub fn held_out(n: usize, share: f64) -> (Vec<usize>, Vec<usize>) {
    // The i-th image is held out where i times the share passes a whole number.
    let passes = |i: usize| ((i + 1) as f64 * share).floor() > (i as f64 * share).floor();
    let few = share > 0.0 && !(0..n).any(passes);
    let held = |i: usize| passes(i) || (few && i + 1 == n);
    (0..n).partition(|&i| !held(i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_images_are_spread_and_belong_to_one_part_only() {
        assert_eq!(held_out(20, 0.1).1, [9, 19]);
        assert_eq!(held_out(5, 0.1), (vec![0, 1, 2, 3], vec![4]));
        assert_eq!(held_out(5, 0.5).1, [1, 3]);
        assert_eq!(held_out(7, 0.0).1, Vec::<usize>::new());
        let (kept, held) = held_out(93, 0.3);
        let mut all = [kept, held].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..93));
    }
}
