//! switchd
