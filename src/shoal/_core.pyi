"""The binding to the data plane: the contract that `crates/python` fulfils and stubtest proves.

Values cross by copy; the core never holds a Python object. Every call that waits releases the GIL.
Specs are read by attribute, so the frozen dataclasses of `shoal.topology` can be passed as they are.
"""

from collections.abc import Sequence
from typing import Protocol, final

class ShardSpec(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def host(self) -> str: ...  # name or address, without brackets; or the path of a socket, which begins with "/"
    @property
    def port(self) -> int: ...  # 0 for a socket
    @property
    def weight(self) -> int: ...  # its share; 1 is ordinary
    @property
    def ring_name(self) -> str: ...  # what a ring hashes for it
    @property
    def username(self) -> str | None: ...  # sent to the server with AUTH
    @property
    def password(self) -> str | None: ...

class SlotRangeSpec(Protocol):
    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...  # inclusive
    @property
    def shard(self) -> int: ...  # index into KeyspaceSpec.shards

class RangePartSpec(Protocol):
    @property
    def first(self) -> str | None: ...  # None: right after the part before it, or from the beginning
    @property
    def last(self) -> str | None: ...  # inclusive; None: to the end
    @property
    def shard(self) -> int: ...  # index into KeyspaceSpec.shards

class RangeTableSpec(Protocol):
    @property
    def prefix(self) -> str: ...  # keys that begin with it; the rest is the id
    @property
    def numeric(self) -> bool: ...  # ids are compared as numbers, else as bytes
    @property
    def parts(self) -> Sequence[RangePartSpec]: ...  # ascending

class DistributionSpec(Protocol):
    @property
    def kind(self) -> str: ...  # one of shoal.distribution.KINDS
    @property
    def hash(self) -> str: ...  # ketama, modula: the name of the hash function
    @property
    def signed_char(self) -> bool: ...  # ketama, modula: bytes from 0x80 on are negative, as where the writer ran
    @property
    def slots(self) -> Sequence[SlotRangeSpec]: ...  # slots: together they cover 0..16383 once; codis: 0..1023
    @property
    def tables(self) -> Sequence[RangeTableSpec]: ...  # range
    @property
    def fallback(self) -> DistributionSpec | None: ...  # range: for keys that no table holds

class EjectionSpec(Protocol):
    @property
    def after(self) -> int: ...  # failures in a row
    @property
    def retry_after_ms(self) -> int: ...
    @property
    def on_replies(self) -> bool: ...  # -OOM, -BUSY and -LOADING are failures too
    @property
    def shards_max(self) -> int: ...  # ejected at one time
    @property
    def readmit_ms(self) -> int: ...  # over which its keys come back to it

class UserSpec(Protocol):
    @property
    def name(self) -> str: ...  # "default" is the user of a plain AUTH <password>
    @property
    def password(self) -> str: ...
    @property
    def acl(self) -> str | None: ...  # rules in the servers' language; None: may do everything

class ClientTlsSpec(Protocol):
    @property
    def listen_host(self) -> str | None: ...  # a listener beside the keyspace's own; None: that one speaks TLS
    @property
    def listen_port(self) -> int: ...
    @property
    def cert(self) -> str: ...  # file
    @property
    def key(self) -> str: ...  # file
    @property
    def client_ca(self) -> str | None: ...  # file
    @property
    def client_auth(self) -> str: ...  # "none" | "optional" | "required"
    @property
    def min_version(self) -> str: ...  # "1.2" | "1.3"

class ServerTlsSpec(Protocol):
    @property
    def ca(self) -> str | None: ...  # file; needed unless verify is "none"
    @property
    def cert(self) -> str | None: ...  # file, with key
    @property
    def key(self) -> str | None: ...  # file, with cert
    @property
    def server_name(self) -> str | None: ...  # None: the host of each shard
    @property
    def verify(self) -> str: ...  # "full" | "ca" | "none"
    @property
    def min_version(self) -> str: ...  # "1.2" | "1.3"

class KeyspaceSpec(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def listen_host(self) -> str: ...
    @property
    def listen_port(self) -> int: ...  # 0: any free port, see Proxy.addresses; or a socket
    @property
    def listen_mode(self) -> int | None: ...  # permissions of a socket
    @property
    def backlog(self) -> int: ...
    @property
    def reuse_port(self) -> bool: ...
    @property
    def protocol(self) -> str: ...  # "redis" | "memcached"
    @property
    def ejection(self) -> EjectionSpec | None: ...  # None: a store; else a cache
    @property
    def connections(self) -> int: ...  # to each shard, for each worker, database and protocol
    @property
    def preconnect(self) -> bool: ...
    @property
    def tcp_keepalive(self) -> bool: ...
    @property
    def probe_interval_ms(self) -> int: ...
    @property
    def database(self) -> int: ...  # in which a client begins
    @property
    def home_shard(self) -> int: ...  # where scripts run that name no key: an index of `shards`
    @property
    def shards(self) -> Sequence[ShardSpec]: ...
    @property
    def distribution(self) -> DistributionSpec: ...
    @property
    def hash_tag(self) -> str: ...  # two characters, or "none", "codis", "redis-rb"
    @property
    def affinity(self) -> Sequence[str]: ...
    @property
    def users(self) -> Sequence[UserSpec]: ...  # empty: clients need no AUTH
    @property
    def unknown_commands_first_key(self) -> bool: ...
    @property
    def transactions_per_shard(self) -> bool: ...  # keys on several shards: split instead of refused
    @property
    def cross_shard(self) -> bool: ...  # keys on several shards: one operation where the command can be
    @property
    def multi_key_strict(self) -> bool: ...  # also what could be split
    @property
    def cross_shard_functions(self) -> bool: ...  # also functions with declared keys
    @property
    def debug_commands(self) -> bool: ...  # DEBUG OBJECT, SLEEP and ERROR are let through
    @property
    def timeout_ms(self) -> int: ...  # waiting for a shard's reply; 0 waits for ever
    @property
    def max_clients(self) -> int: ...
    @property
    def slowlog_log_slower_than(self) -> int: ...  # microseconds; 0: every request, -1: none
    @property
    def slowlog_max_len(self) -> int: ...
    @property
    def tls(self) -> ClientTlsSpec | None: ...  # of its clients
    @property
    def server_tls(self) -> ServerTlsSpec | None: ...  # of its connections to shards

@final
class Event:
    """One thing worth a log line."""
    @property
    def unix_ms(self) -> int: ...
    @property
    def level(self) -> str: ...  # "debug" | "info" | "warning" | "error"
    @property
    def name(self) -> str: ...  # kebab-case, e.g. "client-closed", "shard-down"
    @property
    def fields(self) -> list[tuple[str, str]]: ...  # in order; e.g. ("reason", "protocol-error")

@final
class MetricDeclaration:
    @property
    def name(self) -> str: ...  # "shoal_requests_total"
    @property
    def kind(self) -> str: ...  # "counter" | "gauge" | "histogram"
    @property
    def help(self) -> str: ...
    @property
    def labels(self) -> list[str]: ...  # label names, e.g. ["keyspace", "shard"]

@final
class Sample:
    """One value of one metric, added up over all workers."""
    @property
    def metric(self) -> int: ...  # index into metric_declarations()
    @property
    def labels(self) -> list[str]: ...  # values, in the order of the declaration's label names
    @property
    def value(self) -> int: ...  # counters and gauges; for a histogram the number of observations
    @property
    def sum_us(self) -> int: ...  # histograms of time: the sum, in microseconds; else 0
    @property
    def buckets(self) -> list[int]: ...  # histograms: cumulative counts for histogram_bounds_us(), without +Inf

@final
class ShardStatus:
    @property
    def keyspace(self) -> str: ...
    @property
    def shard(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def state(self) -> str: ...  # "idle" | "connecting" | "up" | "down" | "ejected" (worst of all workers)
    @property
    def reason(self) -> str: ...  # why it is down, "" otherwise

@final
class TlsStatus:
    """What one side of one keyspace uses for new connections."""
    @property
    def keyspace(self) -> str: ...
    @property
    def side(self) -> str: ...  # "clients" | "servers"
    @property
    def cert(self) -> str: ...  # file of our certificate; "": we show none
    @property
    def expires(self) -> int | None: ...  # when that expires, in seconds since 1970
    @property
    def problem(self) -> str: ...  # why a reload did not renew it; "": it did

@final
class Proxy:
    """The running data plane: worker threads and their sockets."""
    def __new__(cls, keyspaces: Sequence[KeyspaceSpec], workers: int) -> Proxy:
        """Binds every listener and starts the workers.

        Raises OSError (errno set, the address in the text) when a listener cannot be bound, ValueError for a topology
        that the core refuses, or whose certificates cannot be used. Nothing runs when it raises.
        """
    def addresses(self) -> list[tuple[str, str]]:
        """(keyspace, "host:port") as bound: one of each keyspace in order, then the listeners for TLS beside those."""
    def samples(self) -> list[Sample]: ...
    def shards(self) -> list[ShardStatus]: ...
    def tls(self) -> list[TlsStatus]:
        """Every keyspace and side that has TLS."""
    def reload_tls(self) -> list[TlsStatus]:
        """Reads all files of TLS again, for new connections; what cannot be used stays as it is. Releases the GIL."""
    def next_events(self, timeout_ms: int) -> list[Event]:
        """Waits for events, at most so long; empty when none came. Never raises."""
    def events_dropped(self) -> int:
        """Events lost because nobody fetched them in time."""
    def stop(self, drain_ms: int) -> bool:
        """Stops accepting, waits for requests in flight, closes. True when all were answered in time. Idempotent."""

@final
class Ring:
    """Where the keys of one keyspace go; the same arithmetic as the proxy's, without one."""
    def __new__(cls, keyspace_spec: KeyspaceSpec) -> Ring:
        """Raises ValueError for a keyspace that the core refuses; the text says why."""
    def locate(self, key: bytes) -> tuple[bytes, str, int | None, int | None]:
        """(hashed, word, number, shard): what is hashed for the key; what that gives: "slot" or "hash" with its
        number, or "key" and None where no hash decides; the index of the shard, None when no range holds the key."""
    def shards_of(self, keys: Sequence[bytes]) -> list[int | None]:
        """For each key the index of its shard, None when no range holds it. Releases the GIL."""
    def shares(self) -> list[float] | None:
        """For each shard its share of the hash space; None where that cannot be said (ranges)."""

def hash_of(name: str, key: bytes, signed_char: bool) -> int:
    """One of Twemproxy's hash functions. Raises ValueError for a name that it does not have."""

def metric_declarations() -> list[MetricDeclaration]: ...
def histogram_bounds_us() -> list[int]: ...
def limits() -> list[tuple[str, int, str, str]]:
    """(name, value, unit, reason) of every bound of the core."""

def errors() -> list[tuple[str, str]]:
    """(wire text pattern, when it is given) of every error of the core."""

def commands() -> list[tuple[str, str, str, str]]:
    """(full name, policy, atomicity grade, refusal text or "") of every command and subcommand known."""

def text_commands() -> list[tuple[str, str]]:
    """(name, what shoal does with it) of every memcached command known."""

def check_client_tls(spec: ClientTlsSpec) -> tuple[str, str, int | None]:
    """(setting, what is wrong with it, when our certificate expires): reads the files; "" when nothing is wrong."""

def check_server_tls(spec: ServerTlsSpec) -> tuple[str, str, int | None]:
    """As check_client_tls."""

def check_affinity(pattern: str) -> str | None:
    """None when the rule is usable, else what is wrong with it."""

def check_acl(rules: str) -> tuple[str, str, bool]:
    """(rule, what is wrong with it, whether scripts pass by the rules): two empty texts when the rules can be used."""

def locate(key: bytes, affinity: Sequence[str]) -> tuple[bytes, int]:
    """(hashed, slot): what is hashed for the key, and its slot. Raises ValueError for a bad rule."""

def version() -> str: ...
