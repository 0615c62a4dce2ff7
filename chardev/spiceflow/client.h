/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One SPICE client: its main channel and the channels that carry its
 * connection id.
 */
#ifndef CHARDEV_SPICEFLOW_CLIENT_H
#define CHARDEV_SPICEFLOW_CLIENT_H

#include "qemu/queue.h"
#include "channel.h"

typedef struct SFServer SFServer;

/**
 * SFMove: how far a client is on its way to another server.  In its order.
 * @SF_MOVE_NONE: it stays
 * @SF_MOVE_ASKED: source: it was told of the target
 * @SF_MOVE_REFUSED: source: it could not connect there
 * @SF_MOVE_CONNECTED: source: it has, and will begin anew there
 * @SF_MOVE_SEAMLESS: source: it has, and will go on there
 * @SF_MOVE_FROZEN: source: likewise, and the devices' state is saved
 * @SF_MOVE_LEAVING: source: it was told to go
 * @SF_MOVE_JOINING: target: it has connected, and nothing is agreed
 * @SF_MOVE_AGREED: target: it is to go on here
 * @SF_MOVE_ARRIVING: target: its devices' state is here, what it brings along
 *   is not yet
 */
typedef enum {
    SF_MOVE_NONE,
    SF_MOVE_ASKED,
    SF_MOVE_REFUSED,
    SF_MOVE_CONNECTED,
    SF_MOVE_SEAMLESS,
    SF_MOVE_FROZEN,
    SF_MOVE_LEAVING,
    SF_MOVE_JOINING,
    SF_MOVE_AGREED,
    SF_MOVE_ARRIVING,
} SFMove;

/**
 * struct SFClient: one client.
 * @server: where it is registered
 * @id: its connection id
 * @main: its main channel; referenced
 * @channels: its other channels, closed ones perhaps among them; referenced
 * @opened: how many there were so far
 * @move: whether it goes or comes
 * @move_opened: @opened when it was asked to go
 * @move_open: how many of them were open then
 * @move_questions: how often it was asked, and has not answered
 * @listed: the state of some device speaks of it
 * @ended: it has said MIGRATE_END
 * @attached: it has had its first channel list
 * @removing: it is on its way out
 * @reason: why, then
 * @why: the same as one phrase
 * @keepalive: looks after a peer that vanished, on TCP
 * @pings: how many were sent
 * @agent_window: client tokens toward the agent that it was told last
 * @agent_unanswered: how often it was told that there is an agent, and has not
 *   said AGENT_START since
 * @agent: the agent's state of the client, owned by the agent device.  NULL
 *   while there is none; then the following counts
 * @agent_left: bytes of the agent message it is in that are still to come
 * @agent_owed: client tokens it has spent that nobody gave back
 * @agent_stale: agent messages on their way to it that nobody waits for
 */
typedef struct SFClient {
    SFServer *server;
    uint32_t id;
    SFChannel *main;
    GPtrArray *channels;
    uint32_t opened;
    SFMove move;
    uint32_t move_opened;
    uint32_t move_open;
    uint32_t move_questions;
    bool listed;
    bool ended;
    bool attached;
    bool removing;
    SFReason reason;
    const char *why;
    QEMUTimer *keepalive;
    uint32_t pings;
    uint32_t agent_window;
    uint32_t agent_unanswered;
    void *agent;
    uint64_t agent_left;
    uint32_t agent_owed;
    uint32_t agent_stale;
    QTAILQ_ENTRY(SFClient) next;
} SFClient;

/**
 * sf_client_new: a client whose main channel was linked; says INIT.
 * @server: who it belongs to
 * @id: its connection id, not 0
 * @main: its main channel; a reference is taken
 *
 * Returns: the client, already registered.
 */
SFClient *sf_client_new(SFServer *server, uint32_t id, SFChannel *main);

/**
 * sf_client_alloc: a client that is not registered yet.
 * @server: who it will belong to
 * @id: its connection id, not 0
 * @main: its main channel; a reference is taken
 */
SFClient *sf_client_alloc(SFServer *server, uint32_t id, SFChannel *main);

/**
 * sf_client_register: a client begins to be one: the devices hear of it.
 * @client: of sf_client_alloc()
 */
void sf_client_register(SFClient *client);

/**
 * sf_client_free: free a client that is not registered, or not any more.
 * @client: the client, its channels closed
 */
void sf_client_free(SFClient *client);

/**
 * sf_client_add_channel: a channel of the client has passed its link phase.
 * @client: the client
 * @channel: a reference is taken
 */
void sf_client_add_channel(SFClient *client, SFChannel *channel);

/**
 * sf_client_remove: close all channels of a client and free it.
 * @client: the client
 * @reason: why
 * @why: the same as one phrase, or NULL
 */
void sf_client_remove(SFClient *client, SFReason reason, const char *why);

/**
 * sf_client_notify: tell the client's user something.
 * @client: the client
 * @severity: SPICE_NOTIFY_SEVERITY_*
 * @text: one line
 */
void sf_client_notify(SFClient *client, uint32_t severity, const char *text);

/* main-channel.c */

/**
 * sf_main_channel_start: say INIT, NAME and UUID, and listen.
 * @client: the client
 */
void sf_main_channel_start(SFClient *client);

/**
 * sf_main_channel_resume: listen to a client that has been told all that
 * elsewhere.
 * @client: the client
 */
void sf_main_channel_resume(SFClient *client);

/**
 * sf_main_channel_add: tell a client of one more channel.
 * @client: the client
 * @channel: the channel
 */
void sf_main_channel_add(SFClient *client, SpiceFlowChannelId channel);

/**
 * sf_main_channel_agent_connected: tell a client that the guest's agent is
 * there, and its new window if it understands that.
 * @client: the client
 */
void sf_main_channel_agent_connected(SFClient *client);

/**
 * sf_main_channel_agent_disconnected: tell a client that the agent is gone.
 * @client: the client
 */
void sf_main_channel_agent_disconnected(SFClient *client);

/**
 * sf_main_channel_agent_tokens: tell a client that it may send more.
 * @client: the client
 * @n: messages
 */
void sf_main_channel_agent_tokens(SFClient *client, uint32_t n);

#endif
