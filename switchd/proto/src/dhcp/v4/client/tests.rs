//! RFC 2131 4.4, clause by clause, on a virtual clock.
