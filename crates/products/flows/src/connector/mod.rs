//! Connectors: what an outside system can be asked to do, as data, and how one call is made of it.
//!
//! A connector is a manifest and an installation. The manifest is written once per kind of system and says which actions
//! there are: method, path, parameters, what counts as success, and above all what a repetition would do
//! ([`manifest::Effect`]). The installation belongs to a tenant and says where the system is and which secret opens it.
//! A workflow refers to an installation by name and never sees address or secret.
//!
//! A reply is not believed because it is a 200. ServiceNow answers 200 to a PATCH whose fields it silently dropped, so an
//! action names the fields that must read back as they were written, and a difference is a failure.
//!
//! | module | what it is |
//! |---|---|
//! | [`manifest`] | the typed manifest and its checks |
//! | [`placeholder`] | `{name}` in paths, queries and bodies |
//! | [`request`] | parameters in, one HTTP request out |
//! | [`response`] | one HTTP reply in, an output or a reason out |
//! | [`change`] | telling changes of others from our own, by their numbers |
//! | [`login`] | who we are: passwords, and tokens that are fetched |
//! | [`poll`] | asking a system for what has changed, beside what it says by itself |
//! | [`tool`] | what people have agreed that each tool is |
//! | [`record`] | installations and their versions, as kept |
//!
//! Rules for those who add to it: nothing here calls an action ([`login`] fetches tokens, [`poll`] looks); a manifest can widen neither where a call goes nor what it
//! carries beyond its parameters; values are data and are encoded for the place where they stand.

pub mod change;
pub mod login;
pub mod manifest;
pub mod placeholder;
pub mod poll;
pub mod record;
pub mod request;
pub mod response;
pub mod routes;
pub mod tool;
pub mod verbs;
