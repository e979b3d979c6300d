//! The subsets of KID.

use crate::{MetricsError, Result};
use rand_mt::Mt;

/// How the subsets are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubsetDraw {
    /// The subsets of torch-fidelity: NumPy's `RandomState(2020)`, for each subset first from the first set, then from the second.
    TorchFidelity,
    /// The same algorithm with another seed.
    Seeded(u32),
}

/// Draws indices without replacement for each subset, from the first set and from the second.
///
/// # Errors
/// Fails if `size` is larger than a set.
pub fn draw_subsets(
    [a, b]: [usize; 2],
    subsets: usize,
    size: usize,
    draw: SubsetDraw,
) -> Result<Vec<(Vec<usize>, Vec<usize>)>> {
    if size > a.min(b) {
        return Err(MetricsError::Subset { size, a, b });
    }
    let mut generator = Mt::new(match draw {
        SubsetDraw::TorchFidelity => 2020,
        SubsetDraw::Seeded(seed) => seed,
    });
    let mut choose = |n: usize| {
        let mut indices = permutation(n, &mut generator);
        indices.truncate(size);
        indices
    };
    Ok((0..subsets).map(|_| (choose(a), choose(b))).collect())
}

/// NumPy's `RandomState.permutation(n)`: Fisher-Yates from the end, bounded integers by masking and rejection.
fn permutation(n: usize, generator: &mut Mt) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let mask = (i as u64 + 1).next_power_of_two() - 1;
        let j = loop {
            let value = if mask <= u64::from(u32::MAX) {
                u64::from(generator.next_u32()) & mask
            } else {
                let high = u64::from(generator.next_u32());
                (high << 32 | u64::from(generator.next_u32())) & mask
            };
            if value <= i as u64 {
                break value as usize;
            }
        };
        indices.swap(i, j);
    }
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_are_numpys() {
        let indices = draw_subsets([10, 7], 2, 5, SubsetDraw::TorchFidelity).unwrap();
        let expected = [(EXPECTED[0], EXPECTED[1]), (EXPECTED[2], EXPECTED[3])];
        for ((a, b), (x, y)) in indices.iter().zip(expected) {
            assert_eq!((&a[..], &b[..]), (&x[..], &y[..]));
        }
    }

    /// `r = RandomState(2020); [r.choice(n, 5, replace=False) for n in (10, 7, 10, 7)]`
    const EXPECTED: [[usize; 5]; 4] = [
        [2, 4, 9, 1, 5],
        [4, 3, 1, 2, 5],
        [1, 8, 9, 4, 0],
        [2, 0, 3, 5, 1],
    ];

    #[test]
    fn no_index_is_drawn_twice() {
        for (a, _) in draw_subsets([300, 300], 5, 300, SubsetDraw::Seeded(1)).unwrap() {
            let mut sorted = a.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..300).collect::<Vec<_>>());
            assert_ne!(a, sorted);
        }
    }
}
