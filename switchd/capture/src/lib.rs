//! switchd-capture
