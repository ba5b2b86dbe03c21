//! One service, and all that devices need to register there.

use std::net::Ipv4Addr;

use dps_client::{
    Attestation, Client, Config, Endpoint, GroupKey, RegistrationId, RegistrationRequest, Roots,
    Settings, Transport, X509Identity, client,
};
use dps_conformance::{Authority, fast};
use tokio::net::TcpSocket;

use crate::{
    Result,
    registration_kinds::Kind,
    service::{Plan, Service},
};

/// One service, and all that devices need to register there.
pub(crate) struct Environment {
    pub(crate) service: Service,
    roots: Roots,
    /// Roots that the service's certificate does not hang on.
    foreign_roots: Roots,
    identity: X509Identity,
    /// A port that nobody listens on and nobody else can take.
    refused: TcpSocket,
}

/// Who registers where.
pub(crate) struct Device {
    pub(crate) id: RegistrationId,
    pub(crate) config: Config,
}

impl Environment {
    /// Starts a service that takes this many connections, with the emulator's own bounds.
    pub(crate) fn new(max_connections: usize) -> Result<Self> {
        Self::with(|group_ca| Plan { max_connections, patience: None, descriptors: None, group_ca })
    }

    /// Starts a service by plan.
    pub(crate) fn with(plan: impl FnOnce(String) -> Plan) -> Result<Self> {
        let factory = Authority::root("Factory root");
        let identity = factory.device(Kind::CERTIFIED).identity();
        let foreign = Authority::root("Foreign root");
        let service = Service::start(&plan(factory.pem))?;
        let refused = TcpSocket::new_v4()?;
        refused.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self {
            roots: Roots::empty().with_pem(service.ca_pem.as_bytes())?,
            foreign_roots: Roots::empty().with_pem(foreign.pem.as_bytes())?,
            identity,
            refused,
            service,
        })
    }

    /// A device of the group for a kind.
    pub(crate) fn device(&self, kind: Kind, transport: Transport, name: &str) -> Result<Device> {
        let id: RegistrationId = name.parse()?;
        let group: GroupKey = self.service.key(kind)?.parse()?;
        let attestation = group.derive(&id).into();
        self.device_with(id, attestation, transport)
    }

    /// A device with a credential of its own.
    pub(crate) fn device_with(
        &self,
        id: RegistrationId,
        attestation: Attestation,
        transport: Transport,
    ) -> Result<Device> {
        let mut config = Config::new(self.service.id_scope.parse()?, attestation);
        config.endpoint = endpoint("localhost", self.service.port(transport)?)?;
        config.roots = self.roots.clone();
        Ok(Device { id, config })
    }

    /// The device with a certificate.
    pub(crate) fn certified(&self, transport: Transport) -> Result<Device> {
        self.device_with(Kind::CERTIFIED.parse()?, self.identity.clone().into(), transport)
    }

    /// The device looks for the service where nobody is.
    pub(crate) fn at_a_closed_port(&self, mut device: Device) -> Result<Device> {
        device.config.endpoint = endpoint("127.0.0.1", self.refused.local_addr()?.port())?;
        Ok(device)
    }

    /// The device trusts others.
    pub(crate) fn distrustful(&self, mut device: Device) -> Device {
        device.config.roots = self.foreign_roots.clone();
        device
    }
}

impl Device {
    /// A session with bounds that suit loopback.
    pub(crate) fn client(&self, transport: Transport) -> Result<Client> {
        self.client_with(transport, fast())
    }

    pub(crate) fn client_with(&self, transport: Transport, settings: Settings) -> Result<Client> {
        Ok(client(transport, self.config.clone(), settings)?)
    }

    pub(crate) fn request(&self) -> RegistrationRequest {
        RegistrationRequest::new(self.id.clone())
    }
}

fn endpoint(host: &str, port: u16) -> Result<Endpoint> {
    Ok(format!("{host}:{port}").parse()?)
}
