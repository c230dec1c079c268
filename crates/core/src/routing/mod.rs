//! Pure decisions: which shard holds a key, what to do with a request, how several replies become one.

pub mod acl;
pub mod acl_rules;
pub mod administration;
pub mod admission;
pub mod affinity;
pub mod claims;
pub mod distribution;
pub mod hash;
pub mod key_hash;
pub mod memcached;
pub mod merge;
pub mod merge_report;
pub mod placement;
pub mod route;
pub mod sort_patterns;
pub mod tag;
pub mod tls;
pub mod topology;
