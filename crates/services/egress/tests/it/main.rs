//! The outbound client against real sockets on loopback, and servers that misbehave on purpose.

mod addresses;
mod faults;
mod house;
mod redirects;
mod replies;
mod reuse;
mod streams;
mod tls;
