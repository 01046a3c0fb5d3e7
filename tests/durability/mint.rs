//! Any number of different pods, by dice that can be thrown again.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::pod::Pod;

/// Dice that fall the same way for the same seed (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % sides
    }
}

/// Signed once; a comment after the signed part makes any number of different pods of each.
pub struct Mint {
    pub pods: Vec<(Pod, String)>,
    minted: AtomicU64,
}

/// How a pod is made again, so that its bytes need not be kept.
#[derive(Clone, Copy)]
pub struct Recipe {
    pub pod: usize,
    number: u64,
    padding: usize,
}

impl Mint {
    pub fn new() -> Self {
        let pods = (0..16).map(|n| Pod::named(&format!("pod {n}"))).map(|pod| (pod.clone(), pod.html()));
        Self { pods: pods.collect(), minted: AtomicU64::new(0) }
    }

    /// A small pod, one of the usual size, or one in between; one in ten has the bytes of the one before it.
    pub fn recipe(&self, dice: &mut Dice, before: Option<Recipe>) -> Recipe {
        if let (Some(before), 0) = (before, dice.roll(10)) {
            return before;
        }
        let padding = match dice.roll(4) {
            0 => dice.roll(2_000),
            1 => 1_150_000 + dice.roll(50_000),
            _ => dice.roll(300_000),
        };
        Recipe {
            pod: dice.roll(self.pods.len() as u64) as usize,
            number: self.minted.fetch_add(1, Ordering::Relaxed),
            padding: padding as usize,
        }
    }

    pub fn html(&self, recipe: Recipe) -> String {
        let Recipe { pod, number, padding } = recipe;
        format!("{}<!-- {number} {} -->", self.pods[pod].1, "x".repeat(padding))
    }
}
