//! A program that registers by a device's configuration file.
#![cfg(all(
    feature = "amqp",
    feature = "device-file",
    feature = "emulator",
    feature = "http",
    feature = "mqtt",
    feature = "websocket"
))]
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{fs, path::PathBuf};

use dps_client::{
    DeviceFile, Transport,
    emulator::{Config, EmulatorExt as _},
};

const KEY: &str = "c2VjcmV0IGtleSBvZiBwdW1wLTE3";

/// A folder of its own that goes away with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_program_registers_by_a_file_over_every_transport() {
    let folder = Folder::new("device-file");
    let service = format!(
        "[[enrollment]]\nregistration-id = \"pump-17\"\nsymmetric-key = \"{KEY}\"\npayload = \"echo\"\n"
    );
    let emulator = Config::from_toml(&service).unwrap().start().await.unwrap();
    folder.file("primary.key", "d3Jvbmcga2V5IG9mIGEgZGV2aWNl");
    folder.file("pump-17.key", KEY);
    folder.file("ca.pem", emulator.ca_pem());
    for transport in Transport::ALL {
        let endpoint = emulator.config(transport).unwrap().endpoint;
        let path = folder.file(
            "dps.toml",
            format!(
                "id-scope = \"{}\"\nregistration-id = \"pump-17\"\ntransport = \"{transport}\"\nendpoint = \"{endpoint}\"\n\
                 ca-file = \"ca.pem\"\nsymmetric-key-file = [\"primary.key\", \"pump-17.key\"]\npoll-floor = 0\n\
                 payload = {{ site = \"north\" }}\nmodel-id = \"dtmi:m;1\"\n",
                emulator.id_scope()
            ),
        );
        let file = DeviceFile::read(&path).unwrap();
        let client = file.client().unwrap();
        let device = client.register(file.request().unwrap()).await.unwrap();
        assert_eq!((device.device_id.as_str(), device.credential), ("pump-17", 1), "{transport}");
        let payload = device.payload.unwrap();
        assert_eq!(payload.get(), r#"{"site":"north","modelId":"dtmi:m;1"}"#, "{transport}");
        client.end_session().await.unwrap();
    }
}

#[tokio::test]
async fn what_a_program_can_not_use_is_named_with_its_line() {
    let folder = Folder::new("device-file-faults");
    folder.file("dev.key", "no key");
    let device = "id-scope = \"0ne1\"\nregistration-id = \"dev\"\n";
    let at = |rest: &str| format!("{}:3: {rest}", folder.0.join("dps.toml").display());
    for (text, says) in [
        (String::new(), "it names no credential; give symmetric-key-file".to_owned()),
        ("symmetric-key-file = \"none.key\"".to_owned(), at("symmetric-key-file ")),
        ("symmetric-key-file = \"dev.key\"".to_owned(), at("symmetric-key-file ")),
        ("cert = \"a.pem\"".to_owned(), at("cert: it needs key too")),
        (
            "cert = [\"a\", \"b\"]\nkey = \"c\"".to_owned(),
            at("cert: there are 2 of it and 1 of key"),
        ),
        (
            "cert = \"a\"\nkey = \"tpm:0x81000002\"".to_owned(),
            "a program makes this credential itself".to_owned(),
        ),
        (
            "tpm = \"/dev/tpmrm0\"".to_owned(),
            at("tpm \"/dev/tpmrm0\": a program makes this credential itself"),
        ),
        (
            "symmetric-key-file = []".to_owned(),
            at("symmetric-key-file \"[..]\": the list is empty"),
        ),
    ] {
        let path = folder.file("dps.toml", format!("{device}{text}\n"));
        let client = DeviceFile::read(&path).and_then(|file| file.client());
        let said = client.unwrap_err().to_string();
        assert!(said.contains(&says), "{text}: {said}");
        assert!(!said.contains("no key"), "{said}");
    }
}
