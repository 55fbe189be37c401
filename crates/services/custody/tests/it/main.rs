//! Custody from outside: key files on a disk, and secrets through their verbs into a real store and back.

mod house;
mod keyring;
mod secrets;
