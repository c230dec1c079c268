//! Each rule of the protocol: how it is switched off, and the worlds in which that is soon seen.

use crate::chance::Chance;
use crate::rules::Rules;
use crate::world::{Conditions, Fault};

/// See the head of this file.
pub struct Case {
    /// As in the design note.
    pub name: &'static str,
    pub off: fn(&mut Rules),
    /// What goes wrong in its worlds.
    pub faults: &'static [Fault],
    /// Operations mostly write without reading.
    pub blind: bool,
    /// Shards are prepared one after the other.
    pub careful: bool,
    /// The first seed that is tried: near one that was found once, so that the test is quick.
    pub from: u64,
}

const fn case(
    name: &'static str,
    off: fn(&mut Rules),
    faults: &'static [Fault],
    from: u64,
) -> Case {
    Case {
        name,
        off,
        faults,
        blind: false,
        careful: false,
        from,
    }
}

const fn blind(case: Case) -> Case {
    Case {
        blind: true,
        ..case
    }
}

const fn careful(case: Case) -> Case {
    Case {
        careful: true,
        ..case
    }
}

/// All of them; the first is the control.
pub const CASES: &[Case] = &[
    case(
        "proxies hold nothing back",
        |rules| rules.fence = false,
        &[Fault::Slow],
        0,
    ),
    case(
        "R1 named first, then joined",
        |rules| rules.named_first = false,
        &[Fault::End, Fault::Stop, Fault::Slow],
        60,
    ),
    case(
        "R2 Join tells the records",
        |rules| rules.join_tells = false,
        &[Fault::Lose],
        485,
    ),
    case(
        "R3 answered before FENCED",
        |rules| rules.drained = false,
        &[Fault::Slow],
        200,
    ),
    case(
        "R3 lost connections ended before FENCED",
        |rules| rules.confirmed = false,
        &[Fault::Slow, Fault::Cut],
        720,
    ),
    case(
        "R4 eviction ends connections",
        |rules| rules.kill = false,
        &[Fault::Lose, Fault::Slow],
        140,
    ),
    case(
        "R5 COMMIT watches",
        |rules| rules.watch = false,
        &[Fault::Cut, Fault::Slow],
        448,
    ),
    case(
        "R9 gives up when a connection is lost",
        |rules| rules.give_up = false,
        &[Fault::Cut, Fault::Slow],
        350,
    ),
    case(
        "R5 and R9",
        |rules| {
            rules.watch = false;
            rules.give_up = false;
        },
        &[Fault::Cut, Fault::Slow],
        40,
    ),
    blind(case(
        "R6 recovery evicts the coordinator",
        |rules| rules.evict = false,
        &[Fault::TrapEarly],
        822,
    )),
    case(
        "R6 home decides before participants",
        |rules| rules.home_first = false,
        &[Fault::Crash, Fault::Stop],
        122,
    ),
    case(
        "R7 APPLY depends on the record",
        |rules| rules.conditional = false,
        &[Fault::Stop, Fault::Cut, Fault::Slow],
        205,
    ),
    case(
        "R7 values before the record goes",
        |rules| rules.values_first = false,
        &[Fault::Full],
        887,
    ),
    case(
        "R8 CLEAN when all have applied",
        |rules| rules.clean_last = false,
        &[Fault::TrapLate],
        70,
    ),
    case(
        "R10 listed until its connections are ended",
        |rules| rules.listed = false,
        &[Fault::Lose, Fault::TrapLate],
        1308,
    ),
    careful(blind(case(
        "R11 all connections before the first PREPARE",
        |rules| rules.all_wires = false,
        &[Fault::TrapEarly],
        214,
    ))),
];

impl Case {
    /// Its rules: all but one.
    pub fn rules(&self) -> Rules {
        let mut rules = Rules::ALL;
        (self.off)(&mut rules);
        rules
    }

    /// A world in which it matters.
    pub fn conditions(&self, seed: u64) -> Conditions {
        let chance = &mut Chance::new(!seed);
        Conditions {
            shards: 2,
            proxies: chance.between(2, 3),
            clients: chance.between(3, 6),
            keys: 4,
            requests: chance.between(4, 7),
            faults: *chance.pick(&[20, 40]),
            faults_max: chance.between(1, 6),
            kinds: self.faults.to_vec(),
            haste: *chance.pick(&[10, 20, 40]),
            blind: self.blind,
            flushes: false,
            careful: self.careful,
        }
    }
}
