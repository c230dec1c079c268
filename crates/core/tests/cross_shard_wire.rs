//! Calls of the protocol across shards as bytes, and replies as outcomes: against what the protocol of the servers says, written
//! out by hand. That servers do with the scripts what they should is shown in tests/system/test_cross_shard_scripts.py.

use proptest::prelude::*;
use shoal_core::session::cross_shard::call::{
    Call, Commit, Foreign, KeyClaim, Kind, Mode, Outcome, Pid, Prepare, Record, Scope, Tx, Value,
    Written,
};
use shoal_core::session::cross_shard::guard::{guarded, hold};
use shoal_core::session::cross_shard::message::{own_channel, Message};
use shoal_core::session::cross_shard::wire::{decode, encode, greeting, name};
use std::sync::Arc;

fn tx() -> Tx {
    Tx(Arc::from("p1:5-0-7"))
}

fn pid() -> Pid {
    Pid(Arc::from("p1:5"))
}

fn claim(key: &[u8], mode: Mode, is_wanted: bool) -> KeyClaim {
    KeyClaim {
        key: Arc::from(key),
        mode,
        is_wanted,
    }
}

fn value(expires_ms: Option<u64>, dump: &[u8]) -> Value {
    Value {
        expires_ms,
        dump: Arc::from(dump),
    }
}

fn prepare(is_home: bool) -> Call {
    Call::Prepare(Prepare {
        tx: tx(),
        coordinator: pid(),
        home: Arc::from("a"),
        participants: vec![Arc::from("b"), Arc::from("c d")],
        is_home,
        scope: Scope::Keys,
        keys: vec![
            claim(b"k\r\n1", Mode::Exclusive, true),
            claim(b"k2", Mode::Shared, false),
        ],
        redo: None,
        gather_max: 1000,
    })
}

fn gather() -> Call {
    Call::Gather {
        tx: tx(),
        keys: vec![
            claim(b"x", Mode::Shared, true),
            claim(b"y", Mode::Shared, true),
        ],
        gather_max: 9,
    }
}

fn commit() -> Commit {
    let foreign = |key: &[u8], value, is_written, is_blind| Foreign {
        shard: Arc::from("b"),
        key: Arc::from(key),
        value,
        is_written,
        is_blind,
    };
    Commit {
        tx: tx(),
        coordinator: pid(),
        foreign: vec![
            foreign(b"k1", Some(value(Some(5), b"\x00D\r\n")), true, false),
            foreign(b"k2", None, true, true),
            foreign(b"k3", Some(value(None, b"E")), false, false),
            foreign(b"k4", None, true, false),
        ],
        requests: Arc::from(b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\nx\r\n".as_slice()),
        count: 2,
        redo: None,
    }
}

fn kill(ids: &[u64]) -> Call {
    Call::Kill {
        pid: pid(),
        ids: ids.to_vec(),
    }
}

fn of_tx(make: impl FnOnce(Tx) -> Call) -> Call {
    make(tx())
}

/// The requests of a call, taken apart by a reader that knows only arrays of bulk strings.
fn requests(call: &Call) -> (usize, Vec<Vec<Vec<u8>>>) {
    let mut out = Vec::new();
    let replies = encode(call, &mut out);
    let mut rest = out.as_slice();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let words = number(&mut rest, b'*');
        found.push(
            (0..words)
                .map(|_| {
                    let length = number(&mut rest, b'$');
                    let word = rest[..length].to_vec();
                    assert_eq!(&rest[length..length + 2], b"\r\n");
                    rest = &rest[length + 2..];
                    word
                })
                .collect(),
        );
    }
    (replies, found)
}

fn number(rest: &mut &[u8], kind: u8) -> usize {
    assert_eq!(rest[0], kind);
    let end = rest
        .windows(2)
        .position(|two| two == b"\r\n")
        .expect("a line end");
    let number = std::str::from_utf8(&rest[1..end])
        .expect("text")
        .parse()
        .expect("a number");
    *rest = &rest[end + 2..];
    number
}

/// A request of EVAL: what comes behind the script and "0".
fn arguments(request: &[Vec<u8>]) -> Vec<&[u8]> {
    assert_eq!(request[0], b"EVAL");
    assert_eq!(request[2], b"0");
    request[3..].iter().map(Vec::as_slice).collect()
}

fn words(request: &[Vec<u8>]) -> Vec<String> {
    let readable = |word: &Vec<u8>| String::from_utf8_lossy(word).into_owned();
    request.iter().map(readable).collect()
}

const RELEASED: &[u8] = b"*2\r\n$8\r\nreleased\r\n$8\r\np1:5-0-7\r\n";

#[test]
fn a_connection_is_named_after_its_member() {
    let mut out = Vec::new();
    greeting(&pid(), &mut out);
    assert_eq!(
        out,
        b"*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$10\r\nshoal:p1:5\r\n"
    );
    assert_eq!(name(&pid()), "shoal:p1:5");
    assert_eq!(own_channel(&pid()), b"__shoal:c:p1:5");
}

#[test]
fn a_prepare_tells_everything_once_and_watches_at_home() {
    let (replies, away) = requests(&prepare(false));
    assert_eq!((replies, away.len()), (1, 1));
    let fence = b"*12\r\n$5\r\nfence\r\n$8\r\np1:5-0-7\r\n$4\r\np1:5\r\n$1\r\na\r\n$1\r\nk\r\n$1\r\n2\r\n$1\r\nb\r\n$3\r\nc d\r\n\
        $1\r\nX\r\n$4\r\nk\r\n1\r\n$1\r\nS\r\n$2\r\nk2\r\n";
    let sent = arguments(&away[0]);
    let first: [&[u8]; 6] = [b"p1:5-0-7", b"p1:5", b"a", b"k", b"1000", fence];
    assert_eq!(sent[..6], first);
    let rest: [&[u8]; 8] = [b"", b"2", b"b", b"c d", b"Xw", b"k\r\n1", b"S", b"k2"];
    assert_eq!(sent[6..], rest);
    let (replies, home) = requests(&prepare(true));
    assert_eq!((replies, home.len()), (4, 4));
    assert_eq!(home[0], away[0]);
    assert_eq!(words(&home[1]), ["UNWATCH"]);
    assert_eq!(words(&home[2]), ["WATCH", "__shoal:f:p1:5-0-7"]);
    assert_eq!(words(&home[3]), ["EXISTS", "__shoal:f:p1:5-0-7"]);
}

#[test]
fn a_commit_is_one_transaction() {
    let (replies, sent) = requests(&Call::Commit(commit()));
    assert_eq!((replies, sent.len()), (10, 10));
    assert_eq!(words(&sent[0]), ["MULTI"]);
    assert_eq!(words(&sent[1]), ["UNLINK", "k1", "k2", "k3", "k4"]);
    let value = ["RESTORE", "k1", "5", "\0D\r\n", "REPLACE", "ABSTTL"];
    assert_eq!(words(&sent[2]), value);
    assert_eq!(
        words(&sent[3]),
        ["RESTORE", "k3", "0", "E", "REPLACE", "ABSTTL"]
    );
    let mark = "__shoal:untouched:p1:5-0-7";
    assert_eq!(words(&sent[4]), ["SET", "k2", mark]);
    assert_eq!(words(&sent[5]), ["PING"]);
    assert_eq!(words(&sent[6]), ["GET", "x"]);
    // As sha1sum has it.
    let digest = b"ead9225f956c11dbe3b766df2f526997383c72cf";
    // -1: it does not expire, as a mark does not.
    let finish: [&[u8]; 23] = [
        b"p1:5-0-7",
        b"p1:5",
        RELEASED,
        b"w",
        b"b",
        b"k1",
        digest,
        b"5",
        b"b",
        b"b",
        b"k2",
        mark.as_bytes(),
        b"-1",
        b"-",
        b"b",
        b"k3",
        b"",
        b"-1",
        b"w",
        b"b",
        b"k4",
        b"",
        b"-1",
    ];
    assert_eq!(arguments(&sent[7]), finish);
    assert_eq!(words(&sent[8]), ["UNLINK", "__shoal:f:p1:5-0-7"]);
    assert_eq!(words(&sent[9]), ["EXEC"]);
}

#[test]
fn the_other_calls() {
    let (replies, sent) = requests(&Call::Join {
        pid: pid(),
        terms: "1".into(),
    });
    assert_eq!(replies, 1);
    assert_eq!(arguments(&sent[0]), [b"p1:5".as_slice(), b"1"]);
    let (_, sent) = requests(&gather());
    let claims: [&[u8]; 6] = [b"p1:5-0-7", b"9", b"Sw", b"x", b"Sw", b"y"];
    assert_eq!(arguments(&sent[0]), claims);
    let values = vec![
        (Arc::from(b"k1".as_slice()), Some(value(Some(8), b"D"))),
        (Arc::from(b"k2".as_slice()), None),
        (Arc::from(b"k3".as_slice()), Some(value(None, b"E"))),
    ];
    let (_, applied) = requests(&Call::Apply { tx: tx(), values });
    let told: [&[u8]; 11] = [
        b"p1:5-0-7",
        RELEASED,
        b"k1",
        b"8",
        b"D",
        b"k2",
        b"",
        b"",
        b"k3",
        b"0",
        b"E",
    ];
    assert_eq!(arguments(&applied[0]), told);
    let (_, freed) = requests(&of_tx(|tx| Call::Release { tx }));
    assert_eq!(arguments(&freed[0]), [b"p1:5-0-7", RELEASED]);
    let (_, sent) = requests(&of_tx(|tx| Call::Resolve { tx }));
    assert_eq!(arguments(&sent[0]), [b"p1:5-0-7", RELEASED]);
    let (_, sent) = requests(&of_tx(|tx| Call::Clean { tx }));
    assert_eq!(arguments(&sent[0]), [b"p1:5-0-7"]);
    let (replies, sent) = requests(&Call::Deregister { pid: pid() });
    assert_eq!((replies, sent.len()), (2, 2));
    assert_eq!(arguments(&sent[0]), [b"p1:5"]);
    assert_eq!(words(&sent[1]), ["CLIENT", "LIST"]);
    let (replies, sent) = requests(&kill(&[3, 40]));
    assert_eq!((replies, sent.len()), (3, 3));
    assert_eq!(words(&sent[1]), ["CLIENT", "KILL", "ID", "40"]);
    assert_eq!(arguments(&sent[2]), [b"p1:5"]);
    // A call without an answer would never end.
    assert_eq!(requests(&kill(&[])).0, 1);
}

#[test]
fn what_is_joined_is_told_whole() {
    let reply = b"*5\r\n$6\r\njoined\r\n:80\r\n:1\r\n*2\r\n$2\r\np1\r\n$4\r\np1:5\r\n*2\r\n*3\r\n$1\r\nt\r\n$1\r\nf\r\n*12\r\n\
        $1\r\nc\r\n$2\r\np1\r\n$1\r\nh\r\n$1\r\na\r\n$2\r\np1\r\n$1\r\nb\r\n$3\r\nk\r\n\r\n$1\r\nX\r\n$1\r\nk\r\n$1\r\nS\r\n\
        $1\r\na\r\n$1\r\nX\r\n*3\r\n$1\r\nu\r\n$1\r\nd\r\n*6\r\n$1\r\nc\r\n$2\r\np2\r\n$1\r\nh\r\n$1\r\na\r\n$2\r\np1\r\n$1\r\nb\r\n";
    let record = |tx: &str, kind, coordinator: &str, scope, keys| Record {
        tx: Tx(Arc::from(tx)),
        kind,
        coordinator: Pid(Arc::from(coordinator)),
        home: Arc::from("a"),
        participants: vec![Arc::from("b")],
        scope,
        keys,
    };
    let keys = vec![
        (Arc::from(b"\r\n".as_slice()), Mode::Exclusive),
        (Arc::from(b"".as_slice()), Mode::Shared),
    ];
    let joined = Outcome::Joined {
        dump_version: 80,
        evicts: true,
        members: vec![Pid(Arc::from("p1")), pid()],
        records: vec![
            record("t", Kind::Fence, "p1", Scope::All, keys),
            record("u", Kind::Decided, "p2", Scope::Keys, vec![]),
        ],
    };
    let call = Call::Join {
        pid: pid(),
        terms: "1".into(),
    };
    assert_eq!(decode(&call, reply), joined);
    assert_eq!(
        decode(&call, b"*2\r\n$5\r\nother\r\n$4\r\np2 2\r\n"),
        Outcome::Incompatible("p2 2".to_owned())
    );
}

#[test]
fn what_was_prepared_or_why_not() {
    let done =
        b"*4\r\n$8\r\nprepared\r\n*1\r\n$4\r\np1:5\r\n*0\r\n*2\r\n*2\r\n:7\r\n$2\r\n\r\n\r\n";
    let outcome = Outcome::Prepared {
        members: vec![pid()],
        silent: vec![],
        values: vec![Some(value(Some(7), b"\r\n")), None],
    };
    let case = |parts: &[&[u8]]| [&[done.as_slice()], parts].concat().concat();
    for null in [b"$-1\r\n".as_slice(), b"_\r\n"] {
        assert_eq!(decode(&prepare(false), &case(&[null])), outcome);
        let watched = case(&[null, b"+OK\r\n+OK\r\n", b":1\r\n"]);
        assert_eq!(decode(&prepare(true), &watched), outcome);
        let gone = case(&[null, b"+OK\r\n+OK\r\n", b":0\r\n"]);
        assert_eq!(decode(&prepare(true), &gone), Outcome::Gone);
        let unwatched = case(&[null, b"+OK\r\n-NOPERM\r\n", b":1\r\n"]);
        assert_eq!(decode(&prepare(true), &unwatched), Outcome::Gone);
    }
    let large = b"*2\r\n$5\r\nlarge\r\n:90000\r\n";
    let cases: [(&[u8], Outcome); 4] = [
        (b"*1\r\n$8\r\nstranger\r\n", Outcome::Stranger),
        (large, Outcome::TooLarge(90000)),
        (
            b"*2\r\n$8\r\nconflict\r\n$8\r\np1:5-0-7\r\n",
            Outcome::Conflict(tx()),
        ),
        (
            b"-OOM no memory\r\n",
            Outcome::Failed(b"-OOM no memory".to_vec()),
        ),
    ];
    for (reply, outcome) in cases {
        assert_eq!(decode(&prepare(false), reply), outcome);
        let at_home = [reply, b"+OK\r\n+OK\r\n:0\r\n"].concat();
        assert_eq!(decode(&prepare(true), &at_home), outcome);
    }
    let values = b"*2\r\n$6\r\nvalues\r\n*2\r\n$-1\r\n*2\r\n:-1\r\n$1\r\nD\r\n";
    assert_eq!(
        decode(&gather(), values),
        Outcome::Gathered(vec![None, Some(value(None, b"D"))])
    );
    assert_eq!(decode(&gather(), large), Outcome::TooLarge(90000));
    assert_eq!(decode(&gather(), b"*1\r\n$4\r\ngone\r\n"), Outcome::Gone);
}

const QUEUED: &[u8] = b"+QUEUED\r\n";

/// Replies to `commit()`: to MULTI, to the first of the client's requests, to EXEC; all else was queued.
fn commit_replies(multi: &[u8], asked: &[u8], exec: &[u8]) -> Vec<u8> {
    let (before, behind) = (QUEUED.repeat(4), QUEUED.repeat(3));
    [multi, &before, asked, &behind, exec].concat()
}

#[test]
fn a_commit_gives_the_replies_as_they_are() {
    let exec = b"*8\r\n:0\r\n+OK\r\n+OK\r\n+OK\r\n%1\r\n+f\r\n,1.5\r\n-WRONGTYPE no\r\n*3\r\n*2\r\n:-1\r\n$1\r\nD\r\n:0\r\n$-1\r\n:0\r\n";
    let outcome = decode(
        &Call::Commit(commit()),
        &commit_replies(b"+OK\r\n", QUEUED, exec),
    );
    assert_eq!(
        outcome,
        Outcome::Committed {
            replies: b"%1\r\n+f\r\n,1.5\r\n-WRONGTYPE no\r\n".to_vec(),
            written: vec![
                Written::Now(Some(value(None, b"D"))),
                Written::Same,
                Written::Now(None)
            ],
        }
    );
}

#[test]
fn a_commit_that_was_not_done() {
    let call = Call::Commit(commit());
    for null in [b"*-1\r\n".as_slice(), b"_\r\n"] {
        let replies = commit_replies(b"+OK\r\n", QUEUED, null);
        assert_eq!(decode(&call, &replies), Outcome::NotCommitted);
    }
    let abort = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
    let refused = |text: &[u8]| Outcome::Refused(text.to_vec());
    let replies = commit_replies(b"+OK\r\n", b"-OOM full\r\n", abort);
    assert_eq!(decode(&call, &replies), refused(b"-OOM full"));
    let replies = commit_replies(b"+OK\r\n", QUEUED, b"-EXECABORT OOM\r\n");
    assert_eq!(decode(&call, &replies), refused(b"-EXECABORT OOM"));
    let replies = commit_replies(
        b"-NOPERM no multi\r\n",
        b"+PONG\r\n",
        b"-ERR EXEC without MULTI\r\n",
    );
    assert_eq!(decode(&call, &replies), refused(b"-NOPERM no multi"));
}

#[test]
fn a_commit_with_a_lost_value_is_never_taken_for_done() {
    let call = Call::Commit(commit());
    let exec =
        b"*8\r\n:0\r\n+OK\r\n-ERR Bad data format\r\n+OK\r\n+PONG\r\n$-1\r\n*3\r\n$-1\r\n$-1\r\n:0\r\n:0\r\n";
    let replies = commit_replies(b"+OK\r\n", QUEUED, exec);
    let failed = Outcome::Failed(b"-ERR Bad data format".to_vec());
    assert_eq!(decode(&call, &replies), failed);
}

#[test]
fn a_request_that_was_not_queued_keeps_its_error() {
    let exec = b"*7\r\n:0\r\n+OK\r\n+OK\r\n+OK\r\n$1\r\nv\r\n*3\r\n$-1\r\n$-1\r\n:0\r\n:0\r\n";
    let replies = commit_replies(b"+OK\r\n", b"-ERR not inside MULTI\r\n", exec);
    let Outcome::Committed { replies, .. } = decode(&Call::Commit(commit()), &replies) else {
        panic!("not committed");
    };
    assert_eq!(replies, b"-ERR not inside MULTI\r\n$1\r\nv\r\n");
}

#[test]
fn what_was_decided() {
    let resolve = of_tx(|tx| Call::Resolve { tx });
    let reply = b"*2\r\n$9\r\ncommitted\r\n*2\r\n*3\r\n$1\r\nb\r\n$1\r\nk\r\n*2\r\n:1\r\n$1\r\nD\r\n*3\r\n$1\r\nc\r\n$1\r\nl\r\n$-1\r\n";
    let held = |shard: &str, key: &[u8], value| (Arc::from(shard), (Arc::from(key), value));
    let values = vec![
        held("b", b"k", Some(value(Some(1), b"D"))),
        held("c", b"l", None),
    ];
    assert_eq!(decode(&resolve, reply), Outcome::Resolved(Some(values)));
    assert_eq!(
        decode(&resolve, b"*1\r\n$6\r\nundone\r\n"),
        Outcome::Resolved(None)
    );
    let release = of_tx(|tx| Call::Release { tx });
    assert_eq!(decode(&release, b":1\r\n"), Outcome::Done(true));
    assert_eq!(decode(&release, b":0\r\n"), Outcome::Done(false));
    let clean = of_tx(|tx| Call::Clean { tx });
    assert_eq!(decode(&clean, b"$-1\r\n"), Outcome::Done(true));
}

#[test]
fn the_connections_of_a_member_and_no_other() {
    let list = "id=3 addr=127.0.0.1:5 name=shoal:p1:5 db=0\nid=4 name=shoal:p1:50 db=0\nid=5 name= db=0\nid=66 a=b name=shoal:p1:5\n";
    let call = Call::Deregister { pid: pid() };
    let expected = Outcome::Connections(vec![3, 66]);
    let plain = format!(":1\r\n${}\r\n{list}\r\n", list.len());
    assert_eq!(decode(&call, plain.as_bytes()), expected);
    let for_people = format!(":0\r\n={}\r\ntxt:{list}\r\n", list.len() + 4);
    assert_eq!(decode(&call, for_people.as_bytes()), expected);
    let refused = Outcome::Failed(b"-NOPERM".to_vec());
    assert_eq!(decode(&call, b":1\r\n-NOPERM\r\n"), refused);
    let killed = b":1\r\n-ERR No such client\r\n$-1\r\n";
    assert_eq!(decode(&kill(&[3, 4]), killed), Outcome::Killed);
    let unlisted = b":1\r\n:1\r\n-NOPERM\r\n";
    for replies in [b":1\r\n-NOPERM\r\n$-1\r\n".as_slice(), unlisted] {
        assert_eq!(decode(&kill(&[3, 4]), replies), refused);
    }
    assert_eq!(decode(&kill(&[]), b"_\r\n"), Outcome::Killed);
}

#[test]
fn messages_out_of_turn_are_passed_over() {
    let release = of_tx(|tx| Call::Release { tx });
    let replies = b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n:1\r\n";
    assert_eq!(decode(&release, replies), Outcome::Done(true));
}

fn all_calls() -> Vec<Call> {
    vec![
        Call::Join {
            pid: pid(),
            terms: "1".into(),
        },
        prepare(false),
        prepare(true),
        gather(),
        Call::Commit(commit()),
        of_tx(|tx| Call::Apply { tx, values: vec![] }),
        of_tx(|tx| Call::Resolve { tx }),
        Call::Deregister { pid: pid() },
        kill(&[1]),
    ]
}

fn messages() -> Vec<Message> {
    vec![
        Message::Fence {
            tx: tx(),
            coordinator: pid(),
            home: Arc::from("a"),
            participants: vec![Arc::from("b"), Arc::from("")],
            scope: Scope::All,
            keys: vec![
                (Arc::from(b"\r\n\x00\xff".as_slice()), Mode::Shared),
                (Arc::from(b"".as_slice()), Mode::Exclusive),
            ],
        },
        Message::Fenced {
            tx: tx(),
            pid: pid(),
        },
        Message::Released { tx: tx() },
        Message::Ask { tx: tx() },
        Message::Alive { tx: tx() },
    ]
}

#[test]
fn messages_arrive_as_they_were_sent_or_not_at_all() {
    for message in messages() {
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes), Some(message));
        for cut in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..cut]), None);
        }
        assert_eq!(Message::decode(&[&bytes[..], b"+"].concat()), None);
    }
    let lies =
        b"*6\r\n$5\r\nfence\r\n$1\r\nt\r\n$1\r\np\r\n$1\r\na\r\n$1\r\nk\r\n$12\r\n999999999999\r\n";
    assert_eq!(Message::decode(lies), None);
}

proptest! {
    #[test]
    fn nothing_that_a_server_says_is_fatal(pieces in prop::collection::vec(prop::sample::select(vec![
        "*2\r\n", "*3\r\n", "*-1\r\n", "_\r\n", "$-1\r\n", "$8\r\nprepared\r\n", "$6\r\njoined\r\n", "$9\r\ncommitted\r\n",
        "+OK\r\n", "+QUEUED\r\n", ":1\r\n", ":-9\r\n", "-ERR x\r\n", "%1\r\n", ">1\r\n", "|1\r\n", "$1\r\nf\r\n", "=5\r\ntxt:a\r\n",
        "*0\r\n", "=1\r\na\r\n", "$99\r\n", "*99999999\r\n", "\r\n", "x",
    ]), 0..24)) {
        let replies = pieces.concat();
        for call in all_calls() {
            decode(&call, replies.as_bytes());
        }
        Message::decode(replies.as_bytes());
    }

    #[test]
    fn cut_replies_are_failures(cut in 0usize..40) {
        let whole = b"*3\r\n$8\r\nprepared\r\n*1\r\n$4\r\np1:5\r\n*2\r\n_\r\n_\r\n";
        let is_failed = matches!(decode(&prepare(false), &whole[..cut]), Outcome::Failed(_));
        prop_assert!(is_failed);
    }
}

#[test]
fn a_guard_is_one_line_behind_the_flags() {
    let guarded = |script: &str| String::from_utf8(guarded(script.as_bytes())).unwrap();
    let guard = guarded("");
    assert!(guard.starts_with("local redis = ") && guard.ends_with("; "));
    assert_eq!(guard.lines().count(), 1);
    assert_eq!(guarded("return 1\n"), format!("{guard}return 1\n"));
    let flags = "#!lua flags=no-writes\n";
    assert_eq!(
        guarded(&format!("{flags}return 1")),
        format!("{flags}{guard}return 1")
    );
    // No line follows: the server says what is wrong with it.
    assert!(guarded("#!lua").starts_with("#!lua"));
}

fn sent(requests: &[&[&str]]) -> Vec<u8> {
    let mut out = Vec::new();
    for request in requests {
        let words: Vec<&[u8]> = request.iter().map(|word| word.as_bytes()).collect();
        shoal_core::protocol::encode::request(&mut out, &words);
    }
    out
}

#[test]
fn scripts_among_the_requests_are_held_and_nothing_else_changes() {
    let sha = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    let known = |named: &[u8; 20]| {
        let is_it = named[..2] == [0xe0, 0xe1];
        is_it.then(|| Arc::from(b"return 1".as_slice()))
    };
    let guard = String::from_utf8(guarded(b"")).unwrap();
    let (one, two) = (format!("{guard}return 1"), format!("{guard}return 2"));
    let requests = sent(&[
        &["SET", "a", "EVAL"],
        &["eval", "return 2", "1", "k\r\n", "x"],
        &["GET", "b"],
        &["EVALSHA", sha, "0"],
        &["EVAL_RO", "return 2", "2", "a", "b"],
    ]);
    let expected = sent(&[
        &["SET", "a", "EVAL"],
        &["EVAL", &two, "1", "k\r\n", "x"],
        &["GET", "b"],
        &["EVAL", &one, "0"],
        &["EVAL_RO", &two, "2", "a", "b"],
    ]);
    let mut shown = Vec::new();
    let held = hold(&requests, known, |script| shown.push(script), false);
    assert_eq!(held.unwrap(), Some(expected));
    let texts: Vec<&[u8]> = shown.iter().map(AsRef::as_ref).collect();
    assert_eq!(texts, [b"return 2", b"return 1", b"return 2"]);
    let none = |_: Arc<[u8]>| ();
    let plain = sent(&[&["SET", "a", "1"], &["GET", "b"]]);
    assert_eq!(hold(&plain, known, none, false).unwrap(), None);
    let stranger = sent(&[&["EVALSHA", "ffffffffffffffffffffffffffffffffffffffff", "0"]]);
    let error = hold(&stranger, known, none, true).unwrap_err();
    assert!(error.text().starts_with("NOSCRIPT"));
    let function = sent(&[&["FCALL", "f", "1", "k"]]);
    assert_eq!(hold(&function, known, none, true).unwrap(), None);
    let error = hold(&function, known, none, false).unwrap_err();
    assert!(error.text().contains("cross_shard_functions = true"));
}
