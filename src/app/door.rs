//! The way of a media socket from the control runtime, where it was upgraded, to a media thread.

use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        ids::ConnectionId,
    },
    http::{Guarded, MediaDoor},
    metrics,
    net::conn::Conn,
    shard::{CodecBox, Handover, Shards},
    vendor::{Descriptor, Upgrade},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::{net::SocketAddr, sync::Arc};

/// Hands upgraded sockets to the shards.
#[derive(Debug)]
pub(super) struct Door(pub(super) Arc<Shards>);

impl MediaDoor for Door {
    fn admit(&self) -> Result<(), Fault> {
        if self.0.has_room() {
            return Ok(());
        }
        metrics::refused("media_socket", "full");
        Err(Fault::new(Origin::Us, Kind::Unavailable, "all media threads are full"))
    }

    fn adopt(&self, vendor: &'static Descriptor, upgrade: Upgrade, peer: SocketAddr, upgraded: Upgraded) {
        let Ok(parts) = upgraded.downcast::<TokioIo<Guarded<Conn>>>() else {
            return tracing::error!("an upgraded media socket is not one of the listener's");
        };
        let (mut conn, permit) = parts.io.into_inner().into_parts();
        if let Err(e) = conn.park() {
            return tracing::warn!(error = %e, "a media socket could not leave the control runtime");
        }
        let handover = Handover {
            conn,
            read: parts.read_buf,
            connection: ConnectionId::new(),
            vendor,
            codec: CodecBox((vendor.codec)(&upgrade)),
            path_token: upgrade.path_token,
            number: upgrade.number,
            proven: upgrade.proven,
            peer,
            permit,
        };
        if self.0.place(handover).is_err() {
            metrics::refused("media_socket", "full");
        }
    }
}
