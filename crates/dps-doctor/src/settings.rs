//! The settings, before anything is done with them.

use dps_client::{Attestation, Endpoint, ErrorKind, Proxy, ProxyChoice, Transport};

use crate::{
    check::{
        CLOUD, Check, ENDPOINT, FILES, ID_SCOPE, PROXY_SETTING, REGISTRATION_ID, REQUEST, ROOTS,
        TRANSPORT,
    },
    finding::Chart,
    subject::Subject,
    way::candidates,
};

/// What the names of each cloud end in: those of the service, and those of its hubs.
/// See <https://learn.microsoft.com/azure/iot-dps/virtual-network-support#dps-service-endpoints> and
/// <https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure>.
const CLOUDS: [(&str, &str, &str); 3] = [
    ("azure-devices-provisioning.net", "azure-devices.net", "the global cloud"),
    ("azure-devices-provisioning.us", "azure-devices.us", "Azure Government"),
    ("azure-devices-provisioning.cn", "azure-devices.cn", "Azure operated by 21Vianet in China"),
];

pub(crate) fn examine(subject: &Subject, chart: &mut Chart<'_>) {
    transport(subject, chart);
    match &subject.id_scope {
        // See <https://learn.microsoft.com/azure/iot-dps/concepts-service#id-scope>.
        Ok(scope) if !scope.as_str().to_ascii_lowercase().starts_with("0n") => chart.warn(
            &ID_SCOPE,
            format!("{scope}, which does not begin as those of the service do, like 0ne00AABBCC"),
            "compare it with the ID scope on the overview page of the provisioning service; --id-scope SCOPE",
        ),
        Ok(scope) => chart.ok(&ID_SCOPE, scope),
        Err(error) => chart.fail_by(&ID_SCOPE, error, None),
    }
    plain(&REGISTRATION_ID, subject.registration_id.as_ref(), chart);
    match &subject.endpoint {
        Ok(given) => endpoint(given, chart),
        Err(error) => chart.fail_by(&ENDPOINT, error, None),
    }
    proxy(subject, chart);
    match &subject.roots {
        Ok(roots) if roots.is_empty() => {
            let advice = "give the authorities to trust; --ca-file FILE adds them";
            chart.fail(&ROOTS, ErrorKind::Configuration, "there is none", advice);
        }
        Ok(roots) => chart.ok(&ROOTS, format!("{} authorities", roots.len())),
        Err(error) => chart.fail_by(&ROOTS, error, None),
    }
    match &subject.request {
        None => chart.skip(&REQUEST, "no payload is given"),
        Some(Ok(request)) => match request.check() {
            Ok(()) => chart.ok(&REQUEST, "it can be sent"),
            Err(error) => chart.fail_by(&REQUEST, &error, None),
        },
        Some(Err(error)) => chart.fail_by(&REQUEST, error, None),
    }
    files(subject, chart);
}

fn files(subject: &Subject, chart: &mut Chart<'_>) {
    match &subject.files {
        None => chart.skip(&FILES, "nothing is kept or written"),
        Some(Ok(odd)) if odd.is_empty() => chart.ok(&FILES, "they can be used"),
        Some(Ok(odd)) => chart.warn(
            &FILES,
            odd.join("; "),
            "see whether the file is the right one: a registration replaces it",
        ),
        Some(Err(error)) => chart.fail_by(&FILES, error, None),
    }
}

/// A value that was read, or why it could not be.
fn plain<T: ToString>(
    check: &'static Check,
    read: Result<&T, &dps_client::Error>,
    chart: &mut Chart<'_>,
) {
    match read {
        Ok(value) => chart.ok(check, value.to_string()),
        Err(error) => chart.fail_by(check, error, None),
    }
}

fn transport(subject: &Subject, chart: &mut Chart<'_>) {
    let transport = match &subject.transport {
        Ok(_) if subject.any_transport => return any(subject, chart),
        Ok(transport) => *transport,
        Err(error) => return chart.fail_by(&TRANSPORT, error, None),
    };
    if let Err(error) = transport.ensure_built() {
        return chart.fail_by(&TRANSPORT, &error, None);
    }
    let is_mqtt = matches!(transport, Transport::Mqtt | Transport::MqttWs);
    let kind = ErrorKind::Configuration;
    if is_mqtt && has_tpm(subject) {
        let advice = "--transport http, amqp or amqp-ws";
        return chart.fail(
            &TRANSPORT,
            kind,
            format!("{transport} can't carry TPM attestation"),
            advice,
        );
    }
    if is_mqtt && is_forced(subject) {
        let advice = "--transport http, amqp or amqp-ws; or leave --force out";
        return chart.fail(&TRANSPORT, kind, format!("{transport} can't carry --force"), advice);
    }
    chart.ok(&TRANSPORT, transport);
}

fn any(subject: &Subject, chart: &mut Chart<'_>) {
    if subject.endpoint.is_ok() && candidates(subject).is_empty() {
        let seen = "no transport can carry this request on the port of the endpoint";
        let advice = "MQTT carries neither --force nor TPM attestation; --endpoint HOST leaves the port to the transport";
        return chart.fail(&TRANSPORT, ErrorKind::Configuration, seen, advice);
    }
    chart.ok(&TRANSPORT, "auto");
}

fn has_tpm(subject: &Subject) -> bool {
    subject.credential.as_ref().is_ok_and(|of| of.tpm().is_some())
}

fn is_forced(subject: &Subject) -> bool {
    matches!(&subject.request, Some(Ok(request)) if request.is_forced())
}

/// Whether nothing is asked for that MQTT has no way to say.
pub(crate) fn mqtt_can_carry(subject: &Subject) -> bool {
    !has_tpm(subject) && !is_forced(subject)
}

fn endpoint(endpoint: &Endpoint, chart: &mut Chart<'_>) {
    let host = endpoint.host().trim_end_matches('.').to_ascii_lowercase();
    let within = |suffix: &str| {
        host.strip_suffix(suffix).is_some_and(|name| name.is_empty() || name.ends_with('.'))
    };
    if let Some((service, ..)) = CLOUDS.iter().find(|(_, hubs, _)| within(hubs)) {
        let seen = format!("{endpoint} is the name of a hub");
        let advice = format!("devices are provisioned at global.{service}; --endpoint HOST");
        return chart.fail(&ENDPOINT, ErrorKind::Configuration, seen, &advice);
    }
    let cloud = CLOUDS.iter().find(|(service, ..)| within(service));
    match cloud {
        Some((service, ..)) if host == *service => {
            let seen = format!("{endpoint} is no endpoint, but the domain of all of them");
            let advice = format!("--endpoint global.{service}");
            chart.fail(&ENDPOINT, ErrorKind::Configuration, seen, &advice);
        }
        Some((service, ..)) if host != format!("global.{service}") => chart.warn(
            &ENDPOINT,
            format!("{endpoint} is the endpoint of one instance, for its service API and private networks"),
            &format!("unless this device has a private endpoint there, give --endpoint global.{service}"),
        ),
        _ => chart.ok(&ENDPOINT, endpoint),
    }
    match cloud {
        Some((.., name)) => chart.ok(&CLOUD, name),
        None if host.contains("azure") || host.contains("microsoft") => chart.warn(
            &CLOUD,
            format!("{endpoint} is no name of the service, although it looks like one"),
            "compare it with global.azure-devices-provisioning.net (.us for Azure Government, .cn for China); --endpoint HOST",
        ),
        None => chart.ok(&CLOUD, "none of Microsoft's: an emulator, or a name of your own"),
    }
}

/// Whether the name is one that the public DNS has for the service.
pub(crate) fn is_public(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    CLOUDS.iter().any(|(service, hubs, _)| {
        [service, hubs].iter().any(|suffix| host.ends_with(&format!(".{suffix}")))
    })
}

fn proxy(subject: &Subject, chart: &mut Chart<'_>) {
    let choice = match &subject.proxy {
        Ok(choice) => choice,
        Err(error) => return chart.fail_by(&PROXY_SETTING, error, None),
    };
    match chosen(subject) {
        Some(Ok(Some(proxy))) => chart.ok(&PROXY_SETTING, proxy),
        Some(Err(error)) => chart.fail_by(&PROXY_SETTING, &error, None),
        Some(Ok(None)) | None => match (choice, set_in_environment()) {
            (ProxyChoice::Url(proxy), _) => {
                chart.ok(
                    &PROXY_SETTING,
                    format!("{proxy}, which NO_PROXY leaves out for this endpoint"),
                );
            }
            (ProxyChoice::Environment, Some(name)) => {
                chart.ok(
                    &PROXY_SETTING,
                    format!("{name}, which NO_PROXY leaves out for this endpoint"),
                );
            }
            (ProxyChoice::Environment, None) => {
                let seen = "none: --proxy env is given, and the environment names none";
                let plain = ["HTTP_PROXY", "http_proxy"].into_iter().find(|name| is_set(name));
                let advice = match plain {
                    Some(name) => format!("{name} is for plain HTTP: set HTTPS_PROXY too"),
                    None => "set HTTPS_PROXY, or leave --proxy env out".to_owned(),
                };
                chart.warn(&PROXY_SETTING, seen, &advice);
            }
            (_, Some(name)) => {
                chart.ok(
                    &PROXY_SETTING,
                    format!("none; {name} is set and not used without --proxy env"),
                );
            }
            (_, None) => chart.ok(&PROXY_SETTING, "none"),
        },
    }
}

/// The variable that names a proxy, if one is set.
pub(crate) fn set_in_environment() -> Option<&'static str> {
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].into_iter().find(|name| is_set(name))
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// The proxy on the way to the chosen transport's port; `None` as long as the endpoint is not known.
pub(crate) fn chosen(subject: &Subject) -> Option<Result<Option<Proxy>, dps_client::Error>> {
    let endpoint = subject.endpoint_of(subject.transport())?;
    let mut config = subject.config(&endpoint)?;
    config.proxy = subject.proxy.as_ref().ok()?.clone();
    Some(config.chosen_proxy(subject.ports.of(subject.transport())))
}

/// Whether the device shows a certificate.
pub(crate) fn is_x509(credential: &Attestation) -> bool {
    matches!(credential, Attestation::X509(_) | Attestation::X509Files(_))
}
