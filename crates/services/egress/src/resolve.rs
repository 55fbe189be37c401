//! From a name to addresses, once per request.
//!
//! A name is never handed to anything that would resolve it again: what this returns is judged as a whole and
//! then connected to as an address. That is what makes DNS rebinding harmless (first answer public, second
//! answer private): there is no second question.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

/// The most addresses one name may have; a name with more is refused whole.
pub const MAX_ADDRESSES: usize = 64;

/// The future of [`Resolve::resolve`].
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Something that resolves names. Tests bring their own.
pub trait Resolve: Send + Sync {
    /// Every address that the name stands for, best first. The caller judges them and sets the time limit.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

/// The operating system's resolver, with its hosts file, search domains and order of preference.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            // The port plays no part in resolving; any will do.
            let found = tokio::net::lookup_host((host, 443)).await?;
            // One more than allowed, so that the caller sees the excess instead of a silent cut.
            Ok(found.map(|address| address.ip()).take(MAX_ADDRESSES + 1).collect())
        })
    }
}
