//! SAS tokens, as devices send them.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use dps_attestation::SymmetricKey;
use percent_encoding::percent_decode_str;
use subtle::ConstantTimeEq as _;

/// Base64 with or without its padding, whatever the unused bits of the last character are.
const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A token taken apart. No reason for a refusal repeats what may be a secret, whatever field it stands in.
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation#sas-token-structure>.
pub(crate) struct SasToken<'a> {
    /// The resource as sent: it is what was signed.
    resource: &'a str,
    expiry: &'a str,
    signature: Vec<u8>,
    policy: Option<&'a str>,
}

impl<'a> SasToken<'a> {
    /// Takes a token apart; its fields may come in any order, `skn` may be left out.
    pub(crate) fn parse(token: &'a str) -> Result<Self, String> {
        let (scheme, fields) = token.split_once(' ').unwrap_or((token, ""));
        if !scheme.eq_ignore_ascii_case("SharedAccessSignature") {
            return Err("the token does not begin with SharedAccessSignature".into());
        }
        let [mut sr, mut sig, mut se, mut skn] = [None; 4];
        for field in fields.trim().split('&') {
            let (name, value) =
                field.split_once('=').ok_or("the token has a field without a value")?;
            let slot = match name {
                "sr" => &mut sr,
                "sig" => &mut sig,
                "se" => &mut se,
                "skn" => &mut skn,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(format!("the token has {name} twice"));
            }
        }
        let resource = sr.ok_or("the token has no sr")?;
        let expiry = se.ok_or("the token has no se")?;
        let signature = percent_decode_str(sig.ok_or("the token has no sig")?)
            .decode_utf8()
            .ok()
            .and_then(|text| LENIENT_BASE64.decode(text.as_ref()).ok())
            .ok_or("the token's signature is not base64")?;
        Ok(Self { resource, expiry, signature, policy: skn })
    }

    /// Checks that the token is for this resource and still holds.
    pub(crate) fn check(&self, wanted: &str, now: u64) -> Result<(), String> {
        if !matches!(self.policy, None | Some("registration" | "")) {
            return Err("the token's policy, skn, is not \"registration\"".into());
        }
        let resource = percent_decode_str(self.resource).decode_utf8_lossy();
        if !resource.eq_ignore_ascii_case(wanted) {
            // It is not shown: a signature or a key may be in its place.
            return Err(format!("the token's resource, sr, is for something else than {wanted:?}"));
        }
        check_expiry(self.expiry()?, now)
    }

    /// Checks that the token is for the service API at this host, and still holds. Ports don't count: a client may leave
    /// out the one that it connects to.
    pub(crate) fn check_for_host(&self, host: &str, now: u64) -> Result<(), String> {
        /// Seconds beyond this, in the year 5138, are milliseconds: one client counts so.
        const LATEST: u64 = 100_000_000_000;
        let resource = percent_decode_str(self.resource).decode_utf8_lossy();
        if !without_port(&resource).eq_ignore_ascii_case(without_port(host)) {
            return Err("the token's resource, sr, is another host than the request's".into());
        }
        let expiry = self.expiry()?;
        check_expiry(if expiry > LATEST { expiry / 1000 } else { expiry }, now)
    }

    /// Whether it names this policy.
    pub(crate) fn is_by_policy(&self, name: &str) -> bool {
        self.policy.is_some_and(|policy| percent_decode_str(policy).decode_utf8_lossy() == name)
    }

    fn expiry(&self) -> Result<u64, String> {
        self.expiry.parse().map_err(|_| "the token's expiry, se, is not a number".into())
    }

    /// Whether it was signed with this key.
    pub(crate) fn is_signed_with(&self, key: &SymmetricKey) -> bool {
        let expected = key.signature(&format!("{}\n{}", self.resource, self.expiry));
        expected.expose().ct_eq(&self.signature).into()
    }
}

fn check_expiry(expiry: u64, now: u64) -> Result<(), String> {
    match expiry <= now {
        true => Err(format!("the token expired {} s ago", now - expiry)),
        false => Ok(()),
    }
}

/// A host as URLs have it, without its port; one client signs the scheme with it.
fn without_port(host: &str) -> &str {
    let host = host.strip_prefix("https://").unwrap_or(host).trim_end_matches('/');
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "O+H9VTcdJP0Tqkl7bh4nVG0OJNrAataMpuWB54D0VEc=";

    fn known(fields: &str) -> Result<bool, String> {
        let token = SasToken::parse(fields)?;
        token.check("0ne000EEBBD/registrations/FirstDevice", 1_591_921_305)?;
        Ok(token.is_signed_with(&KEY.parse().unwrap()))
    }

    #[test]
    fn the_known_answer_is_taken_in_any_order_with_and_without_a_policy() {
        let sr = "sr=0ne000EEBBD%2fregistrations%2fFirstDevice";
        let sig = "sig=hwgBlMB6G2Zg5ZcYtwmtLVKRbifiSCPfUMyscbVWa8o%3D";
        let raw_sig = "sig=hwgBlMB6G2Zg5ZcYtwmtLVKRbifiSCPfUMyscbVWa8o=";
        let se = "se=1591921306";
        for fields in [
            format!("{sr}&{sig}&{se}&skn=registration"),
            format!("skn=registration&{se}&{sig}&{sr}"),
            format!("{sr}&{raw_sig}&{se}"),
            format!("{sr}&{sig}&{se}&skn="),
        ] {
            assert_eq!(known(&format!("SharedAccessSignature {fields}")), Ok(true), "{fields}");
        }
        // The same resource, encoded otherwise than it was signed.
        let other =
            format!("SharedAccessSignature sr=0ne000EEBBD/registrations/FirstDevice&{sig}&{se}");
        assert_eq!(known(&other), Ok(false));
    }

    #[test]
    fn a_secret_in_the_wrong_field_is_not_repeated() {
        let secret = "hwgBlMB6G2Zg5ZcYtwmtLVKRbifiSCPfUMyscbVWa8o=";
        let fields = [
            ("sr", "0ne000EEBBD%2Fregistrations%2FFirstDevice"),
            ("sig", "aGk%3D"),
            ("se", "1591921306"),
            ("skn", "registration"),
        ];
        for wrong in ["sr", "se", "skn", "sig", "other"] {
            let value = |(name, right)| if name == wrong { secret } else { right };
            let fields = fields.map(|field| format!("{}={}", field.0, value(field)));
            let token = format!("SharedAccessSignature {}", fields.join("&"));
            if let Err(reason) = known(&token) {
                assert!(
                    !reason.contains("hwgBl") && !reason.contains("VWa8o"),
                    "{wrong}: {reason}"
                );
            }
            let no_scheme = known(&fields.join("&")).unwrap_err();
            assert!(!no_scheme.contains("hwgBl"), "{no_scheme}");
        }
        let twice = format!("SharedAccessSignature {secret}=1&{secret}=2");
        assert!(!known(&twice).unwrap_err().contains("hwgBl"));
    }

    #[test]
    fn broken_tokens_are_refused_with_the_reason() {
        let good = "sr=0ne000EEBBD%2Fregistrations%2FFirstDevice&sig=aGk%3D&se=1591921306";
        for (token, says) in [
            (String::new(), "does not begin"),
            ("Bearer x".into(), "does not begin"),
            ("SharedAccessSignature".into(), "without a value"),
            ("SharedAccessSignature sig=aGk%3D&se=1".into(), "no sr"),
            ("SharedAccessSignature sr=a&se=1".into(), "no sig"),
            ("SharedAccessSignature sr=a&sig=aGk%3D".into(), "no se"),
            ("SharedAccessSignature sr=a&sig=%%%&se=1".into(), "not base64"),
            (format!("SharedAccessSignature {good}&se=1591921306"), "se twice"),
            (format!("SharedAccessSignature {good}&skn=iothubowner"), "policy"),
            (
                format!("SharedAccessSignature {good}").replace("First", "Second"),
                "is for something else",
            ),
            (
                format!("SharedAccessSignature {good}").replace("0ne", "1ne"),
                "is for something else",
            ),
            (format!("SharedAccessSignature {good}").replace("1306", "1305"), "expired 0 s"),
            (format!("SharedAccessSignature {good}").replace("se=", "se=x"), "not a number"),
            (format!("SharedAccessSignature {good}").replace("se=", "se=-"), "not a number"),
        ] {
            let reason = known(&token).unwrap_err();
            assert!(reason.contains(says), "{token}: {reason}");
        }
    }
}
