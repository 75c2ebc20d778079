//! The server as its clients see it: real connections to servers on free ports of this machine.

mod dialects;
mod ends;
mod feed;
mod follow;
mod limits;
mod many;
mod meta;
mod own;
mod security;
mod support;
