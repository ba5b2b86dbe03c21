//! The HTTPS wire of the Azure IoT Hub Device Provisioning Service client.
