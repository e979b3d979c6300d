//! How failed requests are retried.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How failed requests are retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Consecutive attempts without progress before giving up.
    pub max_attempts: u32,
    /// Attempts if the server cannot be reached at all.
    pub max_connect_attempts: u32,
    /// Delay before the second attempt; doubles with each attempt.
    pub initial_delay: Duration,
    /// Longest delay.
    pub max_delay: Duration,
    /// Longest delay that the server may request with `Retry-After`.
    pub max_retry_after: Duration,
    /// How long a connection may receive nothing before it times out.
    pub read_timeout: Duration,
}

impl Default for RetryPolicy {
    /// 8 attempts in about 90 seconds, 3 attempts to connect, and a read timeout of 60 seconds.
    fn default() -> Self {
        Self {
            max_attempts: 8,
            max_connect_attempts: 3,
            initial_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(30),
            max_retry_after: Duration::from_secs(600),
            read_timeout: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// The delay after the `n`-th consecutive failure (1 for the first): the server's `Retry-After`, or else doubling. A random extra of up to
    /// a quarter keeps many clients from retrying at once.
    pub(crate) fn delay(&self, n: u32, retry_after: Option<Duration>) -> Duration {
        let doubled = self.initial_delay.saturating_mul(1 << (n - 1).min(16));
        let delay = retry_after.unwrap_or_else(|| doubled.min(self.max_delay));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let chance = f64::from(now.map_or(0, |now| now.subsec_nanos() % 1_000_000)) / 1e6;
        delay + delay.mul_f64(chance / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_follow_the_server() {
        let retry = RetryPolicy::default();
        let near = |n: u32, retry_after: Option<u64>, seconds: f64| {
            let delay = retry
                .delay(n, retry_after.map(Duration::from_secs))
                .as_secs_f64();
            assert!((seconds..=1.25 * seconds).contains(&delay), "{n} {delay}");
        };
        near(1, None, 0.5);
        near(2, None, 1.0);
        near(4, None, 4.0);
        near(40, None, 30.0);
        near(1, Some(7), 7.0);
    }
}
