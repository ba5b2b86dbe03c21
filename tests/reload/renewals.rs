//! Certificates that the service issues, each of them requested by the one before.

use std::{fs, time::SystemTime};

use dps_client::{
    CertificateFolder, Client, RegistrationRequest, RequestKey, Transport, X509Files, client,
};
use dps_conformance::{DEVICE, config_for, fast, settle};
use dps_emulator::{
    CaCertificates, CertificatePolicy, Emulator, Enrollment, EventKind, GroupAttestation, GroupKey,
    Thumbprint,
};

use crate::folder;

/// On each transport, unless the variable `DPS_TEST_RENEWALS` says how many.
const RENEWALS: usize = 40;

fn renewals() -> usize {
    std::env::var("DPS_TEST_RENEWALS").map_or(RENEWALS, |number| number.parse().unwrap())
}

/// One client for all of them: its files are those of the folder, and each new pair is shown in the next handshake.
pub(crate) async fn no_renewal_of_many_in_a_row_fails(transport: Transport) {
    let group = GroupKey::random().unwrap();
    let key = group.derive(&DEVICE.parse().unwrap());
    let issues = |name: &str, attestation| {
        Enrollment::group(name, attestation)
            .certificate_policy(CertificatePolicy::issue_for_days(1))
    };
    let shipped = issues("shipped", GroupAttestation::symmetric_key(group));
    let emulator = Emulator::builder().enrollment(shipped).start().await.unwrap();
    let ca = CaCertificates::from_pem(&emulator.issuing_ca_pem().unwrap()).unwrap();
    emulator.add_enrollment(issues("issued", GroupAttestation::x509(ca))).unwrap();
    let certificate = folder(transport, "renewals").join("certificate");
    let certificate = CertificateFolder::open(certificate).unwrap();
    let connect = |attestation| {
        client(transport, config_for(&emulator, transport, attestation), fast()).unwrap()
    };

    let renew = async |client: &Client| {
        let device = DEVICE.parse().unwrap();
        let key = RequestKey::generate().unwrap();
        let request = RegistrationRequest::new(DEVICE.parse().unwrap())
            .certificate_request(key.request(&device).unwrap());
        let registered = client.register(request).await.unwrap();
        settle(client).await;
        let chain = registered.certificates.chain();
        let issued = key.verify(chain, &device, SystemTime::now()).unwrap();
        certificate.store(&issued.to_pem(), key.to_pem().as_ref().map(|key| key.as_str())).unwrap();
        issued.identity().leaf_thumbprint()
    };
    let by_key = connect(key.into());
    let mut stored = vec![renew(&by_key).await];
    let before = emulator.events().len();
    let files = X509Files::open(certificate.chain_path(), certificate.key_path()).unwrap();
    let by_certificate = connect(files.into());
    for _ in 0..renewals() {
        stored.push(renew(&by_certificate).await);
    }

    let shown = emulator.events().since(before).into_iter().filter_map(|event| match event.kind {
        EventKind::TlsEstablished { thumbprint, .. } => thumbprint,
        _ => None,
    });
    let last = stored.pop().unwrap();
    assert_eq!(shown.collect::<Vec<_>>(), stored, "each by the certificate before it");
    let chain = fs::read_to_string(certificate.chain_path()).unwrap();
    let leaf = &chain[..chain.match_indices("-----BEGIN").nth(1).unwrap().0];
    assert_eq!(Thumbprint::of_pem(leaf).unwrap().to_string(), last);
    let pairs = fs::read_dir(certificate.path().join("pairs")).unwrap();
    assert_eq!(pairs.count(), 2, "the one in use and the one before it");
}
