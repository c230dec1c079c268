//! Hash functions of other clients and proxies, and the one that we use ourselves.
//!
//! Owns: `KeyHash`, Twemproxy's twelve, with the names that its configuration has; `crc32` and `xxh3`.
//!
//! Must stay true: every result equals that of the compiled Twemproxy, faults included, because data was placed by those
//! results. Where C lets `char` be signed (x86), bytes from 0x80 on are negative; where it is unsigned (Linux on ARM), they
//! are not: `signed` says which. Vectors are in `tests/distribution.rs`.
//!
//! Rejected: putting right what is odd (CRC16 that is never cut to 16 bits, 64-bit FNV in 32 bits, CRC32 with 15 bits left).

use md5::{Digest, Md5};

macro_rules! hashes {
    ($($variant:ident $name:literal $help:literal;)*) => {
        /// One of Twemproxy's hash functions.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum KeyHash { $(#[doc = $help] $variant,)* }

        impl KeyHash {
            /// All, in Twemproxy's order.
            pub const ALL: &'static [KeyHash] = &[$(KeyHash::$variant,)*];

            /// As configurations write it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

hashes! {
    OneAtATime "one_at_a_time" "Bob Jenkins' one-at-a-time.";
    Md5 "md5" "The first four bytes of MD5, the lowest first.";
    Crc16 "crc16" "CRC16 whose accumulator has 32 bits and is never cut.";
    Crc32 "crc32" "Bits 16 to 30 of CRC32, as libmemcached.";
    Crc32a "crc32a" "CRC32.";
    Fnv1To64 "fnv1_64" "The low half of 64-bit FNV-1.";
    Fnv1aTo64 "fnv1a_64" "FNV-1a with the low halves of the 64-bit constants.";
    Fnv1To32 "fnv1_32" "32-bit FNV-1.";
    Fnv1aTo32 "fnv1a_32" "32-bit FNV-1a.";
    Hsieh "hsieh" "Paul Hsieh's SuperFastHash.";
    Murmur "murmur" "MurmurHash2, seeded with the length.";
    Jenkins "jenkins" "Bob Jenkins' lookup3.";
}

/// Low halves of the constants of 64-bit FNV: of its offset and its prime.
const FNV_64_OFFSET_LOW: u32 = 0x8422_2325;
const FNV_64_PRIME_LOW: u32 = 0x1b3;
const FNV_32_OFFSET: u32 = 2_166_136_261;
const FNV_32_PRIME: u32 = 16_777_619;

impl KeyHash {
    /// The function of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|hash| hash.name() == name)
    }

    /// The hash of a key; `signed`: bytes from 0x80 on are negative, as on x86.
    pub fn of(self, key: &[u8], signed: bool) -> u32 {
        match self {
            Self::OneAtATime => one_at_a_time(key, signed),
            Self::Md5 => u32_at(&md5(key), 0),
            Self::Crc16 => key.iter().fold(0, crc16_step),
            Self::Crc32 => (crc32(key) >> 16) & 0x7fff,
            Self::Crc32a => crc32(key),
            // Multiplying modulo 2^64 and keeping the low half is multiplying the low halves.
            Self::Fnv1To64 => fnv1(key, signed, FNV_64_OFFSET_LOW, FNV_64_PRIME_LOW),
            Self::Fnv1aTo64 => fnv1a(key, signed, FNV_64_OFFSET_LOW, FNV_64_PRIME_LOW),
            Self::Fnv1To32 => fnv1(key, signed, FNV_32_OFFSET, FNV_32_PRIME),
            Self::Fnv1aTo32 => fnv1a(key, signed, FNV_32_OFFSET, FNV_32_PRIME),
            Self::Hsieh => hsieh(key, signed),
            Self::Murmur => murmur(key),
            Self::Jenkins => jenkins(key),
        }
    }
}

/// CRC32 with the reflected polynomial 0xedb88320 (IEEE 802.3).
#[inline]
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// MD5.
pub fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// XXH3 with 64 bits, without a seed.
#[inline]
pub fn xxh3(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// Four bytes, the lowest first; 0 for those past the end.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let byte = |index: usize| u32::from(bytes.get(at + index).copied().unwrap_or(0));
    byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24
}

/// A byte as C's `char`, widened.
#[inline]
fn widened(byte: u8, signed: bool) -> u32 {
    if signed {
        byte as i8 as u32
    } else {
        u32::from(byte)
    }
}

fn one_at_a_time(key: &[u8], signed: bool) -> u32 {
    let mut value = key.iter().fold(0u32, |value, &byte| {
        let value = value.wrapping_add(widened(byte, signed));
        let value = value.wrapping_add(value << 10);
        value ^ (value >> 6)
    });
    value = value.wrapping_add(value << 3);
    value ^= value >> 11;
    value.wrapping_add(value << 15)
}

fn crc16_step(crc: u32, &byte: &u8) -> u32 {
    let single = crate::routing::hash::crc16(&[(crc >> 8) as u8 ^ byte]);
    (crc << 8) ^ u32::from(single)
}

fn fnv1(key: &[u8], signed: bool, offset: u32, prime: u32) -> u32 {
    key.iter().fold(offset, |hash, &byte| {
        hash.wrapping_mul(prime) ^ widened(byte, signed)
    })
}

fn fnv1a(key: &[u8], signed: bool, offset: u32, prime: u32) -> u32 {
    key.iter().fold(offset, |hash, &byte| {
        (hash ^ widened(byte, signed)).wrapping_mul(prime)
    })
}

fn hsieh(key: &[u8], signed: bool) -> u32 {
    if key.is_empty() {
        return 0;
    }
    let pair = |bytes: &[u8]| u32_at(bytes, 0) & 0xffff;
    let mut hash = 0u32;
    let mut quads = key.chunks_exact(4);
    for quad in &mut quads {
        hash = hash.wrapping_add(pair(quad));
        let mixed = (pair(&quad[2..]) << 11) ^ hash;
        hash = (hash << 16) ^ mixed;
        hash = hash.wrapping_add(hash >> 11);
    }
    match *quads.remainder() {
        [first, second, third] => {
            hash = hash.wrapping_add(pair(&[first, second]));
            hash ^= hash << 16;
            hash ^= widened(third, signed) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [first, second] => {
            hash = hash.wrapping_add(pair(&[first, second]));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [only] => {
            hash = hash.wrapping_add(u32::from(only));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}

fn murmur(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = key.len() as u32;
    let mut hash = 0xdead_beef_u32.wrapping_mul(length) ^ length;
    let mut quads = key.chunks_exact(4);
    for quad in &mut quads {
        let mut word = u32_at(quad, 0).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    let rest = quads.remainder();
    if !rest.is_empty() {
        hash = (hash ^ u32_at(rest, 0)).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

fn jenkins(key: &[u8]) -> u32 {
    const START: u32 = 0xdead_beef;
    let start = START.wrapping_add(key.len() as u32).wrapping_add(13);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = key;
    while rest.len() > 12 {
        a = a.wrapping_add(u32_at(rest, 0));
        b = b.wrapping_add(u32_at(rest, 4));
        c = c.wrapping_add(u32_at(rest, 8));
        // (what is subtracted, from what, by how much the first is turned): six steps, the names going round.
        for turn in [[4, 6, 8], [16, 19, 4]] {
            (a, c, b) = mixed(a, c, b, turn[0]);
            (b, a, c) = mixed(b, a, c, turn[1]);
            (c, b, a) = mixed(c, b, a, turn[2]);
        }
        rest = &rest[12..];
    }
    if rest.is_empty() {
        return c;
    }
    a = a.wrapping_add(u32_at(rest, 0));
    b = b.wrapping_add(u32_at(rest, 4));
    c = c.wrapping_add(u32_at(rest, 8));
    let spread =
        |target: u32, source: u32, by: u32| (target ^ source).wrapping_sub(source.rotate_left(by));
    c = spread(c, b, 14);
    a = spread(a, c, 11);
    b = spread(b, a, 25);
    c = spread(c, b, 16);
    a = spread(a, c, 4);
    b = spread(b, a, 14);
    spread(c, b, 24)
}

/// One step of lookup3's mixing: `x -= y; x ^= rot(y, by); y += z`, given back as (x, y, z).
#[inline]
fn mixed(x: u32, y: u32, z: u32, by: u32) -> (u32, u32, u32) {
    let x = x.wrapping_sub(y) ^ y.rotate_left(by);
    (x, y.wrapping_add(z), z)
}
