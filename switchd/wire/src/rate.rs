//! How often something may be: a token bucket.

const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Copy)]
pub struct Rate {
    pub second: u64,
    /// At once.
    pub burst: u64,
}

pub struct Bucket {
    tokens: u64,
    since: u64,
}

impl Bucket {
    pub fn full(now: u64, rate: Rate) -> Bucket {
        Bucket { tokens: rate.burst, since: now }
    }

    fn fill(&mut self, now: u64, rate: Rate) {
        let step = SECOND / rate.second;
        let earned = now.saturating_sub(self.since) / step;
        self.tokens = (self.tokens + earned).min(rate.burst);
        // Parts of a step add up.
        self.since += earned * step;
    }

    /// One more, if there may be one.
    pub fn take(&mut self, now: u64, rate: Rate) -> bool {
        self.fill(now, rate);
        let granted = self.tokens > 0;
        self.tokens -= u64::from(granted);
        granted
    }

    /// It says nothing any more: a new one would be the same.
    pub fn is_full(&mut self, now: u64, rate: Rate) -> bool {
        self.fill(now, rate);
        self.tokens == rate.burst
    }
}
