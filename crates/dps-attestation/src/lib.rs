//! Who the device is: SAS tokens, group-key derivation and X.509 identities for the Azure IoT Hub Device Provisioning Service.
