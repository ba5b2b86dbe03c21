//! Device provisioning for Azure IoT: choose a wire by feature, register a device.
