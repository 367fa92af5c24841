//! How a client is let in: CONNECT, who it is, CONNACK.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    Event,
    connection::{Connection, RESTING_BUFFER, heard},
    end::End,
    listener::{GREETING_S, Shared},
    packet::{self, Connect, Fault, Packet},
    payload,
    rules::{self, Refusal, Role},
    seats::{Holder, Seat},
    stream::Stream,
};
use crate::{district::button::ButtonStatus, host::clock};

/// Reads CONNECT, decides, answers. On refusal gives the client id it claimed, for the log.
pub(super) async fn greet(
    mut stream: Stream,
    peer: SocketAddr,
    shared: &Arc<Shared>,
) -> Result<Connection, (String, End)> {
    let certificate = stream.common_name();
    let mut input = BytesMut::with_capacity(RESTING_BUFFER);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(GREETING_S);
    let late = || (String::new(), End::NoConnect(GREETING_S));
    loop {
        match packet::decode(&input) {
            Ok(None) => {
                let read = tokio::time::timeout_at(deadline, stream.read_buf(&mut input)).await;
                heard(read.map_err(|_| late())?).map_err(|end| (String::new(), end))?;
            }
            Ok(Some((Packet::Connect(connect), used))) => {
                let client_id = connect.client_id.to_owned();
                let seated = take_seat(&connect, certificate.as_deref(), shared).await;
                input.advance(used);
                return match seated {
                    Ok(seated) => Ok(Connection::new(stream, peer, shared.clone(), input, seated)),
                    Err(end) => {
                        refuse(stream, &end).await;
                        Err((client_id, end))
                    }
                };
            }
            Ok(Some(_)) => return Err((String::new(), End::NotConnect)),
            Err(fault) => {
                let end = match fault {
                    Fault::Version(_) => End::Refused(Refusal::Version),
                    other => End::Malformed(other),
                };
                refuse(stream, &end).await;
                return Err((String::new(), end));
            }
        }
    }
}

/// Says CONNACK with a return code, where there is one, and closes ([MQTT-3.2.2-5]).
async fn refuse(mut stream: Stream, end: &End) {
    let code = match end {
        End::Refused(refusal) => refusal.code(),
        End::Busy => 3,
        _ => return,
    };
    let mut out = Vec::with_capacity(4);
    packet::connack(&mut out, false, code);
    let _ = timeout(Duration::from_secs(1), async {
        stream.write_all(&out).await?;
        stream.shutdown().await
    })
    .await;
}

/// What a button left to be said.
pub(super) struct Testament {
    pub(super) status: ButtonStatus,
    pub(super) payload: Bytes,
    pub(super) retain: bool,
}

/// What a connection starts with.
pub(super) struct Seated {
    pub(super) seat: Arc<Seat>,
    pub(super) holder: Holder,
    pub(super) session_present: bool,
    pub(super) keep_alive: u16,
    pub(super) will: Option<Testament>,
}

async fn take_seat(connect: &Connect<'_>, certificate: Option<&str>, shared: &Shared) -> Result<Seated, End> {
    let id = rules::claimed(connect, certificate).map_err(End::Refused)?;
    let seat = shared.seats.get(id);
    rules::proven(seat.map(|s| &s.proof), &shared.decoy, connect.password, certificate).map_err(End::Refused)?;
    let seat = seat.ok_or(End::Refused(Refusal::Credentials))?;
    seat.role.may_leave(connect.will.as_ref()).map_err(End::Refused)?;
    let attached = match &seat.role {
        Role::Integration(_) => seat.attach(connect.clean_session, || ()),
        Role::Button(button) => {
            // The place in the queue first: so "connected" and "disconnected" of two connections cannot change order.
            let place = timeout(Duration::from_secs(GREETING_S), shared.events.reserve()).await;
            let place = place.map_err(|_| End::Busy)?.map_err(|_| End::Stopping)?;
            let (button, now) = (button.clone(), clock::now());
            seat.attach(connect.clean_session, || place.send(Event::Connected { button, now }))
        }
    };
    shared.counters.sessions.add();
    if attached.took_over {
        shared.counters.takeovers.add();
    }
    let will = connect.will.as_ref().map(|will| Testament {
        status: payload::will(will.payload),
        payload: Bytes::copy_from_slice(will.payload),
        retain: will.retain,
    });
    let (holder, session_present) = (attached.holder, attached.session_present);
    Ok(Seated { seat: seat.clone(), holder, session_present, keep_alive: connect.keep_alive, will })
}
