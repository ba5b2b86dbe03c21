//! The image of the emulator, made without Docker: the program, a folder for its files, and what the last stage of
//! packaging/Containerfile says of them, as <https://github.com/opencontainers/image-spec> lays it out.

use std::{fs, path::Path};

use serde_json::{Map, Value, json};
use xshell::{Shell, cmd};

use crate::{dist::Dist, process::Result};

const VERSION: &str = "/Labels/org.opencontainers.image.version";

/// Makes the folder `image`, and an archive of it.
pub(crate) fn make(shell: &Shell, dist: &Dist) -> Result {
    let settings = settings(&shell.read_file("packaging/Containerfile")?)?;
    let version = settings.pointer(VERSION).and_then(Value::as_str);
    dist.is_of_this_version("packaging/Containerfile", version)?;
    let (image, root) = (dist.folder.join("image"), dist.folder.join("image-root"));
    shell.create_dir(image.join("blobs/sha256"))?;
    shell.create_dir(root.join("data"))?;
    shell.copy_file(dist.program(), root.join("dps"))?;
    cmd!(shell, "chmod 755 {root} {root}/dps").run()?;
    // As /tmp is: whoever the container runs as may write there.
    cmd!(shell, "chmod 1777 {root}/data").run()?;
    let layer = dist.folder.join("layer.tar");
    dist.tar(shell, &root, &layer, &[])?;
    let unpacked = digest(shell, &layer)?;
    cmd!(shell, "gzip --no-name {layer}").run()?;

    let kind = |name: &str| format!("application/vnd.oci.image.{name}");
    let add = |name: &str, file: &Path| add(shell, &image, &kind(name), file);
    let add_json = |name: &str, value: &Value| -> Result<Value> {
        let file = dist.folder.join("blob.json");
        shell.write_file(&file, value.to_string())?;
        add(name, &file)
    };
    let layer = add("layer.v1.tar+gzip", &dist.folder.join("layer.tar.gz"))?;
    let time = &dist.time;
    let config = json!({
        "created": cmd!(shell, "date --utc --date=@{time} +%FT%TZ").read()?,
        "architecture": "amd64",
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [unpacked]},
    });
    let config = add_json("config.v1+json", &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": kind("manifest.v1+json"),
        "config": config,
        "layers": [layer],
    });
    let mut manifest = add_json("manifest.v1+json", &manifest)?;
    let names = json!({
        "org.opencontainers.image.ref.name": dist.version,
        "io.containerd.image.name": format!("dps:{}", dist.version),
    });
    manifest.as_object_mut().and_then(|fields| fields.insert("annotations".to_owned(), names));
    let index = json!({
        "schemaVersion": 2,
        "mediaType": kind("index.v1+json"),
        "manifests": [manifest],
    });
    shell.write_file(image.join("index.json"), index.to_string())?;
    shell
        .write_file(image.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
    shell.remove_path(root)?;
    let archive = dist.folder.join(format!("dps-{}-image.tar", dist.version));
    dist.tar(shell, &image, &archive, &["--transform=s,^\\./,,"])
}

fn digest(shell: &Shell, file: &Path) -> Result<String> {
    let sum = cmd!(shell, "sha256sum {file}").read()?;
    Ok(format!("sha256:{}", sum.split(' ').next().unwrap_or_default()))
}

/// Moves a file into the image; what refers to it there.
fn add(shell: &Shell, image: &Path, media_type: &str, file: &Path) -> Result<Value> {
    let digest = digest(shell, file)?;
    let size = fs::metadata(file)?.len();
    fs::rename(file, image.join("blobs").join(digest.replace(':', "/")))?;
    Ok(json!({"mediaType": media_type, "digest": digest, "size": size}))
}

/// What the last stage of a Containerfile says of how its image is run.
fn settings(containerfile: &str) -> Result<Value> {
    let stage = containerfile.rsplit_once("\nFROM scratch\n").ok_or("no stage from scratch")?.1;
    let (mut variables, mut others) = (Vec::new(), Map::new());
    let [mut ports, mut labels, mut volumes] = [(); 3].map(|()| Map::new());
    let is_file = |line: &&str| line.starts_with("COPY ") || line.starts_with('#');
    for line in stage.lines().filter(|line| !is_file(line)) {
        let odd = || format!("packaging/Containerfile: `{line}` is not understood");
        let (what, value) = line.split_once(' ').ok_or_else(odd)?;
        match what {
            "ENV" => variables.push(value),
            "EXPOSE" => _ = ports.insert(format!("{value}/tcp"), json!({})),
            "VOLUME" => _ = volumes.insert(value.to_owned(), json!({})),
            "USER" => _ = others.insert("User".to_owned(), json!(value)),
            "ENTRYPOINT" => {
                others.insert("Entrypoint".to_owned(), serde_json::from_str(value)?);
            }
            "LABEL" => {
                let (name, value) = value.split_once('=').ok_or_else(odd)?;
                labels.insert(name.to_owned(), serde_json::from_str(value)?);
            }
            _ => return Err(odd().into()),
        }
    }
    let of_kind = [
        ("Env", json!(variables)),
        ("ExposedPorts", json!(ports)),
        ("Labels", json!(labels)),
        ("Volumes", json!(volumes)),
    ];
    others.extend(of_kind.map(|(name, value)| (name.to_owned(), value)));
    Ok(others.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stage_says_how_the_image_is_run_and_what_is_not_understood_fails() {
        let file = "FROM rust\nRUN make\n\nFROM scratch\nCOPY /dps /dps\nENV A=b\nEXPOSE 1\nVOLUME /d\nUSER 7\n\
            LABEL v=\"1\"\nENTRYPOINT [\"/dps\"]\n";
        let expected = json!({
            "Env": ["A=b"], "ExposedPorts": {"1/tcp": {}}, "Labels": {"v": "1"},
            "Volumes": {"/d": {}}, "User": "7", "Entrypoint": ["/dps"],
        });
        assert_eq!(settings(file).unwrap(), expected);
        for odd in ["RUN make", "ENV", "LABEL v=1 w", "HEALTHCHECK NONE"] {
            assert!(settings(&format!("{file}{odd}\n")).is_err(), "{odd}");
        }
    }
}
