#!/bin/sh
# certificates.sh FOLDER FAMILY DEVICE: makes a root, an authority below it and a device below that, with openssl so
# that nobody trusts our own code about them. Into FOLDER go FAMILY-root.pem, DEVICE-chain.pem (the device's
# certificate with its authority's) and DEVICE.key. RSA for the device and P-256 above, so that both are seen.
set -eu
config=$(cd "$(dirname "$0")" && pwd)/openssl.cnf
cd "$1"

# certificate NAME KIND ISSUER: NAME.pem and NAME.key, signed by ISSUER, which may be the name itself.
certificate() {
    case $2 in
        device) kind="rsa:2048" ;;
        *) kind="ec -pkeyopt ec_paramgen_curve:P-256" ;;
    esac
    # shellcheck disable=SC2086 # several words
    openssl req -nodes -subj "/CN=$1" -newkey $kind -config "$config" -keyout "$1.key" -out "$1.csr"
    case $3 in
        "$1") set -- "$1" "$2" -signkey "$1.key" ;;
        *) set -- "$1" "$2" -CA "$3.pem" -CAkey "$3.key" -CAcreateserial ;;
    esac
    name=$1 extensions=$2
    shift 2
    openssl x509 -req -days 2 -sha256 -extfile "$config" -extensions "$extensions" "$@" -in "$name.csr" -out "$name.pem"
}

certificate "$2-root" authority "$2-root"
certificate "$2-authority" authority "$2-root"
certificate "$3" device "$2-authority"
cat "$3.pem" "$2-authority.pem" > "$3-chain.pem"
