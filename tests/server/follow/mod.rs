//! Followers: servers that follow another server, on real connections.

mod cuts;
mod history;
mod leaders;
mod ports;
mod promotion;
mod reading;
mod sizes;
mod support;
