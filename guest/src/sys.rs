//! The few calls that no crate makes safe.

#![allow(unsafe_code)]

use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::unistd::{ForkResult, fork as nix_fork};

/// The first act of every mode: no process of the same uid reads or writes our memory, and no
/// descriptor that was left open reaches a child.
pub fn harden() {
    if prctl::set_dumpable(false).is_err() {
        std::process::exit(126);
    }
    // SAFETY: the call only sets a flag of descriptors; it closes none.
    // A kernel before 5.11 lacks it: there sshd's and the engine's own closing has to do.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// Forks a process that has one thread.
pub fn fork() -> nix::Result<ForkResult> {
    // SAFETY: only the relay and the carrier start threads, and neither forks; so the child finds
    // no lock that another thread held.
    unsafe { nix_fork() }
}

/// Every signal, with those that a C library keeps for itself and leaves out of "all": an ancestor
/// (the engine's, on some hosts) may have left one of them ignored.
pub fn every_signal() -> SigSet {
    // SAFETY: a signal set is an array of integers, each bit a signal; all ones is a valid value.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        std::ptr::write_bytes(set.as_mut_ptr(), 0xff, 1);
        SigSet::from_sigset_t_unchecked(set.assume_init())
    }
}
