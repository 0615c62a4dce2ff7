# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates for TLS, made with GnuTLS's certtool into a test's folder."""

import os
import subprocess

from .paths import RigError


class Certificates:
    """An authority, a server and clients in the folders that QEMU wants.

    server: ca-cert.pem, server-cert.pem, server-key.pem for tls-creds-x509
    client(NAME): certificate and key files of one with that common name
    """

    def __init__(self, folder):
        self.folder = folder
        self.server = os.path.join(folder, "server")
        os.makedirs(self.server)
        self.authority = os.path.join(self.server, "ca-cert.pem")
        self.authority_key = self._key("ca")
        self._certtool("--generate-self-signed", "--load-privkey",
                       self.authority_key, "--outfile", self.authority,
                       template="cn = tests\nca\ncert_signing_key\n")
        key = self._key("server/server")
        self._sign(key, os.path.join(self.server, "server-cert.pem"),
                   "cn = localhost\ntls_www_server\nsigning_key\n"
                   "dns_name = localhost\nip_address = 127.0.0.1\n")

    def _certtool(self, *words, template=None):
        if template is not None:
            path = os.path.join(self.folder, "template")
            with open(path, "w", encoding="ascii") as file:
                file.write(template + "expiration_days = 2\n")
            words += ("--template", path)
        try:
            done = subprocess.run(["certtool", *words], check=False,
                                  stdout=subprocess.PIPE, text=True,
                                  stderr=subprocess.STDOUT)
        except FileNotFoundError:
            raise RigError("certtool is not installed; run scripts/setup") \
                from None
        if done.returncode:
            raise RigError("certtool: " + done.stdout[-500:])

    def _key(self, name):
        path = os.path.join(self.folder, name + "-key.pem")
        self._certtool("--generate-privkey", "--key-type=ecdsa",
                       "--curve=secp256r1", "--outfile", path)
        return path

    def _sign(self, key, path, template):
        self._certtool("--generate-certificate", "--load-privkey", key,
                       "--load-ca-certificate", self.authority,
                       "--load-ca-privkey", self.authority_key,
                       "--outfile", path, template=template)

    def client(self, name):
        """(certificate file, key file) of a client."""
        key = self._key(name)
        path = os.path.join(self.folder, name + "-cert.pem")
        self._sign(key, path, "cn = %s\ntls_www_client\nsigning_key\n" % name)
        return path, key

    def creds_args(self, name="tls0", verify_peer=False):
        """Options for QEMU's credentials object."""
        return ["-object", "tls-creds-x509,id=%s,dir=%s,endpoint=server,"
                "verify-peer=%s" % (name, self.server,
                                    "on" if verify_peer else "off")]
