//! Real meta servers, alone and in groups, as clients and daemons meet them. One program, because each would link all of the server.

mod api;
mod capacity;
mod common;
mod group;
mod hostile;
mod members;
mod metrics;
mod process;
mod recover;
mod repair;
mod requests;
mod sample;
mod successor;
mod upgrade;
mod versions;
