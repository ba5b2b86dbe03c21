//! The Azure IoT Hub Device Provisioning Service on loopback: real credential checks, scripted faults.
