//! The network between the device and the service: it can be unplugged, and leads to whichever service is there.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

/// Two ports that stay the same for the device's life: that of the service and that of its hubs.
pub(crate) struct Network {
    pub(crate) service: u16,
    pub(crate) hub: u16,
    leads_to: Arc<Mutex<Option<[SocketAddr; 2]>>>,
}

impl Network {
    pub(crate) async fn new() -> Self {
        let leads_to = Arc::<Mutex<Option<[SocketAddr; 2]>>>::default();
        let mut ports = [0; 2];
        for (place, port) in ports.iter_mut().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            *port = listener.local_addr().unwrap().port();
            let leads_to = Arc::clone(&leads_to);
            tokio::spawn(async move {
                while let Ok((device, _)) = listener.accept().await {
                    let there = *leads_to.lock().unwrap();
                    // Unplugged, it closes the connection.
                    if let Some(there) = there {
                        tokio::spawn(relay(device, there[place]));
                    }
                }
            });
        }
        let [service, hub] = ports;
        Self { service, hub, leads_to }
    }

    pub(crate) fn unplug(&self) {
        *self.leads_to.lock().unwrap() = None;
    }

    pub(crate) fn plug(&self, service: u16, hub: u16) {
        let there = [service, hub].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        *self.leads_to.lock().unwrap() = Some(there);
    }
}

async fn relay(mut device: TcpStream, there: SocketAddr) {
    let Ok(mut service) = TcpStream::connect(there).await else { return };
    for tcp in [&device, &service] {
        tcp.set_nodelay(true).unwrap();
    }
    copy_bidirectional(&mut device, &mut service).await.unwrap_or_default();
}
