//! Tests of the models crate from outside, in one binary.

mod baseline;
mod brakes;
mod check;
mod golden;
mod hostile;
mod money;
mod prompt;
