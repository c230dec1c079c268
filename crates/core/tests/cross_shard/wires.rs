//! Connections between proxies and shards: queues in both directions, either end of which may be gone without the other knowing.
//!
//! Must stay true, as on real servers: what was sent on a connection that its proxy has closed still runs; what was sent on one
//! that the shard has ended does not.

use shoal_core::session::cross_shard::call::{Call, Outcome, Pid, Record, Tx};
use shoal_core::session::cross_shard::message::Message;
use std::collections::{BTreeMap, VecDeque};

/// A connection's number: the shards' CLIENT ID.
pub type Id = u64;

/// Whose question is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    Nobody,
    /// The first Join of a connection.
    Link,
    /// A Join that the member wanted.
    Member,
    /// A client's request.
    Client(usize),
    /// A part of an operation.
    Part(Tx, usize),
    /// A shard of a recovery.
    Recovery(Tx, usize),
    /// How many heard the question about it.
    Asked(Tx),
    /// A lost connection's end.
    End(Id),
}

/// What is sent to a shard.
#[derive(Debug, Clone)]
pub enum What {
    Name(Pid),
    Subscribe,
    /// WATCH of an operation's record and, if it is there, what is answered.
    Watch(Tx, Option<Outcome>),
    Unwatch,
    Call(Call),
    /// Second part of `Call::Deregister`.
    List(Pid),
    /// Last part of `Call::Kill`.
    Forget(Pid),
    /// What a client asked (its number among all that was asked).
    Request(usize),
    Publish(Option<Pid>, Message),
    End(Id),
}

#[derive(Debug, Clone)]
pub struct Order {
    pub tag: Tag,
    pub what: What,
}

/// What a proxy reads.
#[derive(Debug, Clone)]
pub enum Heard {
    Outcome(Tag, Outcome),
    Records(Tag, Vec<Record>),
    Reply(Tag, Vec<u8>),
    Count(Tag, u64),
    /// Of what has no answer that matters.
    Fine(Tag),
    Message(Message),
    /// The shard has ended the connection.
    Closed,
}

#[derive(Debug)]
pub struct Wire {
    pub shard: usize,
    /// Which proxy, and which life of it.
    pub owner: Pid,
    pub slot: usize,
    pub name: Option<Pid>,
    pub up: VecDeque<Order>,
    pub down: VecDeque<Heard>,
    /// What was sent and not answered, as the proxy knows.
    pub asked: VecDeque<Tag>,
    pub is_open_here: bool,
    pub is_open_there: bool,
    /// The watched record, and whether it was touched.
    pub watch: Option<(Tx, bool)>,
    pub is_subscribed: bool,
}

impl Wire {
    /// A client or an operation waits for an answer on it.
    pub fn is_busy(&self) -> bool {
        let is_busy = |tag: &Tag| matches!(tag, Tag::Client(_) | Tag::Part(..));
        self.asked.iter().any(is_busy)
    }
}

/// All connections.
#[derive(Debug, Default)]
pub struct Wires {
    pub wires: BTreeMap<Id, Wire>,
    last: Id,
}

impl Wires {
    pub fn connect(&mut self, owner: &Pid, slot: usize, shard: usize) -> Id {
        self.last += 1;
        let wire = Wire {
            shard,
            owner: owner.clone(),
            slot,
            name: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            asked: VecDeque::new(),
            is_open_here: true,
            is_open_there: true,
            watch: None,
            is_subscribed: false,
        };
        self.wires.insert(self.last, wire);
        self.last
    }

    /// Whether the proxy takes it for open.
    pub fn is_open(&self, id: Id) -> bool {
        self.wires.get(&id).is_some_and(|wire| wire.is_open_here)
    }

    /// Whether it was sent; not, if the proxy has closed it.
    pub fn send(&mut self, id: Id, tag: Tag, what: What) -> bool {
        match self.wires.get_mut(&id) {
            Some(wire) if wire.is_open_here => {
                wire.asked.push_back(tag.clone());
                // What is sent to an end that is gone is gone.
                if wire.is_open_there {
                    wire.up.push_back(Order { tag, what });
                }
                true
            }
            _ => false,
        }
    }

    /// The proxy closes it, or finds it closed: what had no answer.
    pub fn close(&mut self, id: Id) -> Vec<Tag> {
        match self.wires.get_mut(&id) {
            Some(wire) if wire.is_open_here => {
                wire.is_open_here = false;
                wire.down.clear();
                wire.asked.drain(..).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The shard ends it: nothing that was sent runs any more; its answers may still be read.
    pub fn end(&mut self, id: Id) {
        if let Some(wire) = self.wires.get_mut(&id) {
            if std::mem::take(&mut wire.is_open_there) {
                wire.up.clear();
                wire.down.push_back(Heard::Closed);
            }
        }
    }

    /// What nobody will look at again.
    pub fn sweep(&mut self) {
        self.wires
            .retain(|_, wire| wire.is_open_here || (wire.is_open_there && !wire.up.is_empty()));
    }
}
