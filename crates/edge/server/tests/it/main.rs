//! The server as its callers meet it: over sockets.

mod abuse;
mod acts;
mod backups;
mod budgets;
mod contract;
mod desk;
mod faults;
mod hostile;
mod life;
mod models;
mod rotation;
mod slack;
mod support;
mod table;
mod tenant_policy;
mod waiting;
mod webhooks;
mod wire;
mod workers;
