/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parts of the agent's protocol share.  Which part does what is in
 * the theory of operation, vdagent.c.
 */
#ifndef CHARDEV_SPICEFLOW_CORE_VDAGENT_PRIV_H
#define CHARDEV_SPICEFLOW_CORE_VDAGENT_PRIV_H

#include "chardev/spiceflow/vdagent-state.h"
#include "chardev/spiceflow/wire.h"

#include <spice/vd_agent.h>

#define CHUNK_HEADER_SIZE   8
#define HEADER_SIZE         20
#define NO_LIMIT            UINT32_MAX
#define OWNER_GUEST         UINT32_MAX  /* in what is shown; no client's id */
#define NO_CLIENT           UINT32_MAX  /* who asked is gone */

typedef SpiceVdagent Agent;
typedef SpiceVdagentClient Client;
typedef SpiceVdagentCaps Caps;
typedef SpiceVdagentQuestions Questions;
typedef SpiceVdagentSelection Selection;
typedef SpiceVdagentNotice Notice;

struct SpiceVdagentClient {
    GList link;
    Agent *agent;
    SpiceVdagentClientState s;
    GQueue statuses;            /* Status, due to it */
    uint32_t num_xfers;
    /* chunk header, kept prefix, header of the chunk with the rest */
    uint8_t head[CHUNK_HEADER_SIZE + SPICE_VDAGENT_PREFIX_MAX +
                 CHUNK_HEADER_SIZE];
};

struct SpiceVdagent {
    const SpiceVdagentOps *ops;
    void *opaque;
    SpiceVdagentPolicy policy;
    SpiceVdagentState s;
    GQueue clients;             /* oldest first */
    uint32_t num_started;
    struct {
        bool current;
        unsigned count;
        Caps any;
        uint32_t all;
    } together;                 /* of all clients: vdagent-caps.c */

    GQueue xfers;               /* Xfer, oldest first, cancelled ones too */
    GHashTable *xfer_by_guest;  /* by guest's id: all */
    GHashTable *xfer_by_client; /* by client and its id: not cancelled ones */
    uint32_t num_cancelled;

    uint64_t messages[SPICE_VDAGENT_EV__MAX];
};

typedef struct Xfer {
    GList link;
    uint64_t client_key;
    SpiceVdagentOutcome outcome;    /* if it ended now */
    SpiceVdagentXferState x;
} Xfer;

/* The beginning of a message, as far as it is looked at. */
typedef struct Message {
    uint32_t type;
    uint32_t size;
    uint8_t *payload;           /* may be rewritten */
    size_t have;                /* bytes there, at most size */
} Message;

/* vdagent.c */
void vdagent_event(Agent *agent, SpiceVdagentEvent event, uint32_t client,
                   const Message *msg);
void vdagent_transfer(Agent *agent, const SpiceVdagentTransfer *transfer);
/* The client with an id if it has started, else NULL. */
Client *vdagent_started(const Agent *agent, uint32_t id);
/* The one client that has started, or NULL when there are more or none. */
Client *vdagent_only(const Agent *agent);
void vdagent_take_away(Agent *agent, const SpiceVdagentPolicy *old);
/* Whether the guest has not begun to get that piece of a client. */
bool vdagent_is_queued(const Agent *agent, uint32_t client, uint64_t passed);

static inline Client *client_of(const GList *link)
{
    return link->data;
}

#define FOREACH_STARTED(agent, client, l) \
    for (GList *l = (agent)->clients.head; l; l = l->next) \
        for (Client *client = client_of(l); client; client = NULL) \
            if (client->s.started)

/* vdagent-chunk.c */
/* How much of a message of @type has to be there before it is judged. */
size_t vdagent_prefix_size(uint32_t type, uint32_t size);
/* A client does not receive any more; the last one takes the piece along. */
void vdagent_stop_receiving(Client *client);

/*
 * vdagent-filter.c: true when the message goes on.  From the guest: to the
 * clients that are marked as receiving.
 */
bool vdagent_from_guest(Agent *agent, Message *msg);
bool vdagent_from_client(Client *client, Message *msg);
/* For the parts below: mark, report, and return what those do. */
bool vdagent_to_all(Agent *agent, const Message *msg);
bool vdagent_to_one(Client *client, const Message *msg);
bool vdagent_to_guest(Client *client, const Message *msg);
/* @client is NULL for a message of the guest's. */
bool vdagent_refuse(Agent *agent, SpiceVdagentEvent why, const Client *client,
                    const Message *msg);
void vdagent_question_add(Questions *questions, const Client *client,
                          uint32_t type);
/* The guest forgot those that it has got; each goes to @fn, if there is one. */
void vdagent_questions_forgotten(Agent *agent, Questions *questions,
                                 void (*fn)(Agent *, uint32_t client,
                                            unsigned arg), unsigned arg);
/* Both return false when there is none. */
bool vdagent_question_take(Questions *questions, unsigned i, uint32_t *client,
                           uint32_t *type);
/* The answers to @client's are for nobody; they still come in their order. */
void vdagent_question_disown(Questions *questions, uint32_t client);
void vdagent_replies_client_gone(Agent *agent, uint32_t id);
uint32_t vdagent_max_value(const Agent *agent);

/* vdagent-caps.c */
bool vdagent_caps_from_guest(Agent *agent, Message *msg);
bool vdagent_caps_from_client(Client *client, Message *msg);
bool vdagent_caps_has(const Caps *caps, unsigned cap);
/* What the guest, or a client, is to know of the other side. */
void vdagent_caps_for_guest(Agent *agent, Caps *caps);
void vdagent_caps_for_client(Agent *agent, Caps *caps);
bool vdagent_caps_equal(const Caps *a, const Caps *b);
/* Grabs can not be counted if some do not get through; see vdagent-caps.c. */
void vdagent_caps_check_serial(Agent *agent);
/* A client announced, started or went. */
void vdagent_caps_changed(Agent *agent);
/* Whether clipboard messages begin with their selection. */
bool vdagent_caps_selection(const Agent *agent);

/* vdagent-clipboard.c */
bool vdagent_clipboard_from_guest(Agent *agent, Message *msg);
bool vdagent_clipboard_from_client(Client *client, Message *msg);
void vdagent_clipboard_client_gone(Agent *agent, uint32_t id);
void vdagent_clipboard_client_joined(Client *client);
/* The guest dropped all it knew of its clients. */
void vdagent_clipboard_forgotten(Agent *agent);
void vdagent_clipboard_take_away(Agent *agent, const SpiceVdagentPolicy *old);
/* Contents break off.  Returns whether nothing comes of what the guest has. */
bool vdagent_clipboard_mend(Client *client, unsigned index);
void vdagent_clipboard_clear(Agent *agent);

/* vdagent-xfer.c */
void vdagent_xfer_init(Agent *agent);
void vdagent_xfer_free(Agent *agent);
bool vdagent_xfer_from_guest(Agent *agent, Message *msg);
bool vdagent_xfer_from_client(Client *client, Message *msg);
void vdagent_xfer_client_gone(Client *client);
/* All transfers end with @result; the guest is told. */
void vdagent_xfer_end_all(Agent *agent, uint32_t result);
/* The data of one breaks off: it ends. */
void vdagent_xfer_mend(Client *client, uint32_t guest_id);
/* The guest forgot those that it has heard of. */
void vdagent_xfer_forgotten(Agent *agent);
void vdagent_xfer_clear(Agent *agent);
bool vdagent_xfer_take_cancelled(Agent *agent, uint32_t *guest_id);
bool vdagent_xfer_take_status(Client *client, uint32_t *id, uint32_t *result);
/* For saving and restoring. */
void vdagent_xfer_insert(Agent *agent, const SpiceVdagentXferState *x);
void vdagent_xfer_status_add(Client *client, uint32_t id, uint32_t result);
/* From @to[@at] on; returns where the next ones go. */
uint32_t vdagent_xfer_save_statuses(const Client *client,
                                    SpiceVdagentStatusState *to, uint32_t at);

/* vdagent-mend.c */
/* The client's message ends here.  False when the guest has to forget it. */
bool vdagent_mend(Client *client);
void vdagent_mend_forget(Agent *agent);
bool vdagent_mend_take(Agent *agent, Notice *notice);
/* What is wrong with a saved state, or NULL. */
const char *vdagent_mend_check(const SpiceVdagentState *s);

#endif
