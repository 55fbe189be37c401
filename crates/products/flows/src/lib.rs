//! Governed workflows.

pub mod schema;
pub mod template;
pub mod yaml;
