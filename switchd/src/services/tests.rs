//! The thread as workers and engine see it.
