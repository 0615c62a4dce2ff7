/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The SPICE ticket: a password that the client encrypts with a key of the
 * server's.
 */
#ifndef CHARDEV_SPICEFLOW_TICKET_H
#define CHARDEV_SPICEFLOW_TICKET_H

#include "chardev/spiceflow/wire.h"

typedef struct SFTicketKey SFTicketKey;

/* Longest password that clients send: SPICE_MAX_PASSWORD_LENGTH. */
#define SF_PASSWORD_MAX     SPICE_MAX_PASSWORD_LENGTH

/**
 * sf_ticket_key_new: make a key pair, RSA-1024 as the protocol demands.
 * @errp: pointer to a NULL-initialized error object
 *
 * Returns: the key, to be freed with sf_ticket_key_free(), or NULL.
 */
SFTicketKey *sf_ticket_key_new(Error **errp);

/**
 * sf_ticket_key_free: free a key.
 * @key: the key, or NULL
 */
void sf_ticket_key_free(SFTicketKey *key);

/**
 * sf_ticket_key_public: the public half as a DER SubjectPublicKeyInfo.
 * @key: the key
 *
 * Returns: SPICE_FLOW_PUBKEY_SIZE bytes that live as long as the key.
 */
const uint8_t *sf_ticket_key_public(const SFTicketKey *key);

/**
 * sf_ticket_check: whether a ticket holds the password.  The time it takes
 * does not depend on how much of the password is right.
 * @key: the key that the client was given
 * @ticket: SPICE_FLOW_TICKET_SIZE bytes: RSA-OAEP with SHA-1 and no label, of
 *   the password with its NUL
 * @password: what it must be, whole
 *
 * Returns: true when it is.
 */
bool sf_ticket_check(const SFTicketKey *key, const uint8_t *ticket,
                     const char *password);

#endif
