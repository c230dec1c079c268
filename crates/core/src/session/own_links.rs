//! Connections to shards that one client has to itself, and those that wait for the next who needs one.
//!
//! Owns: the bounded, on-demand pool: who gets a connection (`open_own`), who gives it back (`give_back`), and what happens to
//! them when their client leaves.
//!
//! Flow: a feature that needs a connection's own state (a watch, a wait, tracking) opens one with its purpose -> sends on it
//! with `send` and `sent` like on any other link -> gives it back, clean or not. A clean one is kept for a while for others.
//!
//! Must stay true: a connection in use belongs to one client and is closed at once when that client leaves; one that is given
//! back clean owes nothing and has no state that a new connection would not have, but that shards tell on some (`Link::tells`); all of
//! them together are bounded; one on which
//! something may be on its way to a client that has left is read until that has come (`put_back`).
//! Rejected: a connection for each client and shard from the start, as some proxies do: most clients never need one.

use crate::error::ClientError;
use crate::limits::{EXCLUSIVE_LINKS_MAX, OWN_LINKS_IDLE_MAX};
use crate::protocol::command::Undo;
use crate::session::backend::{Link, LinkState, LANES};
use crate::session::engine::Engine;

/// What a client has a connection of its own for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Keys are watched on it, from WATCH until EXEC.
    Watch,
    /// A request waits on it, for ever if it must.
    Block,
    /// The shard tells on it that keys have changed for which a request waits.
    Wake,
    /// What the client reads on it is remembered by the shard, which tells when it changes.
    Track,
    /// What the shard tells comes on it, because the client's own protocol has no place for it.
    Feed,
}

/// Whose a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// All clients of its lane.
    Lane,
    /// The one request it was opened for; closed when that is answered.
    Request,
    /// One client, until it is given back.
    Client {
        /// The client's place.
        slot: u32,
        /// See `slot`.
        generation: u32,
        /// What for.
        purpose: Purpose,
    },
    /// Nobody any more: its client left while a request waited on it, and the shard has been told to end that.
    Ending,
    /// An operation across shards, for one of its parts.
    Operation {
        /// The operation's place.
        index: u32,
        /// See `index`.
        generation: u32,
        /// Which part.
        part: u16,
    },
    /// Worker 0: what it hears of operations across shards, and asks about them.
    Control,
    /// This worker: what is published on the shard comes on it.
    Subscriptions,
    /// Nobody at the moment; kept for the next who needs one.
    Idle,
}

impl Owner {
    /// Whether what is asked on such a link may wait for as long as it likes.
    pub fn may_wait(self) -> bool {
        match self {
            Self::Request
            | Self::Ending
            | Self::Client {
                purpose: Purpose::Block,
                ..
            } => true,
            Self::Lane
            | Self::Subscriptions
            | Self::Control
            | Self::Operation { .. }
            | Self::Idle
            | Self::Client { .. } => false,
        }
    }

    /// Whether pushes that come on such a link are for somebody.
    pub fn takes_pushes(self) -> bool {
        match self {
            Self::Subscriptions
            | Self::Control
            | Self::Client {
                purpose: Purpose::Track | Purpose::Feed | Purpose::Wake,
                ..
            } => true,
            Self::Lane
            | Self::Request
            | Self::Idle
            | Self::Ending
            | Self::Operation { .. }
            | Self::Client { .. } => false,
        }
    }
}

impl Engine {
    /// A connection to a shard (numbered through the topology) for one client alone, of the database and protocol of `lane`:
    /// one that was kept, or a new one. Requests may be sent on it at once.
    pub(crate) fn open_own(
        &mut self,
        slot: u32,
        shard: usize,
        lane: usize,
        purpose: Purpose,
    ) -> Result<u32, ClientError> {
        // A shard that is down is refused as for everybody, and its main connection is begun.
        self.link_for(shard, 0)?;
        let owner = Owner::Client {
            slot,
            generation: self.clients.generation(slot),
            purpose,
        };
        // What tracks, and what is told, is so from its greeting on; one on which the shard tells is for those who want to be
        // told.
        let is_special = matches!(purpose, Purpose::Track | Purpose::Feed);
        let tells = purpose == Purpose::Wake;
        let id = self.kept_or_new(shard, lane % LANES, !is_special, tells)?;
        let now_ms = self.now_ms;
        if let Some(link) = self.links.get_mut(id) {
            link.owner = owner;
            link.progress_ms = now_ms;
        }
        if let Some(client) = self.clients.get_mut(slot) {
            client.particulars().own_links.push(id);
        }
        Ok(id)
    }

    /// A connection for a part of an operation across shards: (place, generation, part).
    pub(crate) fn open_for_operation(
        &mut self,
        shard: usize,
        lane: usize,
        (index, generation, part): (u32, u32, usize),
    ) -> Result<u32, ClientError> {
        self.link_for(shard, 0)?;
        let id = self.kept_or_new(shard, lane % LANES, true, false)?;
        let now_ms = self.now_ms;
        if let Some(link) = self.links.get_mut(id) {
            link.owner = Owner::Operation {
                index,
                generation,
                part: part as u16,
            };
            link.progress_ms = now_ms;
        }
        Ok(id)
    }

    /// A connection of that lane which nobody has, or a new one.
    fn kept_or_new(
        &mut self,
        shard: usize,
        lane: usize,
        may_be_kept: bool,
        tells: bool,
    ) -> Result<u32, ClientError> {
        let fits = |&(idle_lane, id): &(usize, u32)| {
            may_be_kept
                && idle_lane == lane
                && self.links.get(id).is_some_and(|link| link.tells == tells)
        };
        match self.backends[shard].idle.iter().position(fits) {
            Some(position) => Ok(self.backends[shard].idle.swap_remove(position).1),
            None if self.exclusive_links >= EXCLUSIVE_LINKS_MAX => Err(ClientError::Exhausted),
            None => Ok(self.open_exclusive(shard, lane)),
        }
    }

    /// Whether a link is nobody's lane, so that a request may wait on it for as long as it likes.
    pub fn is_own_link(&self, id: u32) -> bool {
        self.links.get(id).is_some_and(|link| link.lane.is_none())
    }

    /// A client needs its connection no more. `is_clean`: it has no state that a new one would not have. One that tracks
    /// is never clean; whoever only watched on it leaves it to its client.
    pub(crate) fn give_back(&mut self, id: u32, is_clean: bool) {
        let now_ms = self.now_ms;
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let tracks = matches!(
            link.owner,
            Owner::Client {
                purpose: Purpose::Track,
                ..
            }
        );
        if tracks && is_clean {
            return;
        }
        let (shard, lane, was) = (link.shard, link.exclusive_lane, link.owner);
        link.used_ms = now_ms;
        link.undo = Undo::Nothing;
        link.waits = None;
        link.ends = None;
        let is_clean = is_clean && link.state == LinkState::Up && link.queue.is_empty();
        let is_kept = is_clean && self.backends[shard].idle.len() < OWN_LINKS_IDLE_MAX;
        if is_kept {
            link.owner = Owner::Idle;
        }
        if let Owner::Client {
            slot, generation, ..
        } = was
        {
            self.disown(slot, generation, id);
        }
        if is_kept {
            self.backends[shard].idle.push((lane, id));
        } else {
            self.close_link(id);
        }
    }

    /// A client leaves: its connections are closed at once, with whatever waits on them, but for those on which something may
    /// just be taken for it.
    pub(crate) fn close_own_links(&mut self, slot: u32) {
        let Some(particulars) = self
            .clients
            .get_mut(slot)
            .and_then(|client| client.particulars.as_deref_mut())
        else {
            return;
        };
        for id in std::mem::take(&mut particulars.own_links) {
            if !self.ends_by_itself(id) {
                self.close_link(id);
            }
        }
    }

    /// Takes a link off its client's list.
    pub(crate) fn disown(&mut self, slot: u32, generation: u32, id: u32) {
        if let Some(particulars) = self
            .clients
            .get_same(slot, generation)
            .and_then(|client| client.particulars.as_deref_mut())
        {
            particulars.own_links.retain(|&own| own != id);
        }
    }

    /// A link that is nobody's lane was lost; whoever had it is told. What waited on it gets its error afterwards.
    pub(crate) fn own_link_lost(&mut self, id: u32, link: &Link) {
        let shard = link.shard;
        match link.owner {
            // What that means for subscribers is told in `feed`.
            Owner::Lane | Owner::Ending | Owner::Request | Owner::Subscriptions => {}
            Owner::Control => self.control_lost(shard, id),
            Owner::Idle => self.backends[shard].idle.retain(|&(_, idle)| idle != id),
            Owner::Operation {
                index,
                generation,
                part,
            } => self.operation_lost(index, generation, usize::from(part)),
            Owner::Client {
                slot,
                generation,
                purpose,
            } => {
                self.disown(slot, generation, id);
                if self.clients.get_same(slot, generation).is_none() {
                    return;
                }
                match purpose {
                    Purpose::Watch => self.watch_lost(slot, id),
                    Purpose::Block | Purpose::Wake => self.wait_lost(slot, shard, id),
                    Purpose::Track | Purpose::Feed => {
                        self.tracking_lost(slot, id, link, purpose);
                    }
                }
            }
        }
    }

    /// A whole push that came on a link which takes them.
    pub(crate) fn pushed(&mut self, id: u32, owner: Owner, push: &[u8]) {
        match owner {
            Owner::Subscriptions => self.published(id, push),
            Owner::Control => self.control_heard(id, push),
            Owner::Client {
                slot,
                generation,
                purpose: Purpose::Wake,
            } => self.woken(id, slot, generation, push),
            Owner::Client {
                slot, generation, ..
            } => self.invalidated(id, slot, generation, push),
            Owner::Lane
            | Owner::Request
            | Owner::Idle
            | Owner::Operation { .. }
            | Owner::Ending => {}
        }
    }
}
