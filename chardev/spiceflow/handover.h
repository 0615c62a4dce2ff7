/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clients that follow the VM in a live migration: what becomes of them at the
 * source (handover-source.c) and at the target (handover-target.c).
 */
#ifndef CHARDEV_SPICEFLOW_HANDOVER_H
#define CHARDEV_SPICEFLOW_HANDOVER_H

#include "migration/misc.h"
#include "qobject/qdict.h"
#include "qemu/timer.h"
#include "saved.h"
#include "server.h"
#include "system/runstate.h"

/**
 * struct SFHandover: of one server.  SFServer.handover.
 * @server: whose it is
 * @target: the property, NULL for none
 * @host: in it; @where points there
 * @where: where clients are to go
 * @migration: tells of the beginning and the end of a migration
 * @shutdown: tells that this QEMU is about to end
 * @run_state: tells that the VM starts
 * @ending: what is to be done at the end of a migration, by the main loop
 * @ended: with which event
 * @active: a migration is under way
 * @frozen: the devices' state is being saved, or is on its way
 * @deadline: whoever has not gone, or come, is given up
 * @joining: clients that have connected while their VM is not here
 * @num_joining: how many
 * @lost: clients given up so far
 */
typedef struct SFHandover {
    SFServer *server;
    char *target;
    char *host;
    SpiceFlowTarget where;
    NotifierWithReturn migration;
    Notifier shutdown;
    VMChangeStateEntry *run_state;
    QEMUBH *ending;
    MigrationEventType ended;
    bool active;
    bool frozen;
    QEMUTimer *deadline;
    QTAILQ_HEAD(, SFClient) joining;
    uint32_t num_joining;
    uint64_t lost;
} SFHandover;

/**
 * sf_handover_new: clients of a server may go and come from here on.
 * @server: the server
 */
SFHandover *sf_handover_new(SFServer *server);
void sf_handover_free(SFHandover *handover);

/**
 * sf_handover_check_target: whether a text can be a target.
 * @text: HOST:PORT
 * @errp: pointer to a NULL-initialized error object
 *
 * Returns: false when it can not.
 */
bool sf_handover_check_target(const char *text, Error **errp);

/**
 * sf_handover_set_target: where clients are to go with the next migration.
 * Those there are are asked at once.
 * @handover: of the server
 * @text: checked; NULL or "" for nowhere
 * @errp: pointer to a NULL-initialized error object
 *
 * Returns: false when it is too late.
 */
bool sf_handover_set_target(SFHandover *handover, const char *text,
                            Error **errp);

/**
 * sf_handover_stats: how far it is.
 * @handover: of the server
 */
QDict *sf_handover_stats(SFHandover *handover);

/**
 * sf_handover_move: how far a client is; one that has arrived stays here.
 * @client: the client
 */
SFMove sf_handover_move(SFClient *client);

/**
 * sf_handover_client_state: the same in one word.
 * @client: the client
 */
const char *sf_handover_client_state(SFClient *client);

/* handover-source.c */

/**
 * sf_handover_answer: a client has tried to connect to the target.
 * @client: the client
 * @move: SF_MOVE_REFUSED, SF_MOVE_CONNECTED or SF_MOVE_SEAMLESS
 */
void sf_handover_answer(SFClient *client, SFMove move);

/**
 * sf_handover_saves: whether some client is to go on at the target, so that
 * each device has to carry its part of it.
 * @server: the server
 */
bool sf_handover_saves(const SFServer *server);

/**
 * sf_handover_save: a device's state is about to be saved: clients that are to
 * go on at the target are heard no more, and listed.
 * @server: the server
 * @moving: its clients are filled in
 */
void sf_handover_save(SFServer *server, SFMoving *moving);

/* The events, for handover.c. */
void sf_handover_ask_all(SFHandover *handover);
void sf_handover_cancel_all(SFHandover *handover);
void sf_handover_send_all(SFHandover *handover);

/* handover-target.c */

/**
 * sf_handover_joining: the client that has connected with an id.
 * @server: the server
 * @id: connection id
 *
 * Returns: the client, or NULL.
 */
SFClient *sf_handover_joining(SFServer *server, uint32_t id);

/**
 * sf_handover_may_join: whether a client may come with its connection id.
 * @server: the server
 * @id: its id, not 0
 *
 * Returns: SPICE_LINK_ERR_OK, or the link result to answer with.
 */
uint32_t sf_handover_may_join(SFServer *server, uint32_t id);

/**
 * sf_handover_join: its main channel is linked.
 * @server: the server
 * @id: its id
 * @main: the channel
 */
void sf_handover_join(SFServer *server, uint32_t id, SFChannel *main);

/**
 * sf_handover_may_open: whether a client that is joining may have a channel.
 * @client: the client
 * @type: SPICE_CHANNEL_*
 * @id: its number
 *
 * Returns: as sf_handover_may_join().
 */
uint32_t sf_handover_may_open(SFClient *client, uint8_t type, uint8_t id);

/**
 * sf_handover_open: that channel is linked.
 * @client: the client
 * @channel: the channel
 */
void sf_handover_open(SFClient *client, SFChannel *channel);

/**
 * sf_handover_list: a device's state speaks of clients that are to go on here.
 * @server: the server
 * @moving: those
 */
void sf_handover_list(SFServer *server, const SFMoving *moving);

/**
 * sf_handover_awaited: the client whose state a device has just loaded, if it
 * is to go on here.
 * @device: the device
 * @id: connection id
 *
 * Returns: the client, on its way, or NULL: it is lost.
 */
SFClient *sf_handover_awaited(SFDevice *device, uint32_t id);

/**
 * sf_handover_give_way: make room for a client that connects by itself, once
 * the VM is here.  Of those who joined before, one that was told too late to
 * join is such a client itself: its old connection would keep its place.
 * @handover: of the server
 *
 * Returns: whether one had to go.
 */
bool sf_handover_give_way(SFHandover *handover);

/* The VM starts; and the time is over.  For handover.c. */
void sf_handover_arrive(SFHandover *handover);
void sf_handover_give_up_joining(SFHandover *handover);

#endif
