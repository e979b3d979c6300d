use crate::{MetricsError, Result};
use rand_mt::Mt;

/// How the samples of a subset are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubsetDraw {
    /// The very subsets of torch-fidelity: NumPy's `RandomState(2020)`, for each subset first of the first set, then of the second.
    TorchFidelity,
    /// The same way from another seed.
    Seeded(u32),
}

/// Places without repetition for each subset: of the first set and of the second.
///
/// # Errors
/// A size of more than a set holds.
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
        let mut places = permutation(n, &mut generator);
        places.truncate(size);
        places
    };
    Ok((0..subsets).map(|_| (choose(a), choose(b))).collect())
}

/// NumPy's `RandomState.permutation(n)`: Fisher and Yates from the end, numbers below a bound by masking and rejecting.
fn permutation(n: usize, generator: &mut Mt) -> Vec<usize> {
    let mut places: Vec<usize> = (0..n).collect();
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
        places.swap(i, j);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_are_numpys() {
        let places = draw_subsets([10, 7], 2, 5, SubsetDraw::TorchFidelity).unwrap();
        let expected = [(EXPECTED[0], EXPECTED[1]), (EXPECTED[2], EXPECTED[3])];
        for ((a, b), (x, y)) in places.iter().zip(expected) {
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
    fn no_place_comes_twice() {
        for (a, _) in draw_subsets([300, 300], 5, 300, SubsetDraw::Seeded(1)).unwrap() {
            let mut sorted = a.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..300).collect::<Vec<_>>());
            assert_ne!(a, sorted);
        }
    }
}
