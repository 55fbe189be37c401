//! The traits through which products use one another.
//!
//! Products never import each other. What one needs of another stands here as a trait over plain data: a workflow needs a
//! model called, it does not need to know who calls it or how. Whoever implements a trait is chosen where the house is
//! put together, in the server.

pub mod models;
