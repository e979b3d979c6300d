use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a transfer is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Attempts in a row that bring no progress before giving up.
    pub attempts: u32,
    /// Attempts if the server cannot be reached at all.
    pub attempts_to_connect: u32,
    /// The wait before the second attempt; it doubles from one to the next.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
    /// The longest wait that a server may ask for.
    pub longest_asked: Duration,
    /// How long nothing may arrive before the connection counts as broken.
    pub stall: Duration,
}

impl Default for Patience {
    /// Eight attempts in about a minute and a half, three if there is no connection at all; a minute of silence.
    fn default() -> Self {
        Self {
            attempts: 8,
            attempts_to_connect: 3,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            longest_asked: Duration::from_secs(600),
            stall: Duration::from_secs(60),
        }
    }
}

impl Patience {
    /// The wait after the `n`-th failure in a row (1 for the first): what the server asked for, else doubling, up to a quarter longer so that
    /// many clients do not return at once.
    pub(crate) fn wait(&self, n: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.first_wait.saturating_mul(1 << (n - 1).min(16));
        let wait = asked.unwrap_or_else(|| doubled.min(self.longest_wait));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let chance = f64::from(now.map_or(0, |now| now.subsec_nanos() % 1_000_000)) / 1e6;
        wait + wait.mul_f64(chance / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_follow_the_server() {
        let patience = Patience::default();
        let near = |n: u32, asked: Option<u64>, seconds: f64| {
            let wait = patience
                .wait(n, asked.map(Duration::from_secs))
                .as_secs_f64();
            assert!((seconds..=1.25 * seconds).contains(&wait), "{n} {wait}");
        };
        near(1, None, 0.5);
        near(2, None, 1.0);
        near(4, None, 4.0);
        near(40, None, 30.0);
        near(1, Some(7), 7.0);
    }
}
