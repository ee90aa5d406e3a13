//! Whole sessions of a synthetic head: honest ones pass, attacks do not.

mod attacks;
mod honest;
mod laws;
mod show;
mod witnesses;
