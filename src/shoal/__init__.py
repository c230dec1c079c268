"""Shoal makes many Redis or Valkey servers behave as one. This package is its control plane.

The data plane (`shoal._core`, Rust) moves the bytes; this package decides: it reads the configuration
(`config`), says which shard holds which slot (`topology`), runs the proxy (`serve`), the embedded servers
(`fleet`) and the admin port (`admin`), and offers all of it on the command line (`cli`). `Ring` tells programs where
keys go.

The public names are those of `__all__`. Nothing heavy is imported here, so that `shoal --help` is quick.
"""

from shoal.distribution import Distribution, SlotRange
from shoal.errors import (
    BinaryMissingError,
    ConfigError,
    CoreMissingError,
    DataDirectoryError,
    FleetError,
    ListenError,
    NoShardError,
    ShoalError,
    TopologyError,
    UsageError,
)
from shoal.ring import Ring
from shoal.topology import Keyspace, Shard, Topology, User, deal_slots

__all__ = [
    "BinaryMissingError",
    "ConfigError",
    "CoreMissingError",
    "DataDirectoryError",
    "Distribution",
    "FleetError",
    "Keyspace",
    "ListenError",
    "NoShardError",
    "Ring",
    "Shard",
    "ShoalError",
    "SlotRange",
    "Topology",
    "TopologyError",
    "UsageError",
    "User",
    "deal_slots",
]
