//! End-to-end tests: the built programs, a real engine, a real sshd, a real agent. See `tests/it`.
