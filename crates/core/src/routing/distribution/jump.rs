//! Jump consistent hash: no table at all, and the fewest keys moved when a shard is added at the end.
//!
//! Owns: `jump`, the function of Lamping and Veach (2014): a key jumps from shard to shard, always forwards, and stays at
//! the last one that exists.
//!
//! Must stay true: with one shard more, a key stays or goes to the new shard; only the last shard can be taken away.

/// The multiplier of the generator that the paper uses.
const MULTIPLIER: u64 = 2_862_933_555_777_941_757;

/// The shard of a hash, among so many (at least 1). Takes about the logarithm of their number of steps.
#[inline]
pub fn jump(mut hash: u64, shards: u16) -> u16 {
    let (mut at, mut next) = (0i64, 0i64);
    while next < i64::from(shards) {
        at = next;
        hash = hash.wrapping_mul(MULTIPLIER).wrapping_add(1);
        let chance = ((hash >> 33) + 1) as f64;
        next = ((at + 1) as f64 * ((1u64 << 31) as f64 / chance)) as i64;
    }
    at as u16
}
