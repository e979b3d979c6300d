use sdft_noise::{Draw, Purpose};
use std::sync::Mutex;

/// The order in which images are seen: a new permutation for every pass, a pure function of the seed.
#[derive(Debug)]
pub struct Order {
    seed: u64,
    n: usize,
    /// The permutation used last and the pass that it belongs to.
    current: Mutex<(u64, Vec<usize>)>,
}

impl Order {
    /// For `n` images.
    pub fn new(seed: u64, n: usize) -> Self {
        Self { seed, n, current: Mutex::new((0, permutation(seed, 0, n))) }
    }

    /// The image at `position`, counted over all passes.
    pub fn image(&self, position: u64) -> usize {
        let n = self.n.max(1) as u64;
        let pass = position / n;
        // A poisoned lock still holds a whole permutation: it is replaced in one assignment.
        let mut current = self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if current.0 != pass {
            *current = (pass, permutation(self.seed, pass, self.n));
        }
        usize::try_from(position % n).ok().and_then(|i| current.1.get(i).copied()).unwrap_or(0)
    }
}

fn permutation(seed: u64, pass: u64, n: usize) -> Vec<usize> {
    Draw::new(seed, Purpose::Order, pass, 0).permutation(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_sees_every_image_once_in_another_order() {
        let order = Order::new(3, 50);
        let pass = |k: u64| (0..50).map(|i| order.image(50 * k + i)).collect::<Vec<_>>();
        let (first, second) = (pass(0), pass(1));
        assert_ne!(first, second);
        for mut seen in [first.clone(), second] {
            seen.sort_unstable();
            assert_eq!(seen, (0..50).collect::<Vec<_>>());
        }
        assert_eq!(pass(0), first);
        assert_ne!((0..50).map(|i| Order::new(4, 50).image(i)).collect::<Vec<_>>(), first);
    }
}
