//! Followers: servers that follow another server, on real connections.

mod cuts;
mod leaders;
mod ports;
mod promotion;
mod reading;
mod support;
