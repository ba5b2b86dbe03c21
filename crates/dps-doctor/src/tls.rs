//! TLS with the port of the chosen transport.

use dps_attestation::internal::summary;
use dps_client::{CertificateSummary, Error, ErrorKind};
use dps_connect::internal::Handshake;
use rustls::CertificateError;

use crate::{
    check::{
        ASKED, AUTHORITY, EXPIRED, HANDSHAKE, INSPECTION, NOT_YET, SERVER_CERTIFICATE, SERVER_NAME,
        VERSION,
    },
    clock::date,
    finding::Chart,
    port::Seen,
    settings::{is_public, is_x509},
    subject::Subject,
};

/// `None` when no session stands.
pub(crate) fn examine(subject: &Subject, seen: &Seen, chart: &mut Chart<'_>) -> Option<()> {
    let Handshake { session, error, refused, chain, .. } = &seen.handshake;
    let own = chain.first().and_then(|der| summary(der));
    match (session, error, refused) {
        (Some(session), ..) => {
            chart.took(seen.elapsed).ok(&HANDSHAKE, "it stands");
            chart.ok(&VERSION, session);
            certificate(own.as_ref(), chart);
        }
        (None, Some(error), Some(reason)) => {
            chart.took(seen.elapsed).ok(&HANDSHAKE, "the peer presents a certificate");
            chart.ok(&VERSION, "in common");
            refusal(reason, error, own.as_ref(), subject, chart);
            return None;
        }
        (None, Some(error), None) => {
            let check = if seen.handshake.has_no_version { &VERSION } else { &HANDSHAKE };
            let advice = match seen.handshake.has_no_version {
                true => "the peer must be updated; the service itself speaks TLS 1.2 and 1.3",
                false => "ask who runs the network whether it inspects or filters TLS",
            };
            chart.took(seen.elapsed).fail_by(check, error, Some(advice));
            return None;
        }
        (None, None, _) => return None,
    }
    inspection(&seen.handshake, own.as_ref(), subject, chart);
    client_certificate(&seen.handshake, subject, chart)
}

/// What is good about a certificate that was accepted.
fn certificate(own: Option<&CertificateSummary>, chart: &mut Chart<'_>) {
    let issuer = own.map_or("a resumed session", |own| own.issuer.as_str());
    chart.ok(&AUTHORITY, format!("{issuer} signed it, and is trusted"));
    let (until, from) =
        own.map_or_else(Default::default, |own| (date(own.not_after), date(own.not_before)));
    chart.ok(&EXPIRED, format!("valid until {until}"));
    chart.ok(&NOT_YET, format!("valid since {from}"));
    chart.ok(&SERVER_NAME, own.map_or("it fits", |own| own.subject.as_str()));
    chart.ok(&SERVER_CERTIFICATE, "it is fit for a server");
}

fn refusal(
    reason: &CertificateError,
    error: &Error,
    own: Option<&CertificateSummary>,
    subject: &Subject,
    chart: &mut Chart<'_>,
) {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext,
        NotValidYet, NotValidYetContext, UnknownIssuer,
    };
    let now = date((subject.clock)());
    let clock = format!("this machine's clock says {now}: if that is wrong, set it");
    match reason {
        UnknownIssuer | BadSignature => {
            let (subject_name, issuer) =
                own.map_or(("nobody", "nobody"), |own| (own.subject.as_str(), own.issuer.as_str()));
            let seen = format!(
                "the certificate of {subject_name} was signed by {issuer}, who is not trusted here"
            );
            let host = subject.host().unwrap_or_default();
            let advice = match is_public(host) {
                true => {
                    "something in between inspects TLS; have it leave this connection alone, or add the certificate of that authority with --ca-file FILE (a device with an X.509 certificate can't get through it)"
                }
                false => {
                    "if the server is the right one, add the certificate of that authority with --ca-file FILE; otherwise something in between inspects TLS"
                }
            };
            chart.fail(&AUTHORITY, ErrorKind::Connection, seen, advice);
        }
        ExpiredContext { .. } | Expired => chart.fail_by(&EXPIRED, error, Some(&clock)),
        NotValidYetContext { .. } | NotValidYet => chart.fail_by(&NOT_YET, error, Some(&clock)),
        NotValidForNameContext { .. } | NotValidForName => {
            chart.fail_by(&SERVER_NAME, error, Some("--endpoint HOST names the service"));
        }
        _ => chart.fail_by(&SERVER_CERTIFICATE, error, None),
    }
}

fn inspection(
    handshake: &Handshake,
    own: Option<&CertificateSummary>,
    subject: &Subject,
    chart: &mut Chart<'_>,
) {
    let host = subject.host().unwrap_or_default();
    if !is_public(host) {
        return chart.skip(&INSPECTION, "it is no public name of the service");
    }
    if handshake.is_public {
        return chart.ok(&INSPECTION, "a public authority vouches for it");
    }
    let issuer = own.map_or("somebody", |own| own.issuer.as_str());
    chart.warn(
        &INSPECTION,
        format!("{issuer} signed the certificate of {host}, and is no public authority: something in between inspects TLS"),
        "a symmetric key gets through; have it leave this connection alone for a device with an X.509 certificate, which does not",
    );
}

fn client_certificate(
    handshake: &Handshake,
    subject: &Subject,
    chart: &mut Chart<'_>,
) -> Option<()> {
    if !subject.credential.as_ref().is_ok_and(is_x509) {
        chart.skip(&ASKED, "the device shows no certificate");
        return Some(());
    }
    if let Some(why) = &handshake.not_sent {
        chart.fail(&ASKED, ErrorKind::Rejected, why, "--cert and --key name another pair");
        return None;
    }
    if !handshake.asks_certificate {
        let seen = "nobody asked this device for its certificate, so none was sent";
        let advice = "something in between ends TLS, as a proxy that inspects it does, or the endpoint is not the service: --endpoint HOST, --proxy URL";
        chart.fail(&ASKED, ErrorKind::Rejected, seen, advice);
        return None;
    }
    chart.ok(&ASKED, "it asks, and the device's was sent");
    Some(())
}
