//! The backhaul's plug: a proxy before headquarters' broker and the mount of its disk. Pulled, connections through it
//! stall as a dead radio link does and new ones are refused, and the disk is gone.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::host::scope::Scope;

/// The plug.
#[derive(Clone)]
pub struct Plug {
    address: SocketAddr,
    objects: PathBuf,
    up: watch::Sender<bool>,
}

impl Plug {
    /// A plug that is in, before `broker` and `objects`.
    pub async fn new(broker: SocketAddr, objects: PathBuf, scope: &Scope) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let up = watch::Sender::new(true);
        scope.spawn("plug", accept(listener, broker, up.clone(), scope.clone()));
        Ok(Self { address, objects, up })
    }

    /// Where the gateway finds headquarters' broker.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it is in.
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Pulls it, or puts it in.
    pub fn set_up(&self, up: bool) -> io::Result<()> {
        if self.is_up() == up {
            return Ok(());
        }
        let away = unmounted(&self.objects);
        if up { std::fs::rename(&away, &self.objects) } else { std::fs::rename(&self.objects, &away) }?;
        self.up.send_replace(up);
        Ok(())
    }
}

fn unmounted(objects: &Path) -> PathBuf {
    objects.with_extension("unmounted")
}

async fn accept(listener: TcpListener, broker: SocketAddr, up: watch::Sender<bool>, scope: Scope) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = scope.stopping() => return,
        };
        let Ok((near, _)) = accepted else { continue };
        if !*up.borrow() {
            continue;
        }
        let mut pulled = up.subscribe();
        let stopping = scope.stopping();
        scope.spawn("plug-connection", async move {
            let through = async move {
                let mut near = near;
                let Ok(mut far) = TcpStream::connect(broker).await else { return };
                let _ = near.set_nodelay(true);
                let _ = far.set_nodelay(true);
                let _ = copy_bidirectional(&mut near, &mut far).await;
            };
            tokio::select! {
                () = through => {}
                _ = pulled.wait_for(|up| !up) => {}
                () = stopping => {}
            }
        });
    }
}
