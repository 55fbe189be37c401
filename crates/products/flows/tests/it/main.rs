//! Integration tests of workflows: the shipped examples, and runs through a whole house with a ticket system on a socket.

mod agents;
mod artifacts;
mod crashes;
mod deliveries;
mod desk;
mod examples;
mod guards;
mod house;
mod logins;
mod looking;
mod machine;
mod mortal;
mod polls;
mod projects;
mod runs;
mod strands;
mod table;
mod tools;
