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
 * struct SFClient: one client.
 * @server: where it is registered
 * @id: its connection id
 * @main: its main channel; referenced
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
