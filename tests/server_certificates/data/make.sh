#!/bin/sh
# Makes the certificates that the test itself can't: signed in ways that are no longer secure, or by keys that are.
# Each is for localhost and signed by the authority beside it; server.key.pem is the key of all of them.
# Needs OpenSSL 3. Run it in this folder.
set -eu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
quiet() { "$@" 2>/dev/null; }

quiet openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out server.key.pem
quiet openssl req -new -key server.key.pem -subj /CN=localhost -out "$work/server.csr"
cat > "$work/config" <<END
[ca]
default_ca = test
[test]
database = $work/index
new_certs_dir = $work
rand_serial = yes
policy = any
default_startdate = 20200101000000Z
default_enddate = 21200101000000Z
[any]
commonName = supplied
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:localhost
extendedKeyUsage = serverAuth
END

# authority NAME GENPKEY-OPTIONS..: an authority with such a key.
authority() {
    name=$1
    shift
    quiet openssl genpkey "$@" -out "$work/ca.key"
    quiet openssl req -x509 -new -key "$work/ca.key" -sha256 -days 36500 -subj "/CN=Test CA $name" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -out "$name.ca.pem"
}

# server NAME DIGEST OPTIONS..: a certificate that the authority signs with the digest.
server() {
    name=$1 digest=$2
    shift 2
    : > "$work/index"
    quiet openssl ca -batch -notext -config "$work/config" -in "$work/server.csr" -cert "$name.ca.pem" \
        -keyfile "$work/ca.key" -md "$digest" "$@" -out "$name.server.pem"
}

# make NAME DIGEST GENPKEY-OPTIONS..: both.
make() {
    name=$1 digest=$2
    shift 2
    authority "$name" "$@"
    server "$name" "$digest" -extensions server
}

make sha1-rsa sha1 -algorithm RSA -pkeyopt rsa_keygen_bits:2048
make md5-rsa md5 -algorithm RSA -pkeyopt rsa_keygen_bits:2048
make sha1-ecdsa sha1 -algorithm EC -pkeyopt ec_paramgen_curve:P-256
make rsa1024 sha256 -algorithm RSA -pkeyopt rsa_keygen_bits:1024
make p521 sha512 -algorithm EC -pkeyopt ec_paramgen_curve:P-521
# Nothing is wrong with this one.
make good sha256 -algorithm RSA -pkeyopt rsa_keygen_bits:2048
# Version 1 has no extensions.
authority version1 -algorithm RSA -pkeyopt rsa_keygen_bits:2048
server version1 sha256
