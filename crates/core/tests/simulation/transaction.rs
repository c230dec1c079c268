//! Transactions of a simulated client: MULTI to EXEC on keys of one shard, now and then under a watch, asked in one go.
//!
//! What a transaction does is known as well as what its commands do alone; when its fate is unknown, all of them may have been
//! executed. Nobody else writes the client's keys, so a watch is broken only when its connection was.

use crate::chance::Chance;
use crate::client::{Habits, Placement, SimulatedClient};
use crate::model::Kind;
use crate::resp;

impl SimulatedClient {
    pub fn ask_transaction(
        &mut self,
        habits: &Habits,
        chance: &mut Chance,
        placement: Placement<'_>,
        now_us: u64,
    ) {
        let first = self.key(chance);
        let shard = placement(&first);
        let is_watched = chance.one_in(3);
        if is_watched {
            let ok = Kind::Exact(b"+OK\r\n".to_vec());
            let args: [&[u8]; 2] = [b"WATCH", &first];
            self.push(&resp::request(&args), ok, vec![shard], now_us);
            if chance.one_in(2) {
                let args: [&[u8]; 2] = [b"GET", &first];
                self.push(
                    &resp::request(&args),
                    Kind::Get(first.clone()),
                    vec![shard],
                    now_us,
                );
            }
        }
        let ok = Kind::Exact(b"+OK\r\n".to_vec());
        self.push(&resp::request(&["MULTI"]), ok.clone(), Vec::new(), now_us);
        let mut kinds = Vec::new();
        for _ in 0..chance.below(5) {
            let other = self.key(chance);
            let key = if placement(&other) == shard {
                other
            } else {
                first.clone()
            };
            let (args, kind) = self.queued(habits, chance, key);
            kinds.push(kind);
            let told = Kind::Exact(b"+QUEUED\r\n".to_vec());
            self.push(&resp::request(&args), told, Vec::new(), now_us);
        }
        if chance.one_in(8) {
            // The watch ends with it.
            let shards = if is_watched { vec![shard] } else { Vec::new() };
            return self.push(&resp::request(&["DISCARD"]), ok, shards, now_us);
        }
        let kind = Kind::Exec(kinds, is_watched);
        // An empty one may be executed anywhere, or by nobody.
        let shards = (0..habits.shards).filter(|&any| any == shard || !is_watched);
        self.push(&resp::request(&["EXEC"]), kind, shards.collect(), now_us);
    }

    /// One command of a transaction.
    fn queued(
        &mut self,
        habits: &Habits,
        chance: &mut Chance,
        key: Vec<u8>,
    ) -> (Vec<Vec<u8>>, Kind) {
        match chance.below(6) {
            0 | 1 => {
                let value = self.value(habits, chance);
                let pair = (key.clone(), value.clone());
                (vec![b"SET".to_vec(), key, value], Kind::Set(vec![pair]))
            }
            2 => (vec![b"GET".to_vec(), key.clone()], Kind::Get(key)),
            3 => {
                let more = self.token();
                let args = vec![b"APPEND".to_vec(), key.clone(), more.clone()];
                (args, Kind::Append(key, more))
            }
            4 => {
                let args = vec![b"DEL".to_vec(), key.clone()];
                (args, Kind::Count(vec![key], true))
            }
            _ => {
                let token = self.token();
                let kind = Kind::Exact(resp::bulk(&token));
                (vec![b"ECHO".to_vec(), token], kind)
            }
        }
    }
}
