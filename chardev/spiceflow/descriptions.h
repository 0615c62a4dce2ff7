/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What -object spiceflow-server,help says of each property.
 *
 * Made from qapi-qom.json by scripts/docs --write; change it there.
 */
#ifndef CHARDEV_SPICEFLOW_DESCRIPTIONS_H
#define CHARDEV_SPICEFLOW_DESCRIPTIONS_H

static const struct {
    const char *name;
    const char *text;
} sf_server_descriptions[] = {
    { "addr",
      "address to listen on" },
    { "tls-creds",
      "ID of a tls-creds-x509 or tls-creds-psk object with endpoint=server; "
      "clients must then use TLS (default: no TLS)" },
    { "tls-authz",
      "ID of an authz-* object that is asked about the distinguished name of "
      "each client's certificate (default: all that verify)" },
    { "password-secret",
      "ID of a secret object that holds the password (SPICE ticket) clients "
      "must give, at most 60 bytes (default: no password)" },
    { "max-clients",
      "clients served at a time, 1 to 1024 (default: 1)" },
    { "agent-window",
      "messages that an agent client may send ahead, 1 to 4096 (default: 64)" },
    { "agent-clipboard",
      "which way the clipboard may travel (default: both)" },
    { "agent-max-clipboard",
      "largest clipboard contents in bytes, each way, at most 4G less 1 "
      "(default: 100M)" },
    { "agent-file-transfer",
      "whether clients may copy files into the guest (default: on)" },
    { "link-timeout",
      "milliseconds that a new connection has to say who it is (default: "
      "10000)" },
    { "stall-timeout",
      "milliseconds after which a client is removed that takes nothing while "
      "other clients of the same device wait for it (default: 30000)" },
    { "max-pending-links",
      "connections at a time that have not said yet who they are, 1 to 65536 "
      "(default: 64)" },
    { "migrate-target",
      "HOST:PORT of the SPICE server that clients follow their machine to in "
      "its next live migration; empty for nowhere (default: nowhere)" },
    { "migrate-timeout",
      "milliseconds that a client has to go to the target after the "
      "migration, and there to come (default: 10000)" },
};

#endif
