//! `MULTI` and what belongs to it.

use bytes::Bytes;

use super::rest;
use crate::resp::refusal::{Answer, refused};
use crate::resp::reply::{OK, Reply};
use crate::resp::session::Session;
use crate::resp::transaction::CommandQueue;

pub(in crate::resp) fn multi(session: &mut Session, _args: &[Bytes]) -> Answer {
    if session.queue.is_some() {
        return refused("ERR MULTI calls can not be nested");
    }
    session.queue = Some(CommandQueue::default());
    Ok(OK)
}

pub(in crate::resp) fn exec(session: &mut Session, _args: &[Bytes]) -> Answer {
    session.exec()
}

pub(in crate::resp) fn discard(session: &mut Session, _args: &[Bytes]) -> Answer {
    if session.queue.take().is_none() {
        return refused("ERR DISCARD without MULTI");
    }
    session.forget_watched();
    Ok(OK)
}

pub(in crate::resp) fn watch(session: &mut Session, args: &[Bytes]) -> Answer<Reply> {
    if session.queue.is_some() {
        return refused("ERR WATCH inside MULTI is not allowed");
    }
    for key in rest(args, 1) {
        session.watch(key)?;
    }
    Ok(OK)
}

pub(in crate::resp) fn unwatch(session: &mut Session, _args: &[Bytes]) -> Answer {
    session.forget_watched();
    Ok(OK)
}
