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
mod lists;
mod models;
mod rotation;
mod secrets;
mod slack;
mod support;
mod table;
mod tenant_policy;
mod tokens;
mod waiting;
mod webhooks;
mod wire;
mod workers;
