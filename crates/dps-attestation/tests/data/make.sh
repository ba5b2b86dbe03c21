#!/bin/sh
# Makes the files in this folder anew, with OpenSSL 3: what the tests can't make themselves.
# THROWAWAY TEST KEYS: they are public and prove nothing. Never enroll one anywhere.
set -eu
cd "$(dirname "$0")"
days=34400 # past 2120

certificate() { # key, file name, common name
    openssl req -x509 -new -key "$1" -out "$2" -days $days -subj "/CN=$3"
}

# RSA, one key in every format
openssl genrsa -traditional -out rsa2048.pkcs1.pem 2048
openssl pkcs8 -topk8 -nocrypt -in rsa2048.pkcs1.pem -out rsa2048.pkcs8.pem
openssl pkcs8 -topk8 -passout pass:test -in rsa2048.pkcs1.pem -out rsa2048.encrypted-pkcs8.pem
openssl rsa -traditional -aes256 -passout pass:test -in rsa2048.pkcs1.pem -out rsa2048.encrypted-pkcs1.pem
openssl pkey -in rsa2048.pkcs1.pem -pubout -out rsa2048.public.pem
certificate rsa2048.pkcs8.pem rsa2048.cert.pem rsa-device
openssl x509 -in rsa2048.cert.pem -trustout -addtrust clientAuth -out rsa2048.trusted-cert.pem
openssl req -new -key rsa2048.pkcs8.pem -subj /CN=rsa-device -out rsa2048.csr.pem
openssl crl2pkcs7 -nocrl -certfile rsa2048.cert.pem -out rsa2048.p7b.pem
openssl pkcs12 -export -passout pass:test -inkey rsa2048.pkcs8.pem -in rsa2048.cert.pem -out rsa2048.p12

# RSA of other sizes and exponents
openssl genrsa -traditional -out rsa4096.pkcs1.pem 4096
certificate rsa4096.pkcs1.pem rsa4096.cert.pem rsa-device
openssl genrsa -out rsa1024.pkcs8.pem 1024
openssl genrsa -3 -out rsa2048-exponent3.pkcs8.pem 2048

# Elliptic curves; `ecparam -genkey` writes an EC PARAMETERS block first
for curve in prime256v1:p256 secp384r1:p384 secp521r1:p521 secp256k1:secp256k1; do
    name=${curve#*:}
    openssl ecparam -name "${curve%:*}" -genkey -out "$name.sec1.pem"
    openssl pkcs8 -topk8 -nocrypt -in "$name.sec1.pem" -out "$name.pkcs8.pem"
    certificate "$name.sec1.pem" "$name.cert.pem" ec-device
done
openssl ec -in p256.sec1.pem -no_public -out p256-no-public.sec1.pem
openssl pkcs8 -topk8 -nocrypt -in p256-no-public.sec1.pem -out p256-no-public.pkcs8.pem
openssl ec -in p384.sec1.pem -no_public -out p384-no-public.sec1.pem
openssl ec -in p256.sec1.pem -conv_form compressed -out p256-compressed.sec1.pem
openssl ec -in p256.pkcs8.pem -conv_form compressed -out p256-compressed.pkcs8.tmp
openssl pkcs8 -topk8 -nocrypt -in p256-compressed.pkcs8.tmp -out p256-compressed.pkcs8.pem
rm -f p256-compressed.pkcs8.tmp
openssl ec -in p256.sec1.pem -param_enc explicit -out p256-explicit.sec1.pem

# Kinds that are refused
openssl genpkey -algorithm ed25519 -out ed25519.pkcs8.pem
openssl dsaparam -noout -genkey 1024 | openssl pkcs8 -topk8 -nocrypt -out dsa.pkcs8.pem
openssl genpkey -algorithm rsa-pss -pkeyopt rsa_keygen_bits:2048 -out rsa-pss.pkcs8.pem

# A certificate of version 1, as `openssl x509 -req` without extensions makes it
openssl req -new -key p256.sec1.pem -subj /CN=ec-device |
    openssl x509 -req -CA rsa2048.cert.pem -CAkey rsa2048.pkcs8.pem -CAcreateserial -days $days -out p256.version1-cert.pem
rm -f rsa2048.cert.srl
