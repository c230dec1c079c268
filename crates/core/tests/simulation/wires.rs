//! Reading and writing, as the worker does it: pieces of any size, peers that take little, ends that come late.

use crate::client::{Asked, Facts};
use crate::world::{Peer, World};

/// More than the worker reads at once, so that large replies do not take all of the simulation's time.
const READ_BYTES_MAX: usize = 512 * 1024;

impl World {
    /// Reads one peer that was announced.
    pub fn read_some(&mut self) -> bool {
        if self.readable.is_empty() {
            return false;
        }
        let at = self.chance.below(self.readable.len());
        let peer = self.readable.swap_remove(at);
        match peer {
            Peer::Client(engine, slot) if self.engines[engine].reads_client(slot) => {
                self.read_client(engine, slot)
            }
            Peer::Link(engine, link) if self.engines[engine].reads_link(link) => {
                self.read_link(engine, link)
            }
            // Not read: from here on it is the engine's turn to ask.
            Peer::Client(..) | Peer::Link(..) => {}
        }
        true
    }

    fn read_client(&mut self, engine: usize, slot: u32) {
        let place = self.place(engine, slot);
        let client = &mut self.clients[place];
        let length = self.chance.piece(client.to_send.len().min(READ_BYTES_MAX));
        let bytes: Vec<u8> = client.to_send.drain(..length).collect();
        if !bytes.is_empty() {
            self.engines[engine].client_received(slot, &bytes);
        } else if client.is_gone {
            self.engines[engine].client_lost(slot);
        } else if client.has_ended && !client.is_end_seen {
            client.is_end_seen = true;
            self.engines[engine].client_ended(slot);
        }
        self.act(engine);
        self.announce(Peer::Client(engine, slot));
    }

    fn read_link(&mut self, engine: usize, link: u32) {
        let Some(wire) = self.wires.get_mut(&(engine, link)) else {
            return;
        };
        let length = self.chance.piece(wire.to_engine.len().min(READ_BYTES_MAX));
        let bytes: Vec<u8> = wire.to_engine.drain(..length).collect();
        if !bytes.is_empty() {
            self.engines[engine].link_received(link, &bytes);
        } else if wire.is_broken {
            self.engines[engine].link_lost(link, "it closed the connection");
        }
        self.act(engine);
        self.announce(Peer::Link(engine, link));
    }

    /// Writes to one peer that the engine has something for.
    pub fn write_some(&mut self) -> bool {
        if self.dirty.is_empty() {
            return false;
        }
        let at = self.chance.below(self.dirty.len());
        let peer = self.dirty.swap_remove(at);
        let (engine, takes_more) = match peer {
            Peer::Client(engine, slot) => (engine, self.write_client(engine, slot)),
            Peer::Link(engine, link) => (engine, self.write_link(engine, link)),
        };
        self.act(engine);
        if !takes_more {
            // It will be told when the peer takes more.
            self.want(peer);
        }
        true
    }

    /// False when the client does not take all of it.
    fn write_client(&mut self, engine: usize, slot: u32) -> bool {
        loop {
            let Some(output) = self.engines[engine].client_output(slot) else {
                return true;
            };
            if output.is_empty() {
                self.engines[engine].client_rests(slot);
                return true;
            }
            let length = self.chance.piece(output.front().len());
            let bytes = output.front()[..length].to_vec();
            let place = self.place(engine, slot);
            if self.clients[place].is_gone {
                self.engines[engine].client_lost(slot);
                return true;
            }
            if self.clients[place].is_slow {
                return false;
            }
            if let Some(output) = self.engines[engine].client_output(slot) {
                output.advance(length);
            }
            self.client_takes(place, &bytes);
            self.engines[engine].client_written(slot, length);
            self.act(engine);
            let is_there = self.client(engine, slot).is_some();
            if is_there && self.chance.one_in(3) {
                return false;
            }
        }
    }

    fn client_takes(&mut self, place: usize, bytes: &[u8]) {
        let troubles = &self.troubles;
        let client = &mut self.clients[place];
        let engine = client.engine;
        let trouble = |asked: &Asked, shard| World::was_troubled(troubles, engine, asked, shard);
        let facts = Facts {
            trouble: &trouble,
            any_trouble: troubles.iter().any(|trouble| trouble.engine == engine),
        };
        let before = client.asked.len();
        let verdict = client.receive(bytes, &self.conditions.habits, &facts, self.now_us);
        self.judged += before.saturating_sub(client.asked.len());
        if let Err(why) = verdict {
            panic!("client {} at {} us: {why}", client.number, self.now_us);
        }
        let peer = Peer::Client(engine, client.slot.expect("it is connected"));
        self.announce(peer);
    }

    fn write_link(&mut self, engine: usize, link: u32) -> bool {
        loop {
            let Some(output) = self.engines[engine].link_output(link) else {
                return true;
            };
            if output.is_empty() {
                return true;
            }
            let length = self.chance.piece(output.front().len());
            let Some(wire) = self.wires.get_mut(&(engine, link)) else {
                panic!("a link that is gone is written to");
            };
            if !wire.is_broken {
                wire.connection
                    .inbox
                    .extend_from_slice(&output.front()[..length]);
            }
            output.advance(length);
            self.engines[engine].link_written(link, length);
            self.act(engine);
            if self.chance.one_in(3) {
                // Gone meanwhile: nothing is left to be written.
                return !self.wires.contains_key(&(engine, link));
            }
        }
    }
}
