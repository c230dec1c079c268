//! The protocol's rules, and what each is switched off by: what a shard or an engine leaves out, never what a state machine does.

/// Which rules hold. The names are those of the design note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Proxies hold back what is claimed.
    pub fence: bool,
    /// R1: a connection is named before it joins.
    pub named_first: bool,
    /// R2: what a Join tells is installed before the connection's first request.
    pub join_tells: bool,
    /// R3: a member acknowledges when what it sent is answered ...
    pub drained: bool,
    /// ... and what it lost unanswered is ended by word of the server.
    pub confirmed: bool,
    /// R4: the shard ends the connections of who does not acknowledge.
    pub kill: bool,
    /// R5: COMMIT depends on the record at home.
    pub watch: bool,
    /// R6: recovery evicts the coordinator at home first ...
    pub evict: bool,
    /// ... and asks home before it touches participants.
    pub home_first: bool,
    /// R7: APPLY depends on the participant's record ...
    pub conditional: bool,
    /// ... which goes only when the values are in.
    pub values_first: bool,
    /// R8: the decision stays until every participant has applied.
    pub clean_last: bool,
    /// R9: a coordinator that loses a connection gives up.
    pub give_up: bool,
    /// R10: who is being evicted is on the list until its connections are ended.
    pub listed: bool,
    /// R11: an operation has all of its connections before its first PREPARE.
    pub all_wires: bool,
}

impl Rules {
    pub const ALL: Self = Self {
        fence: true,
        named_first: true,
        join_tells: true,
        drained: true,
        confirmed: true,
        kill: true,
        watch: true,
        evict: true,
        home_first: true,
        conditional: true,
        values_first: true,
        clean_last: true,
        give_up: true,
        listed: true,
        all_wires: true,
    };
}
