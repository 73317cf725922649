//! The client against sockets that are closed on it.

mod lost;
