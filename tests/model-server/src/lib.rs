//! ms
