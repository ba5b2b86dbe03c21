//! What a machine must have for the peers: programs, and ports that anyone may not open.

use std::{io::ErrorKind, net::TcpListener};

use crate::{
    missing::in_ci,
    process::{Cmd, Result, find},
};

/// Makes sure that the programs are there and the ports free. In CI what is missing is installed, and a failure if
/// it can't be; elsewhere the reason to skip is returned.
pub(super) fn lacks(needs: &[(&str, &str)], ports: &[(&str, u16)]) -> Result<Option<String>> {
    let missing: Vec<&str> =
        needs.iter().filter(|(program, _)| find(program).is_none()).map(|(_, p)| *p).collect();
    if !missing.is_empty() {
        if !in_ci() {
            return Ok(Some(format!("{} not installed", missing.join(", "))));
        }
        as_root(&["apt-get", "update", "--quiet"])?;
        let install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"];
        as_root(&[&install[..], &missing].concat())?;
    }
    for (_, port) in ports {
        if let Err(error) = TcpListener::bind(("127.0.0.1", *port)) {
            if error.kind() != ErrorKind::PermissionDenied {
                return Err(
                    format!("port {port} of 127.0.0.1, which the peers use: {error}").into()
                );
            }
            if !in_ci() {
                return Ok(Some(format!("port {port} is for root here")));
            }
            as_root(&["sysctl", "-w", &format!("net.ipv4.ip_unprivileged_port_start={port}")])?;
        }
    }
    Ok(None)
}

fn as_root(command: &[&str]) -> Result {
    let root = Cmd::new("id").args(["-u"]).read()?.trim() == "0";
    let sudo: &[&str] = if root { &[] } else { &["sudo", "-n"] };
    let words = [sudo, &["env", "DEBIAN_FRONTEND=noninteractive"], command].concat();
    let (program, arguments) = words.split_first().ok_or("no command")?;
    Cmd::new(program).args(arguments).run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_an_error_that_names_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let failure = lacks(&[("sh", "dash")], &[("--https-port", port)]).unwrap_err();
        assert!(format!("{failure:?}").contains(&port.to_string()), "{failure:?}");
    }
}
