/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * As much of a SPICE client as the qtests need: the link phase without a
 * password, and messages with the short header.  Everything waits for at most
 * a few seconds and fails the test then.
 */
#ifndef SPICEFLOW_QTEST_CLIENT_H
#define SPICEFLOW_QTEST_CLIENT_H

#define SPICE_TEST_MAIN         1
#define SPICE_TEST_SMARTCARD    8
#define SPICE_TEST_PORT         10

#define SPICE_TEST_DATA         101
#define SPICE_TEST_PORT_INIT    201
#define SPICE_TEST_PORT_EVENT   202     /* to the client */
#define SPICE_TEST_SEND_EVENT   201     /* from it */

#define SPICE_TEST_OPENED       0
#define SPICE_TEST_CLOSED       1
#define SPICE_TEST_BREAK        2

typedef struct SpiceTestChannel SpiceTestChannel;

/**
 * spice_test_main: link a main channel.
 * @path: UNIX socket of the server
 * @session: set to the session's id
 *
 * Returns: the channel, behind its INIT.
 */
SpiceTestChannel *spice_test_main(const char *path, uint32_t *session);

/**
 * spice_test_open: link another channel.
 * @path: UNIX socket of the server
 * @type: its type
 * @id: its number
 * @session: id of the session
 *
 * Returns: the channel.
 */
SpiceTestChannel *spice_test_open(const char *path, uint8_t type, uint8_t id,
                                  uint32_t session);
void spice_test_close(SpiceTestChannel *channel);

/**
 * spice_test_send: send a message.
 * @channel: the channel
 * @type: its type
 * @body: its body
 * @len: bytes of that
 */
void spice_test_send(SpiceTestChannel *channel, uint16_t type,
                     const void *body, size_t len);

/**
 * spice_test_push: send the bytes of messages until nothing more is taken.
 * @channel: the channel
 * @data: one message or many, with headers
 * @len: bytes of that
 *
 * Returns: how many were taken.
 */
size_t spice_test_push(SpiceTestChannel *channel, const uint8_t *data,
                       size_t len);

/**
 * spice_test_receive: the next message.
 * @channel: the channel
 * @type: set to its type
 *
 * Returns: its body.
 */
GByteArray *spice_test_receive(SpiceTestChannel *channel, uint16_t *type);

/**
 * spice_test_expect: the next message must have this type.
 * @channel: the channel
 * @type: its type
 *
 * Returns: its body.
 */
GByteArray *spice_test_expect(SpiceTestChannel *channel, uint16_t type);

/**
 * spice_test_receive_data: raw bytes, whatever messages they come in.
 * @channel: the channel
 * @data: filled
 * @len: how many
 */
void spice_test_receive_data(SpiceTestChannel *channel, uint8_t *data,
                             size_t len);

/**
 * spice_test_silent: whether nothing comes for a while.
 * @channel: the channel
 * @ms: how long
 */
bool spice_test_silent(SpiceTestChannel *channel, int ms);

/**
 * spice_test_hung_up: the server closes the channel, after whatever else.
 * @channel: the channel
 */
void spice_test_hung_up(SpiceTestChannel *channel);

/**
 * spice_test_pattern: fill with bytes that tell where they belong.
 * @data: filled
 * @offset: of the first byte
 * @len: how many
 */
void spice_test_pattern(uint8_t *data, size_t offset, size_t len);

#endif
