//! The level of compression follows the stage that the others wait for.
//!
//! Where a stream fills its share of the link, a harder level sends the same rows in fewer bytes, and the processor has the time for it.
//! Where compressing is what the link waits for, an easier level sends more. A target that takes the rows slowly leaves the link idle: that is
//! no reason to compress harder.
use std::time::{Duration, Instant};

/// Of zstd. Above these a level costs twice the time for one part in a hundred.
const LEVELS: [i32; 4] = [1, 3, 6, 9];
/// Chunks between one look and the next.
const WINDOW: u32 = 8;

#[derive(Clone, Copy)]
pub enum Stage {
    /// Waiting for rows.
    Reading,
    /// Digesting and compressing.
    Sealing,
    /// Waiting until a chunk is taken by the stream to the target agent.
    Sending,
}

/// Of one stream.
pub struct Steering {
    /// Of [`LEVELS`].
    at: usize,
    /// Bytes per second.
    link_share: f64,
    since: Instant,
    window: Window,
}

#[derive(Default)]
struct Window {
    reading: Duration,
    sealing: Duration,
    sending: Duration,
    /// Compressed bytes.
    payload: u64,
    chunks: u32,
}

impl Steering {
    /// `link_share`: bytes per second; 0: the level is to stay. None also for a level that is none of those that are steered between.
    pub fn new(level: i32, link_share: u64) -> Option<Self> {
        let at = LEVELS.iter().position(|steered| *steered == level)?;
        (link_share > 0).then(|| Self {
            at,
            link_share: link_share as f64,
            since: Instant::now(),
            window: Window::default(),
        })
    }

    /// The time since the last call went into `stage`.
    pub fn spent(&mut self, stage: Stage) {
        let before = std::mem::replace(&mut self.since, Instant::now());
        let spent = self.since - before;
        match stage {
            Stage::Reading => self.window.reading += spent,
            Stage::Sealing => self.window.sealing += spent,
            Stage::Sending => self.window.sending += spent,
        }
    }

    /// A chunk was sent, of so many compressed bytes. Returns the level for the next ones when it is another.
    pub fn sent(&mut self, payload: usize) -> Option<i32> {
        self.window.payload += payload as u64;
        self.window.chunks += 1;
        if self.window.chunks < WINDOW {
            return None;
        }
        let window = std::mem::take(&mut self.window);
        let next = window.next(self.at, self.link_share);
        let before = std::mem::replace(&mut self.at, next);
        (next != before).then(|| LEVELS[next])
    }
}

impl Window {
    fn next(&self, at: usize, link_share: f64) -> usize {
        let all = self.reading + self.sealing + self.sending;
        let is_link_full = self.payload as f64 * 2.0 >= link_share * all.as_secs_f64();
        if self.sending * 2 > all && is_link_full {
            (at + 1).min(LEVELS.len() - 1)
        } else if self.sealing * 2 > all {
            at.saturating_sub(1)
        } else {
            at
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: f64 = 1e6;

    /// Seconds of each stage, and bytes that were sent in them.
    fn next(reading: u64, sealing: u64, sending: u64, payload: u64, at: usize) -> usize {
        let window = Window {
            reading: Duration::from_secs(reading),
            sealing: Duration::from_secs(sealing),
            sending: Duration::from_secs(sending),
            payload,
            chunks: WINDOW,
        };
        window.next(at, SHARE)
    }

    #[test]
    fn a_full_link_is_sent_less_and_a_slow_processor_compresses_less() {
        assert_eq!(next(1, 2, 7, 9_000_000, 0), 1, "the link is full");
        assert_eq!(next(1, 2, 7, 9_000_000, 3), 3, "there is no harder level");
        assert_eq!(next(1, 2, 7, 1_000_000, 1), 1, "the target is slow");
        assert_eq!(next(7, 2, 1, 9_000_000, 1), 1, "the source is slow");
        assert_eq!(next(1, 8, 1, 9_000_000, 2), 1, "compressing is slow");
        assert_eq!(next(1, 8, 1, 9_000_000, 0), 0, "there is no easier level");
    }

    #[test]
    fn only_levels_that_were_chosen_for_a_link_are_steered() {
        assert!(Steering::new(3, 1000).is_some());
        assert!(Steering::new(3, 0).is_none(), "asked for");
        assert!(Steering::new(0, 1000).is_none(), "off");
        assert!(Steering::new(pgconvoy_proto::frame::THRIFTY, 1000).is_none());
    }

    #[test]
    fn a_stream_that_waits_for_the_link_goes_up_step_by_step() {
        let mut steering = Steering::new(1, 1).expect("steered");
        let mut levels = vec![1];
        for _ in 0..5 * WINDOW {
            steering.window.sending += Duration::from_secs(1);
            levels.extend(steering.sent(1 << 20));
        }
        assert_eq!(levels, LEVELS);
    }
}
