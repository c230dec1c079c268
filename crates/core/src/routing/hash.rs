//! From a key to its slot: CRC16 and Redis Cluster's hash-tag rule.
//!
//! Owns: `crc16`, `hash_tag`, `key_slot`. Every request with a key passes here once per key, so these are the hottest
//! pure functions of the router.
//!
//! Must stay true: slots equal those of Redis Cluster for every key, since fleets are taken over from it and handed
//! back; `tests/hash.rs` holds published vectors and a bit-by-bit twin.
//!
//! Rejected: carry-less multiplication, which wins only from some hundred bytes on, while keys are 8 to 40 bytes long.

/// Number of slots; fixed by Redis Cluster.
pub const SLOTS: usize = 16384;

/// The polynomial x^16 + x^12 + x^5 + 1, highest bit first, no reflection, initial value 0 (known as XMODEM).
const POLYNOMIAL: u16 = 0x1021;

/// `TABLES[k][b]` is the remainder of byte `b` followed by `k` zero bytes. Eight tables take eight bytes per step with
/// independent look-ups, where one table would wait for its own result byte after byte. 4 KiB in all.
static TABLES: [[u16; 256]; 8] = tables();

const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            let carry = remainder & 0x8000 != 0;
            remainder <<= 1;
            if carry {
                remainder ^= POLYNOMIAL;
            }
            bit += 1;
        }
        tables[0][byte] = remainder;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let shorter = tables[zeros - 1][byte];
            tables[zeros][byte] = (shorter << 8) ^ tables[0][(shorter >> 8) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// CRC16 as Redis Cluster uses it (XMODEM).
#[inline]
pub fn crc16(bytes: &[u8]) -> u16 {
    let mut crc: u16 = 0;
    let mut rest = bytes;
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        crc = TABLES[7][(head[0] ^ (crc >> 8) as u8) as usize]
            ^ TABLES[6][(head[1] ^ crc as u8) as usize]
            ^ TABLES[5][head[2] as usize]
            ^ TABLES[4][head[3] as usize]
            ^ TABLES[3][head[4] as usize]
            ^ TABLES[2][head[5] as usize]
            ^ TABLES[1][head[6] as usize]
            ^ TABLES[0][head[7] as usize];
        rest = tail;
    }
    if let Some((head, tail)) = rest.split_first_chunk::<4>() {
        crc = TABLES[3][(head[0] ^ (crc >> 8) as u8) as usize]
            ^ TABLES[2][(head[1] ^ crc as u8) as usize]
            ^ TABLES[1][head[2] as usize]
            ^ TABLES[0][head[3] as usize];
        rest = tail;
    }
    for &byte in rest {
        crc = (crc << 8) ^ TABLES[0][(byte ^ (crc >> 8) as u8) as usize];
    }
    crc
}

/// The part of a key that is hashed: what stands between the first `{` and the first `}` after it, unless that is
/// empty or one of them is missing; then the whole key.
#[inline]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    // Most keys have no tag. Looking at all bytes without leaving early is vectorised, and twice as fast as a search.
    let tagged = key
        .iter()
        .fold(false, |found, &byte| found | (byte == b'{'));
    if tagged {
        tag_inside(key)
    } else {
        key
    }
}

/// The rare half of `hash_tag`, kept out of its callers.
#[cold]
fn tag_inside(key: &[u8]) -> &[u8] {
    let position = |bytes: &[u8], wanted| bytes.iter().position(|&byte| byte == wanted);
    let Some(open) = position(key, b'{') else {
        return key;
    };
    let inside = &key[open + 1..];
    match position(inside, b'}') {
        None | Some(0) => key,
        Some(close) => &inside[..close],
    }
}

/// The slot of a key.
#[inline]
pub fn key_slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) & (SLOTS as u16 - 1)
}
