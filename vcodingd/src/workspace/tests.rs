//! Workspaces on the fake provider: every operation, cut off before and after every step.

mod destroyed;
mod full;
mod kill;
mod life;
mod lost;
mod many;
mod world;
