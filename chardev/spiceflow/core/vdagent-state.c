/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of the agent's protocol, saved and restored.
 *
 * Saving copies the structs that the machine works on.  A restored state may
 * come from anywhere, so it is checked completely before any of it is taken
 * over: what indexes, counts or bounds, what has to agree with something else,
 * and that no field claims what the machine could not have brought about if
 * that would lead it astray.
 */
#include "vdagent-priv.h"

#include <string.h>

void spice_vdagent_save(const SpiceVdagent *agent, SpiceVdagentSaved *saved)
{
    uint32_t n = 0;

    *saved = (SpiceVdagentSaved) {
        .agent = agent->s,
        .clipboard = agent->policy.clipboard,
        .num_clients = agent->clients.length,
        .clients = g_new(SpiceVdagentClientState, agent->clients.length),
        .num_xfers = agent->xfers.length,
        .xfers = g_new(SpiceVdagentXferState, agent->xfers.length),
    };
    for (GList *l = agent->clients.head; l; l = l->next) {
        saved->clients[n++] = client_of(l)->s;
        saved->num_statuses += client_of(l)->statuses.length;
    }
    n = 0;
    for (GList *l = agent->xfers.head; l; l = l->next) {
        saved->xfers[n++] = ((Xfer *)l->data)->x;
    }
    n = 0;
    saved->statuses = g_new(SpiceVdagentStatusState, saved->num_statuses);
    for (GList *l = agent->clients.head; l; l = l->next) {
        n = vdagent_xfer_save_statuses(client_of(l), saved->statuses, n);
    }
}

void spice_vdagent_saved_clear(SpiceVdagentSaved *saved)
{
    g_free(saved->clients);
    g_free(saved->xfers);
    g_free(saved->statuses);
    *saved = (SpiceVdagentSaved) { 0 };
}

size_t spice_vdagent_saved_max(uint32_t max_clients)
{
    return sizeof(SpiceVdagentSaved) +
           SPICE_VDAGENT_XFERS * sizeof(SpiceVdagentXferState) +
           max_clients * (sizeof(SpiceVdagentClientState) +
                          SPICE_VDAGENT_CLIENT_XFERS *
                          sizeof(SpiceVdagentStatusState));
}

/*
 * Checks: each returns NULL, or what does not add up.
 */

static const char *check_caps(const Caps *caps)
{
    if (caps->num > SPICE_VDAGENT_CAPS_WORDS || (!caps->known && caps->num)) {
        return "num";
    }
    for (unsigned i = caps->num; i < SPICE_VDAGENT_CAPS_WORDS; i++) {
        if (caps->word[i]) {
            return "word";
        }
    }
    return NULL;
}

static const char *check_chunk(const SpiceVdagentState *s)
{
    uint32_t port = spice_flow_get_u32(s->chunk_header);

    if (s->error >= SPICE_VDAGENT_GUEST_ERROR__MAX) {
        return "error";
    }
    if (s->chunk_header_len > CHUNK_HEADER_SIZE) {
        return "chunk-header-len";
    }
    if (s->chunk_header_len == CHUNK_HEADER_SIZE &&
        port != VDP_CLIENT_PORT && port != VDP_SERVER_PORT &&
        s->error != SPICE_VDAGENT_GUEST_PORT) {
        return "chunk-header";
    }
    if (s->chunk_header_len == CHUNK_HEADER_SIZE
        ? s->chunk_left > spice_flow_get_u32(s->chunk_header + 4)
        : s->chunk_left) {
        return "chunk-left";
    }
    return NULL;
}

/* The beginning of a message, not judged yet. */
static const char *check_prefix(const SpiceVdagentState *s)
{
    if (s->passing) {
        return "passing";
    }
    if (s->message_left) {
        return "message-left";
    }
    if (s->fill < HEADER_SIZE) {
        return NULL;
    }
    if (s->type != spice_flow_get_u32(s->piece + 4)) {
        return "type";
    }
    if (s->size != spice_flow_get_u32(s->piece + 16)) {
        return "size";
    }
    if (s->fill >= vdagent_prefix_size(s->type, s->size) && !s->error) {
        return "fill";
    }
    return NULL;
}

static const char *check_message(const SpiceVdagentState *s)
{
    if (s->fill > sizeof(s->piece)) {
        return "fill";
    }
    if (!s->judged) {
        return check_prefix(s);
    }
    if (s->message_left + s->fill > (uint64_t)HEADER_SIZE + s->size) {
        return "message-left";
    }
    if (!s->passing && (s->fill || !s->message_left)) {
        return "passing";
    }
    if (s->passing && !s->fill && !s->message_left) {
        return "fill";
    }
    return NULL;
}

static const char *check_selection(const Selection *sel)
{
    if (sel->owner == OWNER_GUEST || (sel->owner && sel->guest_owns)) {
        return "owner";
    }
    if (sel->num_types > SPICE_VDAGENT_GRAB_TYPES) {
        return "num-types";
    }
    if (sel->asked.num > SPICE_VDAGENT_QUESTIONS) {
        return "asked";
    }
    if (sel->refused.num > SPICE_VDAGENT_QUESTIONS) {
        return "refused";
    }
    if (sel->grab_due && !sel->owner) {
        return "grab-due";
    }
    return NULL;
}

static const char *check_client(const SpiceVdagentClientState *s)
{
    if (s->id == 0 || s->id == OWNER_GUEST) {
        return "id";
    }
    if (s->error >= SPICE_VDAGENT_CLIENT_ERROR__MAX) {
        return "error";
    }
    if (s->receiving && !s->started) {
        return "receiving";
    }
    if (s->wanted && !s->started) {
        return "wanted";
    }
    if (s->message_left > (uint64_t)HEADER_SIZE + UINT32_MAX) {
        return "message-left";
    }
    if (s->prefix_len) {
        uint32_t size = spice_flow_get_u32(s->prefix + 16);

        if (s->judged || s->prefix_len < HEADER_SIZE ||
            s->prefix_len >= vdagent_prefix_size(
                spice_flow_get_u32(s->prefix + 4), size)) {
            return "prefix-len";
        }
        if (s->message_left + s->prefix_len != (uint64_t)HEADER_SIZE + size) {
            return "message-left";
        }
    } else if (s->message_left && !s->judged) {
        return "judged";
    }
    return NULL;
}

static bool fail(char **error, const char *where, uint32_t i, const char *what)
{
    *error = g_strdup_printf("agent state: %s %u: bad %s", where, i, what);
    return false;
}

static bool check_agent(const SpiceVdagentState *s, char **error)
{
    const char *wrong = check_chunk(s);

    if (!wrong) {
        wrong = check_message(s);
    }
    if (wrong) {
        *error = g_strdup_printf("agent state: guest's message: bad %s",
                                 wrong);
        return false;
    }
    wrong = check_caps(&s->guest);
    if (wrong) {
        return fail(error, "capabilities", 0, wrong);
    }
    wrong = check_caps(&s->guest_told);
    if (wrong) {
        return fail(error, "capabilities", 1, wrong);
    }
    for (unsigned i = 0; i < SPICE_VDAGENT_SELECTIONS; i++) {
        wrong = check_selection(&s->selection[i]);
        if (wrong) {
            return fail(error, "selection", i, wrong);
        }
    }
    wrong = vdagent_mend_check(s);
    if (wrong) {
        return fail(error, "mend", 0, wrong);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(s->replies); i++) {
        if (s->replies[i].num > SPICE_VDAGENT_QUESTIONS) {
            return fail(error, "replies", i, "num");
        }
    }
    return true;
}

/* Their ids, and whether they have started; NULL when a client is wrong. */
static GHashTable *client_ids(const SpiceVdagentSaved *saved, char **error)
{
    g_autoptr(GHashTable) ids = g_hash_table_new(NULL, NULL);

    for (uint32_t i = 0; i < saved->num_clients; i++) {
        const SpiceVdagentClientState *s = &saved->clients[i];
        const char *wrong = check_client(s);

        if (!wrong) {
            wrong = check_caps(&s->caps) ? "caps" :
                    check_caps(&s->told) ? "told" : NULL;
        }
        if (!wrong && !g_hash_table_insert(ids, GUINT_TO_POINTER(s->id),
                                           GUINT_TO_POINTER(s->started))) {
            wrong = "id, there twice";
        }
        if (wrong) {
            fail(error, "client", i, wrong);
            return NULL;
        }
    }
    return g_steal_pointer(&ids);
}

static bool is_started(GHashTable *ids, uint32_t id)
{
    return g_hash_table_lookup(ids, GUINT_TO_POINTER(id)) != NULL;
}

static bool check_xfers(const SpiceVdagentSaved *saved, GHashTable *ids,
                        char **error)
{
    g_autoptr(GHashTable) guest_ids = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) keys = g_hash_table_new_full(
        g_int64_hash, g_int64_equal, g_free, NULL);

    if (saved->num_xfers > SPICE_VDAGENT_XFERS) {
        return fail(error, "transfers", saved->num_xfers, "number");
    }
    for (uint32_t i = 0; i < saved->num_xfers; i++) {
        const SpiceVdagentXferState *x = &saved->xfers[i];
        uint64_t key = (uint64_t)x->client << 32 | x->id;

        if (!g_hash_table_add(guest_ids, GUINT_TO_POINTER(x->guest_id))) {
            return fail(error, "transfer", i, "guest-id, there twice");
        }
        if (!x->client) {
            continue;
        }
        if (!is_started(ids, x->client)) {
            return fail(error, "transfer", i, "client");
        }
        if (!g_hash_table_add(keys, g_memdup2(&key, sizeof(key)))) {
            return fail(error, "transfer", i, "id, there twice");
        }
    }
    return true;
}

static bool check_statuses(const SpiceVdagentSaved *saved, GHashTable *ids,
                           char **error)
{
    if (saved->num_statuses / SPICE_VDAGENT_CLIENT_XFERS > saved->num_clients) {
        return fail(error, "statuses", saved->num_statuses, "number");
    }
    for (uint32_t i = 0; i < saved->num_statuses; i++) {
        if (!is_started(ids, saved->statuses[i].client)) {
            return fail(error, "status", i, "client");
        }
    }
    return true;
}

/* Who owns a selection and who receives has to be there. */
static bool check_references(const SpiceVdagentSaved *saved, GHashTable *ids,
                             char **error)
{
    bool received = false;

    for (unsigned i = 0; i < SPICE_VDAGENT_SELECTIONS; i++) {
        uint32_t owner = saved->agent.selection[i].owner;

        if (owner && !is_started(ids, owner)) {
            return fail(error, "selection", i, "owner");
        }
    }
    for (uint32_t i = 0; i < saved->num_clients; i++) {
        if (saved->clients[i].receiving) {
            if (!saved->agent.passing) {
                return fail(error, "client", i, "receiving");
            }
            received = true;
        }
    }
    if (saved->agent.passing && !received) {
        *error = g_strdup("agent state: guest's message: bad passing");
        return false;
    }
    return true;
}

static bool saved_check(const SpiceVdagentSaved *saved, char **error)
{
    g_autoptr(GHashTable) ids = NULL;

    if (!check_agent(&saved->agent, error)) {
        return false;
    }
    ids = client_ids(saved, error);
    return ids && check_references(saved, ids, error) &&
           check_xfers(saved, ids, error) && check_statuses(saved, ids, error);
}

/*
 * Restore
 */

bool spice_vdagent_restore(SpiceVdagent *agent, const SpiceVdagentSaved *saved,
                           char **error)
{
    SpiceVdagentPolicy old = { .clipboard = saved->clipboard };

    if (!saved_check(saved, error)) {
        return false;
    }
    spice_vdagent_reset(agent);
    while (agent->clients.head) {
        spice_vdagent_client_remove(agent->clients.head->data, false);
    }
    agent->s = saved->agent;
    for (uint32_t i = 0; i < saved->num_clients; i++) {
        Client *client = spice_vdagent_client_add(agent,
                                                  saved->clients[i].id);

        client->s = saved->clients[i];
        agent->num_started += client->s.started;
    }
    vdagent_caps_changed(agent);
    for (uint32_t i = 0; i < saved->num_xfers; i++) {
        vdagent_xfer_insert(agent, &saved->xfers[i]);
    }
    for (uint32_t i = 0; i < saved->num_statuses; i++) {
        const SpiceVdagentStatusState *x = &saved->statuses[i];

        vdagent_xfer_status_add(spice_vdagent_client_find(agent, x->client),
                                x->id, x->result);
    }
    vdagent_take_away(agent, &old);
    return true;
}
