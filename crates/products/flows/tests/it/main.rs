//! Integration tests of workflows: the shipped examples.

mod examples;
