//! The order in which a run visits its images.

use std::sync::{Arc, Mutex, PoisonError};

use sdft_noise::{Draw, Purpose};

use crate::{DataError, Result};

/// Number of cached permutations. A batch may span two epochs.
const KEPT: usize = 2;

/// A new permutation of all images in each epoch, as a pure function of the seed and the position in the run.
///
/// ```text
/// index(p) = permutation(seed, p / n)[p mod n]         p = number of samples consumed before this one
/// ```
/// Only the position must be saved to resume.
#[derive(Debug)]
pub struct Order {
    seed: u64,
    n: usize,
    kept: Mutex<Vec<(u64, Arc<Vec<usize>>)>>,
}

impl Order {
    /// The order of `n` images in the run with `seed`.
    ///
    /// # Errors
    /// Fails if `n` is 0.
    pub fn new(seed: u64, n: usize) -> Result<Self> {
        if n == 0 {
            return Err(DataError::Option {
                option: "data",
                expected: "at least one image".to_owned(),
                found: "none".to_owned(),
            });
        }
        Ok(Self {
            seed,
            n,
            kept: Mutex::new(Vec::new()),
        })
    }

    /// How many times every image has been visited before sample `position`.
    #[must_use]
    pub fn epoch(&self, position: u64) -> u64 {
        position / self.n as u64
    }

    /// The index of the image of sample `position`, below `n`.
    #[must_use]
    pub fn index(&self, position: u64) -> usize {
        let within = (position % self.n as u64) as usize;
        self.permutation(self.epoch(position))[within]
    }

    /// The permutation of an epoch, which is cached.
    fn permutation(&self, epoch: u64) -> Arc<Vec<usize>> {
        // After a panic the list is still valid, because entries are only added or dropped whole.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, permutation)) = kept.iter().find(|(known, _)| *known == epoch) {
            return Arc::clone(permutation);
        }
        let draw = Draw::new(self.seed, Purpose::Order, epoch, 0);
        let permutation = Arc::new(draw.permutation(self.n));
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((epoch, Arc::clone(&permutation)));
        permutation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(order: &Order, epoch: u64) -> Vec<usize> {
        let n = order.n as u64;
        (epoch * n..(epoch + 1) * n)
            .map(|p| order.index(p))
            .collect()
    }

    #[test]
    fn every_epoch_visits_every_image_once_in_another_order() {
        let order = Order::new(3, 50).unwrap();
        let epochs: Vec<_> = (0..4).map(|e| epoch(&order, e)).collect();
        for (e, visited) in epochs.iter().enumerate() {
            let mut sorted = visited.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..50), "epoch {e}");
            assert!(!epochs[..e].contains(visited), "epoch {e} repeats another");
        }
    }

    #[test]
    fn seeds_differ() {
        let [a, b] = [1, 2].map(|seed| epoch(&Order::new(seed, 50).unwrap(), 0));
        assert_ne!(a, b);
    }

    #[test]
    fn any_position_continues_the_same_order() {
        let whole = Order::new(9, 7).unwrap();
        let all: Vec<_> = (0..40).map(|p| whole.index(p)).collect();
        for start in 0..40 {
            let resumed = Order::new(9, 7).unwrap();
            let rest: Vec<_> = (start..40).map(|p| resumed.index(p)).collect();
            assert_eq!(rest, all[start as usize..]);
        }
        // Also backwards, through more epochs than are cached.
        let mut back: Vec<_> = (0..40).rev().map(|p| whole.index(p)).collect();
        back.reverse();
        assert_eq!(back, all);
    }

    #[test]
    fn epochs_count_whole_visits() {
        let order = Order::new(0, 7).unwrap();
        assert_eq!([6, 7, 20, 21].map(|p| order.epoch(p)), [0, 1, 2, 3]);
        assert!(order.index(u64::MAX) < 7);
    }

    #[test]
    fn no_images_have_no_order() {
        let message = Order::new(0, 0).unwrap_err().to_string();
        assert!(message.contains("at least one image"), "{message}");
    }
}
