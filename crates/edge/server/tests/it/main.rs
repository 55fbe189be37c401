//! The server as its callers meet it: over sockets.

mod abuse;
mod acts;
mod contract;
mod desk;
mod hostile;
mod life;
mod support;
mod table;
mod waiting;
mod workers;
