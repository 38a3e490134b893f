//! switchd-store
