/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of a device as plain structs, between the device and the stream
 * that carries it.  saved.c describes them to QEMU; migrate.c fills them from
 * a device and puts them into one.
 */
#ifndef CHARDEV_SPICEFLOW_SAVED_H
#define CHARDEV_SPICEFLOW_SAVED_H

#include "chardev/spiceflow/flow.h"
#include "chardev/spiceflow/usbredir.h"
#include "chardev/spiceflow/vdagent-state.h"
#include "chardev/spiceflow/vsc.h"
#include "migration/vmstate.h"

/* Clients there can be: the largest max-clients. */
#define SF_SAVED_CLIENTS_MAX    1024
/*
 * What every device takes, whatever its queue-size: that of the source may be
 * larger.
 */
#define SF_SAVED_DATA_MIN       (64 * 1024 * 1024)

/**
 * struct SFSavedAgentClient: what the agent knows of a client beside its
 * protocol.
 * @id: connection id
 * @window: client tokens that it was told last
 * @owed: tokens that it spent outside of any window
 */
typedef struct SFSavedAgentClient {
    uint32_t id;
    uint32_t window;
    uint32_t owed;
} SFSavedAgentClient;

/**
 * struct SFSavedAgent: of the agent.
 * @broken: the guest broke the protocol and has not closed its port since
 * @clients: in any order
 * @vdagent: the protocol
 */
typedef struct SFSavedAgent {
    bool broken;
    uint32_t num_clients;
    SFSavedAgentClient *clients;
    SpiceVdagentSaved vdagent;
} SFSavedAgent;

/**
 * struct SFSavedVmc: of a raw device.
 * @pending: bytes received from the client that the flow machine does not have
 * @guard: of usbredir
 */
typedef struct SFSavedVmc {
    uint32_t pending_size;
    uint8_t *pending;
    SpiceFlowUsbredirSaved guard;
} SFSavedVmc;

/**
 * struct SFSavedCard: of a smart card.
 * @added: the guest has the reader
 * @removing: its client asked for its removal
 * @stale_answers: answers of the device that are for nobody
 * @commands: commands of the client without an answer
 * @parser: of what the device says
 */
typedef struct SFSavedCard {
    bool added;
    bool removing;
    uint32_t stale_answers;
    uint32_t commands;
    SpiceFlowVscSaved parser;
} SFSavedCard;

/**
 * struct SFSaved: of one device.
 * @data_max: bytes that @flow and @vmc may claim; not in the stream
 * @type: SPICE_CHANNEL_*
 * @guest_open: the guest has opened its side
 * @host_open: the frontend sees a client
 * @flow: the flow machine
 * @agent: with SPICE_CHANNEL_MAIN
 * @card: with SPICE_CHANNEL_SMARTCARD
 * @vmc: with any other
 */
typedef struct SFSaved {
    uint32_t data_max;
    uint8_t type;
    bool guest_open;
    bool host_open;
    SpiceFlowSaved flow;
    SFSavedAgent agent;
    SFSavedVmc vmc;
    SFSavedCard card;
} SFSaved;

/**
 * struct SFMovingClient: a client that is to go on where the state is loaded.
 * @id: connection id
 * @unanswered: SFClient.agent_unanswered
 */
typedef struct SFMovingClient {
    uint32_t id;
    uint32_t unanswered;
} SFMovingClient;

/**
 * struct SFMoving: what a device tells of them, beside its own state.  Only in
 * a migration that clients follow.
 * @place: by which number they know the device
 * @num: how many
 * @clients: those
 */
typedef struct SFMoving {
    uint32_t place;
    uint32_t num;
    SFMovingClient *clients;
} SFMoving;

/* A subsection's body.  For an SFMoving. */
extern const VMStateDescription sf_vmstate_moving;

/**
 * sf_moving_clear: free what a save or a load has filled.
 * @moving: the list; zeroed
 */
void sf_moving_clear(SFMoving *moving);

/*
 * The section's body.  For an SFSaved: the owner's own description has the
 * hooks that fill and use it.
 */
extern const VMStateDescription sf_vmstate_saved;

/**
 * sf_saved_clear: free what a save or a load has filled.
 * @saved: the state; zeroed but for data_max
 */
void sf_saved_clear(SFSaved *saved);

#endif
